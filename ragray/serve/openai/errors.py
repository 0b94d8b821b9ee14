"""Errors as OpenAI's clients read them. In: a failure. Out: `{"error": {"message", "type", "param", "code"}}` with its status."""

from __future__ import annotations

from fastapi.responses import JSONResponse, Response
from pydantic import Field

from ragray.serve.failure import Failure, ForeignRoute, error_responses
from ragray.serve.schema import Wire

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


class OpenAIRoute(ForeignRoute):
    """A route whose errors are those of OpenAI."""

    @staticmethod
    def respond(failure: Failure) -> Response:
        """Return the response of a failure."""
        return JSONResponse(OpenAIErrorResponse.of(failure).model_dump(mode="json"), failure.status, failure.headers())


def _type_of(status: int) -> str:
    if status == 429:
        return "rate_limit_error"
    return "server_error" if status >= 500 else "invalid_request_error"
