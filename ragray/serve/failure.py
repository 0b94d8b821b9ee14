"""Errors over HTTP. In: an exception. Out: a status and the one error body that all of them share."""

from __future__ import annotations

import logging
import uuid
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from http import HTTPStatus

from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from ragray.errors import ConfigError, InputError, OverloadedError, RagrayError, ServingError
from ragray.serve.schema import ErrorDetail, ErrorResponse

logger = logging.getLogger("ragray.serve")

RETRY_AFTER_S = 1


@dataclass(frozen=True, slots=True)
class Failure:
    """An error response: status, type for programs, message for people, seconds until a retry, whether the connection closes."""

    status: int
    type: str
    message: str
    retry_after_s: int | None = None
    close: bool = False
    allow: str = ""

    def body(self) -> ErrorResponse:
        """Return the error body."""
        return ErrorResponse(error=ErrorDetail(type=self.type, message=self.message))

    def response(self) -> JSONResponse:
        """Return the whole response."""
        after = "" if self.retry_after_s is None else str(self.retry_after_s)
        headers = {"Retry-After": after, "Connection": "close" if self.close else "", "Allow": self.allow}
        given = {name: value for name, value in headers.items() if value}
        return JSONResponse(self.body().model_dump(mode="json"), self.status, given)


def failure_of(err: Exception) -> Failure:
    """Choose status and message for an exception; an unexpected one is logged under the id that its message names."""
    match err:
        case RequestValidationError():
            return Failure(422, "invalid_request", describe_invalid(err.errors()))
        case HTTPException():
            allow = (err.headers or {}).get("Allow", "")
            return Failure(err.status_code, _type_of(err.status_code), str(err.detail), allow=allow)
        case ClientDisconnect():
            return Failure(400, "invalid_request", "the client left before its request was complete", close=True)
        case OverloadedError():
            return Failure(429, "overloaded", str(err), RETRY_AFTER_S)
        case TimeoutError():
            return Failure(504, "timeout", str(err) or "not answered in time; try again, or ask for less")
        case InputError() | ConfigError():
            return Failure(400, "invalid_request", str(err))
        case ServingError():
            return Failure(503, "unavailable", str(err), RETRY_AFTER_S)
        case RagrayError():
            logger.error("%s: %s", type(err).__name__, err)
            return Failure(500, "internal", str(err))
        case _:
            number = uuid.uuid4().hex[:12]
            logger.error("error %s", number, exc_info=err)
            return Failure(
                500, "internal", f"unexpected error {number}; the service's log holds the details under this id"
            )


def describe_invalid(errors: Iterable[Mapping[str, object]]) -> str:
    """Return in one line what is wrong with a request, field by field."""
    return "; ".join(_describe_one(error) for error in errors)


def _describe_one(error: Mapping[str, object]) -> str:
    where = error.get("loc")
    parts = [str(part) for part in where[1:]] if isinstance(where, list | tuple) else []
    field = ".".join(parts)
    match error.get("type"):
        case "json_invalid":
            return f"body: is not valid JSON (at character {field or 0})"
        case "missing":
            return f"{field or 'body'}: is required"
        case "string_too_short":
            return f"{field}: must not be empty"
        case "extra_forbidden":
            return f"{field}: is not a known field"
        case _:
            return f"{field or 'body'}: {error.get('msg', 'is invalid')}"


def _type_of(status: int) -> str:
    try:
        return HTTPStatus(status).phrase.lower().replace(" ", "_")
    except ValueError:
        return "error"
