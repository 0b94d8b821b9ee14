"""The access log. In: requests and their responses. Out: a line of JSON for each, without texts unless they are asked for."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ragray.config import ServeConfig
from ragray.errors import ConfigError
from ragray.jsontext import to_json
from ragray.retrieve.caller import Caller, calling
from ragray.serve.access.settings import STDERR
from ragray.serve.guard import REQUEST_ID

Write = Callable[[str], None]

logger = logging.getLogger("ragray.serve")


def open_log(config: ServeConfig) -> Write | None:
    """Return what writes a line to `serve.access_log`; None where there is no log.

    Raises:
        ConfigError: the file cannot be written.
    """
    if not config.access_log:
        return None
    if config.access_log == STDERR:
        return partial(print, file=sys.stderr, flush=True)
    path = Path(config.access_log)
    try:
        _append(path, "")
    except OSError as err:
        raise ConfigError(f"serve.access_log={path}: cannot be written ({err.strerror}); name another file") from err
    return partial(_log, path)


def _log(path: Path, line: str) -> None:
    try:
        _append(path, f"{line}\n")
    except OSError as err:
        logger.error("%s: a line of the access log cannot be written (%s)", path, err.strerror)


def _append(path: Path, text: str) -> None:
    """Append in one piece: several Gateways of a machine may share a file, which may be moved away at any time."""
    with path.open("a", encoding="utf-8") as file:
        file.write(text)


class AccessLog:
    """Gives each request its `Caller`, and, with ``write``, writes a line when its response is over."""

    def __init__(self, app: ASGIApp, write: Write | None = None, *, with_questions: bool = False) -> None:
        self._app = app
        self._write = write
        self._with_questions = with_questions

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        caller, started = Caller(), time.monotonic()
        request_id, status = Headers(scope=scope).get(REQUEST_ID, ""), None

        async def watch(message: Message) -> None:
            nonlocal request_id, status
            if message["type"] == "http.response.start":
                status = message["status"]
                request_id = Headers(raw=message["headers"]).get(REQUEST_ID, request_id)
            await send(message)

        try:
            with calling(caller):
                await self._app(scope, receive, watch)
        finally:
            if self._write:
                ms = 1000 * (time.monotonic() - started)
                self._write(self._line(scope, caller, request_id, status, ms))

    def _line(self, scope: Scope, caller: Caller, request_id: str, status: int | None, ms: float) -> str:
        """Write what is known of a request; ``status`` is null where the client left before a response began."""
        entry: dict[str, object] = {
            "time": datetime.now(UTC).isoformat(timespec="milliseconds"),
            "request_id": request_id,
            "key": caller.name,
            "method": scope["method"],
            "route": scope["path"],
            "status": status,
            "ms": round(ms, 1),
            "tokens": caller.num_tokens,
            "snapshot": caller.snapshot,
        }
        if self._with_questions:
            entry["questions"] = caller.questions
        return to_json(entry, "the access log")
