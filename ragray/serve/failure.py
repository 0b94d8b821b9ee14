"""Errors over HTTP. In: an exception. Out: a status and the one error body that all of them share."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import uuid
from abc import abstractmethod
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Mapping
from dataclasses import dataclass, replace
from http import HTTPStatus
from typing import Any

from fastapi import Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response
from pydantic import BaseModel
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from ragray.errors import ConfigError, InputError, OverloadedError, RagrayError, ServingError
from ragray.serve.load.deadline import time_left
from ragray.serve.schema import ErrorDetail, ErrorResponse
from ragray.serve.strict import JsonRoute

logger = logging.getLogger("ragray.serve")

RETRY_AFTER_S = 1
NO_KEY, BAD_KEY = "no_api_key", "invalid_api_key"
"""Codes of requests without a key, and of those whose key is not known."""

POST_ERRORS = (400, 413, 415, 422, 429, 500, 503, 504)
MEANINGS = {
    400: "The request cannot be answered; the message names the field or the limit.",
    401: "The request brings no key that is known here.",
    404: "There is no such model, or none is loaded.",
    413: "The body is larger than the service allows.",
    415: "The body is not sent as `application/json`.",
    422: "The request is invalid; the message names the field.",
    429: "Too many requests are waiting; try again after `Retry-After` seconds.",
    500: "Something unexpected; the message holds the id of the log entry.",
    503: "The service cannot answer now; the message says why.",
    504: "Not answered in time.",
}


@dataclass(frozen=True, slots=True)
class Failure:
    """An error response: status, type for programs, message for people, seconds until a retry, whether the connection closes.

    ``param`` is the field of the request that is wrong, ``code`` in what way; both "" where that is not known.
    """

    status: int
    type: str
    message: str
    retry_after_s: int | None = None
    close: bool = False
    allow: str = ""
    param: str = ""
    code: str = ""

    def body(self) -> ErrorResponse:
        """Return the error body."""
        return ErrorResponse(error=ErrorDetail(type=self.type, message=self.message))

    def response(self) -> JSONResponse:
        """Return the whole response."""
        return JSONResponse(self.body().model_dump(mode="json"), self.status, self.headers())

    def headers(self) -> dict[str, str]:
        """Return the headers of the response."""
        after = "" if self.retry_after_s is None else str(self.retry_after_s)
        headers = {"Retry-After": after, "Connection": "close" if self.close else "", "Allow": self.allow}
        return {name: value for name, value in headers.items() if value}


class Refused(Exception):  # noqa: N818 - no error of the program: it carries a response out of a route
    """A request is answered with a failure."""

    def __init__(self, failure: Failure) -> None:
        super().__init__(failure.message)
        self.failure = failure


@contextlib.asynccontextmanager
async def refusing(timeout_s: float) -> AsyncIterator[None]:
    """Turn an exception of the block, or a block that takes too long, into a response, so that the server sees no exception.

    Too long is longer than ``timeout_s``, or than the request wants to wait (`ragray.serve.load.deadline`).
    """
    try:
        async with asyncio.timeout(time_left(timeout_s)):
            yield
    except Exception as err:
        raise Refused(failure_of(err)) from err


class ForeignRoute(JsonRoute):
    """A route whose errors have the body of another interface; what elsewhere is 422 is 400 here."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """Return the handler, with the errors around it."""
        handle = super().get_route_handler()

        async def answered(request: Request) -> Response:
            try:
                return await handle(request)
            except (Refused, RequestValidationError, HTTPException) as err:
                failure = failure_of(err)
                return self.respond(replace(failure, status=400) if failure.status == 422 else failure)

        return answered

    @staticmethod
    @abstractmethod
    def respond(failure: Failure) -> Response:
        """Return the response of a failure."""


def error_responses(*statuses: int, model: type[BaseModel] = ErrorResponse) -> dict[int | str, dict[str, Any]]:
    """Describe responses that are errors, for OpenAPI (whose shape FastAPI types as `dict[str, Any]`)."""
    return {status: {"model": model, "description": MEANINGS[status]} for status in statuses}


def failure_of(err: Exception) -> Failure:
    """Choose status and message for an exception; an unexpected one is logged under the id that its message names."""
    match err:
        case Refused():
            return err.failure
        case RequestValidationError():
            first = err.errors()[0]
            param, code = _field(first), str(first.get("type", ""))
            return Failure(422, "invalid_request", describe_invalid(err.errors()), param=param, code=code)
        case HTTPException():
            allow = (err.headers or {}).get("Allow", "")
            return Failure(err.status_code, _type_of(err.status_code), str(err.detail), allow=allow)
        case ClientDisconnect():
            return Failure(400, "invalid_request", "the client left before its request was complete", close=True)
        case OverloadedError():
            return Failure(429, "overloaded", str(err), err.retry_after_s)
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
    field = _field(error)
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


def _field(error: Mapping[str, object]) -> str:
    """Return the field that an error is about, as a path with dots; "" for the whole body."""
    where = error.get("loc")
    return ".".join(str(part) for part in where[1:]) if isinstance(where, list | tuple) else ""


def _type_of(status: int) -> str:
    try:
        return HTTPStatus(status).phrase.lower().replace(" ", "_")
    except ValueError:
        return "error"
