"""Server-sent events. In: an answer as it is written. Out: a response of its pieces, then the whole or an error."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Mapping
from typing import Protocol

from fastapi.responses import StreamingResponse
from pydantic import BaseModel
from starlette.types import Receive, Scope, Send

from ragray.generate.orchestrator import ServedAnswer
from ragray.serve.failure import Failure, failure_of
from ragray.serve.load.deadline import time_left
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


class EventForm(Protocol):
    """How an answer is written as events; an empty text is no event."""

    def begin(self) -> str:
        """Return what comes before the first piece."""

    def piece(self, text: str) -> str:
        """Return the event of a text that came to the answer."""

    def end(self, served: ServedAnswer) -> str:
        """Return the events of the whole answer."""

    def error(self, failure: Failure) -> str:
        """Return the event of an error, after which nothing comes."""


class AnswerEvents:
    """The events of `POST /v1/answer`: `data:` for each piece, then `event: answer` with the whole, or `event: error`."""

    def begin(self) -> str:
        """Return nothing."""
        return ""

    def piece(self, text: str) -> str:
        """Return a delta."""
        return event(Delta(delta=text))

    def end(self, served: ServedAnswer) -> str:
        """Return what comes without `stream`."""
        return event(AnswerResponse.of(served), name="answer")

    def error(self, failure: Failure) -> str:
        """Return the error body."""
        return event(failure.body(), name="error")


class ClosingStream(StreamingResponse):
    """A response that is written while it is sent. However it ends, also where the client leaves, what is ``behind`` it is closed.

    A reader that never reads is waited for until shortly after the ``deadline``, in seconds of the event loop's clock.
    """

    def __init__(
        self,
        content: AsyncGenerator[str, None],
        *,
        behind: AsyncGenerator[object, None],
        deadline: float,
        media_type: str,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(content, media_type=media_type, headers=headers)
        self._behind = behind
        self._given_up = deadline + SEND_GRACE_S

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send what is written."""
        try:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout_at(self._given_up):
                    await super().__call__(scope, receive, send)
        finally:
            await self._behind.aclose()


class EventStream(ClosingStream):
    """A response of events."""

    def __init__(
        self,
        first: str | ServedAnswer,
        rest: Pieces,
        *,
        deadline: float,
        form: EventForm | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        sent = {"Cache-Control": "no-cache", "X-Accel-Buffering": "no", **(headers or {})}
        events = _events(first, rest, deadline, form or AnswerEvents())
        super().__init__(events, behind=rest, deadline=deadline, media_type="text/event-stream", headers=sent)


async def open_stream(
    pieces: Pieces, *, timeout_s: float, form: EventForm | None = None, headers: Mapping[str, str] | None = None
) -> EventStream:
    """Wait for the first piece, so that an error before it still decides the status; return the response of all events."""
    deadline = asyncio.get_running_loop().time() + time_left(timeout_s)
    try:
        first = await _next(pieces, deadline)
    except BaseException:
        await pieces.aclose()
        raise
    return EventStream(first, pieces, deadline=deadline, form=form, headers=headers)


async def _events(
    first: str | ServedAnswer, rest: Pieces, deadline: float, form: EventForm
) -> AsyncGenerator[str, None]:
    """Yield the events of an answer."""
    try:
        if begun := form.begin():
            yield begun
        piece = first
        while isinstance(piece, str):
            if written := form.piece(piece):
                yield written
            piece = await _next(rest, deadline)
        yield form.end(piece)
    except Exception as err:
        yield form.error(failure_of(err))


async def _next(pieces: Pieces, deadline: float) -> str | ServedAnswer:
    async with asyncio.timeout_at(deadline):
        return await anext(pieces)


def event(data: BaseModel, *, name: str = "", only_set: bool = False) -> str:
    """Write one event, its JSON in one line by every client's notion of a line's end; ``only_set`` leaves defaults out."""
    text = data.model_dump_json(exclude_unset=only_set).translate(LINE_ENDS)
    return f"{f'event: {name}' + chr(10) if name else ''}data: {text}\n\n"
