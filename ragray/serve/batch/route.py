"""`POST /v1/batch`. In: a request per line. Out: a result per line, in the same order, each as it is ready."""

from __future__ import annotations

import asyncio
import json
from collections import deque
from collections.abc import AsyncGenerator, Iterable
from email.message import Message
from functools import partial
from itertools import islice

from fastapi import APIRouter, Request
from fastapi.responses import Response
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Scope

from ragray.config import ServeConfig
from ragray.serve.batch.inner import post
from ragray.serve.batch.lines import BatchRequest, BatchResponse, BatchResult, WrongLine, read_lines
from ragray.serve.failure import POST_ERRORS, Failure, error_responses, refusing
from ragray.serve.guard import REQUEST_ID
from ragray.serve.load.deadline import time_left
from ragray.serve.stream import ClosingStream
from ragray.serve.strict import invalid

SIDE_BY_SIDE = 8
"""Requests of a batch that are answered at one time."""

JSONL = "application/jsonl"
MEDIA_TYPES = (JSONL, "application/x-ndjson", "application/x-jsonlines", "application/json-lines")
BODY_EXAMPLE = (
    '{"custom_id": "1", "method": "POST", "url": "/v1/search", "body": {"query": "Which river flows through Paris?"}}\n'
)
RESULT_EXAMPLE = (
    '{"id": "batch_req_5b1c", "custom_id": "1", "response": {"status_code": 200, "request_id": "9c41", '
    '"body": {"snapshot": ..., "hits": ...}}, "error": null}\n'
)
TEXT = {"type": "string"}
ASKED = {"requestBody": {"required": True, "content": {JSONL: {"schema": TEXT, "example": BODY_EXAMPLE}}}}
RESPONSES = {
    200: {"description": "A result per line.", "content": {JSONL: {"schema": TEXT, "example": RESULT_EXAMPLE}}},
    **error_responses(*POST_ERRORS),
}


def add_batch(app: APIRouter, config: ServeConfig) -> None:
    """Add the route."""

    @app.post(
        "/v1/batch",
        summary="Send many requests in one",
        tags=["ask"],
        response_class=Response,
        responses=RESPONSES,
        openapi_extra=ASKED,
    )
    async def batch(request: Request) -> Response:
        """Answer a request per line (`{"custom_id", "method", "url", "body"}`) with a result per line, in the same order.

        Each is answered as if it had come alone, within the filter and the limits of the key that brings them all. A line that
        is wrong is an error of its own. Lines that are not answered within `serve.request_timeout_s` of the batch get the
        error `timeout`; send them again.
        """
        async with refusing(config.request_timeout_s):
            _require_jsonl(request.headers.get("content-type"))
            lines = list(read_lines(await request.body()))
            if not lines:
                raise invalid((), "holds no request, expected one JSON object per line")
            deadline = asyncio.get_running_loop().time() + time_left(config.request_timeout_s)
            results = _results(request.app, request.scope, lines, deadline)
            return ClosingStream(results, behind=results, deadline=deadline, media_type=JSONL)


def _require_jsonl(content_type: str | None) -> None:
    message = Message()
    message["content-type"] = content_type or "none/none"
    if message.get_content_type() not in MEDIA_TYPES:
        found = f"has Content-Type {content_type!a}" if content_type else "has no Content-Type"
        raise HTTPException(415, f"body: {found}, expected {JSONL}")


async def _results(
    app: ASGIApp, outer: Scope, lines: Iterable[BatchRequest | WrongLine], deadline: float
) -> AsyncGenerator[str, None]:
    """Yield the results in the order of the lines; a few are worked on at a time, and none any longer once this is closed."""
    waiting = iter(lines)
    running: deque[asyncio.Task[BatchResult]] = deque()
    answer = partial(_result, app, outer, deadline=deadline)
    try:
        while True:
            running.extend(asyncio.create_task(answer(line)) for line in islice(waiting, SIDE_BY_SIDE - len(running)))
            if not running:
                return
            yield (await running[0]).line()
            running.popleft()
    finally:
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)


async def _result(app: ASGIApp, outer: Scope, line: BatchRequest | WrongLine, *, deadline: float) -> BatchResult:
    if isinstance(line, WrongLine):
        return BatchResult.failed(line.custom_id, line.failure)
    try:
        async with asyncio.timeout_at(deadline):
            found = await post(app, outer, line.url, json.dumps(line.body).encode())
    except TimeoutError:
        late = Failure(504, "timeout", "not answered within the time of the batch; send it again, in a smaller one")
        return BatchResult.failed(line.custom_id, late)
    request_id = found.headers.get(REQUEST_ID, "")
    response = BatchResponse(status_code=found.status, request_id=request_id, body=json.loads(found.body))
    return BatchResult.answered(line.custom_id, response)
