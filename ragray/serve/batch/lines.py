"""A batch as lines. In: jsonl. Out: a checked request for each line, or what is wrong with it; results as lines. Pure."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from fastapi.exceptions import RequestValidationError
from pydantic import Field, JsonValue, ValidationError

from ragray.serve.failure import Failure, failure_of
from ragray.serve.schema import Wire
from ragray.serve.strict import invalid, read_json

Url = Literal[
    "/v1/answer", "/v1/search", "/v1/chat/completions", "/v1/responses", "/v1/embeddings", "/v1/rerank", "/retrieval"
]
"""The routes that a batch may ask."""

MAX_ID_CHARS = 512


class BatchRequest(Wire):
    """One line: a request and the name by which its result is known."""

    custom_id: str = Field(min_length=1, max_length=MAX_ID_CHARS)
    method: Literal["POST"] = "POST"
    url: Url
    body: dict[str, JsonValue]


class BatchResponse(Wire):
    """What the route answered: its status, also where it is an error, the id of the request, the body."""

    status_code: int
    request_id: str
    body: JsonValue


class BatchError(Wire):
    """Why a line was not answered by any route."""

    code: str
    message: str


class BatchResult(Wire):
    """The result of one line: a response, or an error."""

    id: str
    custom_id: str | None
    response: BatchResponse | None
    error: BatchError | None

    @classmethod
    def answered(cls, custom_id: str, response: BatchResponse) -> BatchResult:
        """Return the result of a line that a route answered."""
        return cls(id=_new_id(), custom_id=custom_id, response=response, error=None)

    @classmethod
    def failed(cls, custom_id: str | None, failure: Failure) -> BatchResult:
        """Return the result of a line that no route answered."""
        error = BatchError(code=failure.type, message=failure.message)
        return cls(id=_new_id(), custom_id=custom_id, response=None, error=error)

    def line(self) -> str:
        """Return it as a line."""
        return self.model_dump_json() + "\n"


@dataclass(frozen=True, slots=True)
class WrongLine:
    """A line that is no request, and its ``custom_id`` as far as that is known."""

    custom_id: str | None
    failure: Failure


def read_lines(body: bytes) -> Iterator[BatchRequest | WrongLine]:
    """Yield what each line of a body holds; blank lines hold nothing. What is wrong with a line names its number, from 1."""
    seen: dict[str, int] = {}
    for number, line in enumerate(body.split(b"\n"), start=1):
        if not line.strip():
            continue
        custom_id = None
        try:
            value = read_json(line)
            custom_id = _custom_id(value)
            yield _checked(value, seen, number)
        except RequestValidationError as err:
            failure = failure_of(err)
            wrong = Failure(failure.status, failure.type, f"line {number}: {failure.message}")
            yield WrongLine(custom_id, wrong)


def _checked(value: object, seen: dict[str, int], number: int) -> BatchRequest:
    """Return the request of a line; raises `RequestValidationError` where it is none, or one that a batch cannot hold."""
    try:
        request = BatchRequest.model_validate(value)
    except ValidationError as err:
        faults = err.errors(include_url=False, include_input=False)
        raise RequestValidationError([{**fault, "loc": ("body", *fault["loc"])} for fault in faults]) from err
    if (first := seen.setdefault(request.custom_id, number)) != number:
        raise invalid(("custom_id",), f"'{request.custom_id}' is that of line {first} already")
    if request.body.get("stream"):
        raise invalid(("body", "stream"), "is not possible in a batch: leave it out")
    return request


def _custom_id(value: object) -> str | None:
    found = value.get("custom_id") if isinstance(value, dict) else None
    return found if isinstance(found, str) else None


def _new_id() -> str:
    return f"batch_req_{uuid.uuid4().hex}"
