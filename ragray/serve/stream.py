"""Server-sent events. In: an answer as it is written. Out: a response of its pieces, then the whole or an error."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator

from fastapi.responses import StreamingResponse
from pydantic import BaseModel
from starlette.types import Receive, Scope, Send

from ragray.generate.orchestrator import ServedAnswer
from ragray.serve.failure import failure_of
from ragray.serve.schema import AnswerResponse, Delta

Pieces = AsyncGenerator[str | ServedAnswer, None]

EVENT_EXAMPLE = (
    'data: {"delta": "the Se"}\n\ndata: {"delta": "ine"}\n\n'
    'event: answer\ndata: {"question": ..., "answer": "the Seine", ...}\n\n'
)


LINE_ENDS = {ord(end): f"\\u{ord(end):04x}" for end in "\x85\u2028\u2029"}
"""Characters that JSON does not escape and at which some clients end a line (`str.splitlines` does)."""

SEND_GRACE_S = 5.0
"""Seconds after its deadline when a stream is given up whose reader takes nothing, not even the error."""


class EventStream(StreamingResponse):
    """A response of events. However it ends, also where the client leaves, the writing behind it is stopped."""

    def __init__(self, first: str | ServedAnswer, rest: Pieces, *, deadline: float) -> None:
        headers = {"Cache-Control": "no-cache", "X-Accel-Buffering": "no"}
        super().__init__(_events(first, rest, deadline), media_type="text/event-stream", headers=headers)
        self._pieces = rest
        self._given_up = deadline + SEND_GRACE_S

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the events; a reader that never reads is waited for until shortly after the deadline."""
        try:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout_at(self._given_up):
                    await super().__call__(scope, receive, send)
        finally:
            await self._pieces.aclose()


async def open_stream(pieces: Pieces, *, timeout_s: float) -> EventStream:
    """Wait for the first piece, so that an error before it still decides the status; return the response of all events."""
    deadline = asyncio.get_running_loop().time() + timeout_s
    try:
        first = await _next(pieces, deadline)
    except BaseException:
        await pieces.aclose()
        raise
    return EventStream(first, pieces, deadline=deadline)


async def _events(first: str | ServedAnswer, rest: Pieces, deadline: float) -> AsyncGenerator[str, None]:
    """Yield one `data:` line per piece, then `event: answer` with the whole, or `event: error`."""
    try:
        piece = first
        while isinstance(piece, str):
            yield event(Delta(delta=piece))
            piece = await _next(rest, deadline)
        yield event(AnswerResponse.of(piece), name="answer")
    except Exception as err:
        yield event(failure_of(err).body(), name="error")


async def _next(pieces: Pieces, deadline: float) -> str | ServedAnswer:
    async with asyncio.timeout_at(deadline):
        return await anext(pieces)


def event(data: BaseModel, *, name: str = "") -> str:
    """Write one event, its JSON in one line by every client's notion of a line's end."""
    return f"{f'event: {name}' + chr(10) if name else ''}data: {data.model_dump_json().translate(LINE_ENDS)}\n\n"
