"""Request bodies as JSON. In: a POST. Out: its value, or an error that names the field and what is not JSON in it."""

from __future__ import annotations

import codecs
import json
import math
from collections.abc import Callable, Coroutine, Iterator
from email.message import Message
from typing import Any

from fastapi import Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from starlette.exceptions import HTTPException

Place = tuple[str | int, ...]


class JsonRoute(APIRoute):
    """A route whose requests hold JSON, if they have a body: another content type is 415, what JSON does not know is 422."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """Return the handler, with the checks before it."""
        handle = super().get_route_handler()

        async def checked(request: Request) -> Response:
            if request.method in ("GET", "HEAD"):
                return await handle(request)
            require_json(request.headers.get("content-type"))
            strict = JsonRequest(request.scope, request.receive)
            await strict.json()
            return await handle(strict)

        return checked


class JsonRequest(Request):
    """A request whose body is read by `read_json`."""

    async def json(self) -> Any:
        """Return the body's value; raises `RequestValidationError` (once it was returned, it is returned again)."""
        if not hasattr(self, "_strict"):
            body = await self.body()
            self._strict = read_json(body) if body else None
        return self._strict


def require_json(content_type: str | None) -> None:
    """Raise `HTTPException` 415 unless the content type is JSON."""
    message = Message()
    message["content-type"] = content_type or "none/none"
    kind = message.get_content_type()
    if kind == "application/json" or (kind.startswith("application/") and kind.endswith("+json")):
        return
    found = f"has Content-Type {content_type!a}" if content_type else "has no Content-Type"
    raise HTTPException(415, f"body: {found}, expected application/json")


def read_json(body: bytes) -> object:
    """Read a body; raises `RequestValidationError` where it is no JSON, not UTF-8, or holds half a character or NaN."""
    raw = body.removeprefix(codecs.BOM_UTF8)
    try:
        value: object = json.loads(raw.decode("utf-8", "surrogateescape"))
    except json.JSONDecodeError as err:
        raise invalid((err.pos,), "JSON decode error", "json_invalid") from err
    except RecursionError as err:
        raise invalid((), "is nested too deeply") from err
    except ValueError as err:  # a number of more digits than Python reads
        raise invalid((), f"holds a number that cannot be read ({err})") from err
    for place, reason in _faults(value):
        raise invalid(place, reason)
    return value


def require_short(field: str, text: str, max_chars: int) -> None:
    """Raise `RequestValidationError` where a field of the body has too many characters."""
    if len(text) > max_chars:
        raise invalid((field,), f"has {len(text)} characters, at most {max_chars} are allowed", "too_long")


def _faults(value: object) -> Iterator[tuple[Place, str]]:
    """Yield where a value holds what JSON cannot: text that is no text, a number that is no number."""
    waiting: list[tuple[Place, object]] = [((), value)]
    while waiting:
        place, found = waiting.pop()
        if isinstance(found, str) and (broken := _broken(found)):
            yield place, broken
        elif isinstance(found, float) and not math.isfinite(found):
            yield place, f"is {found}, which is no number of JSON"
        elif isinstance(found, list):
            waiting += [((*place, row), item) for row, item in enumerate(found)]
        elif isinstance(found, dict):
            for key, item in found.items():
                if broken := _broken(key):
                    yield place, f"the name of a field {broken}"
                waiting.append(((*place, key), item))


def _broken(text: str) -> str:
    """Return what is wrong with a text that cannot be written as UTF-8, "" if nothing is."""
    try:
        text.encode()
    except UnicodeEncodeError as err:
        code = ord(text[err.start])
        where = f"(character {err.start + 1})"
        if 0xDC80 <= code <= 0xDCFF:
            return f"holds the byte 0x{code - 0xDC00:02x}, which is not UTF-8 {where}"
        return f"holds half a character, \\u{code:04x}, which cannot be written as UTF-8 {where}"
    return ""


def invalid(place: Place, message: str, kind: str = "value_error") -> RequestValidationError:
    """Return the error of a field of a body; ``kind`` names for programs what is wrong with it."""
    return RequestValidationError([{"loc": ("body", *place), "msg": message, "type": kind}])
