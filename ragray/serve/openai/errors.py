"""Errors as OpenAI's clients read them. In: a failure. Out: `{"error": {"message", "type", "param", "code"}}` with its status."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any

from fastapi import Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response
from pydantic import Field
from starlette.exceptions import HTTPException

from ragray.serve.failure import Failure, Refused, error_responses, failure_of
from ragray.serve.schema import Wire
from ragray.serve.strict import JsonRoute

CODES = {"extra_forbidden": "unknown_parameter", "missing": "missing_required_parameter"}
"""The codes that OpenAI has for what pydantic reports."""


class OpenAIErrorDetail(Wire):
    """What went wrong."""

    message: str = Field(description="one line for the person who reads it", examples=["n: is not supported but as 1"])
    type: str = Field(
        description="invalid_request_error, rate_limit_error or server_error", examples=["invalid_request_error"]
    )
    param: str | None = Field(description="the field of the request that is wrong", examples=["n"])
    code: str | None = Field(description="what is wrong, for programs", examples=["unsupported_parameter"])


class OpenAIErrorResponse(Wire):
    """The body of every response of these routes that is no success."""

    error: OpenAIErrorDetail = Field(description="what went wrong")

    @classmethod
    def of(cls, failure: Failure) -> OpenAIErrorResponse:
        """Write a failure as OpenAI does."""
        kind, code = _type_of(failure.status), CODES.get(failure.code, failure.code) or failure.type
        detail = OpenAIErrorDetail(message=failure.message, type=kind, param=failure.param or None, code=code)
        return cls(error=detail)


OPENAI_ERRORS = error_responses(400, 404, 413, 415, 429, 500, 503, 504, model=OpenAIErrorResponse)


class OpenAIRoute(JsonRoute):
    """A route whose errors are those of OpenAI; what elsewhere is 422 is 400 here."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """Return the handler, with the errors around it."""
        handle = super().get_route_handler()

        async def answered(request: Request) -> Response:
            try:
                return await handle(request)
            except (Refused, RequestValidationError, HTTPException) as err:
                return openai_response(failure_of(err))

        return answered


def openai_response(failure: Failure) -> Response:
    """Return the response of a failure."""
    status = 400 if failure.status == 422 else failure.status
    return JSONResponse(OpenAIErrorResponse.of(failure).model_dump(mode="json"), status, failure.headers())


def _type_of(status: int) -> str:
    if status == 429:
        return "rate_limit_error"
    return "server_error" if status >= 500 else "invalid_request_error"
