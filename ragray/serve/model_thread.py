"""The thread of a generator. In: requests of any event loop. Out: their answers, piece by piece, written side by side.

A request joins the batch as soon as there is room, and leaves it between two tokens when nobody waits for it any longer.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import AsyncGenerator
from dataclasses import dataclass, field

from ragray.errors import ServingError
from ragray.generate.engine import GREEDY, Engine, Generation, GenerationRequest, Piece, Sampling, Submission
from ragray.generate.generator import Generator

FLUSH_S = 0.03
"""Pieces that are ready within this time of each other travel as one: a message costs more than a token."""


@dataclass(slots=True, eq=False)
class _Reader:
    """The event loop that waits for what comes of a request."""

    wants_pieces: bool
    loop: asyncio.AbstractEventLoop = field(default_factory=asyncio.get_running_loop)
    ready: asyncio.Queue[Piece | Exception] = field(default_factory=asyncio.Queue)

    def deliver(self, submission: Submission, item: Piece | Exception) -> None:
        """Hand something over to the event loop; where the loop has ended, nobody waits any longer."""
        if isinstance(item, str) and not self.wants_pieces:
            return
        try:
            self.loop.call_soon_threadsafe(self.ready.put_nowait, item)
        except RuntimeError:
            submission.cancelled = True


class ModelThread:
    """Writes the answers of all requests in one thread, so that the model is never entered twice."""

    def __init__(self, generator: Generator) -> None:
        self._engine = Engine(generator.open_runner)
        self._readers: dict[Submission, _Reader] = {}
        self._changed = threading.Condition()
        self._closed = False
        self._thread = threading.Thread(target=self._work, name="generator", daemon=True)
        self._thread.start()

    @property
    def num_open(self) -> int:
        """Number of requests that wait or are being answered."""
        return len(self._engine)

    @property
    def num_running(self) -> int:
        """Number of requests that are being answered."""
        return self._engine.num_running

    async def generate(self, request: GenerationRequest, sampling: Sampling = GREEDY) -> Generation:
        """Answer a request; cancelling this takes it out of the batch. Raises what the generator raises of this request."""
        async with contextlib.aclosing(self._pieces(request, sampling, wants_pieces=False)) as pieces:
            async for piece in pieces:
                if isinstance(piece, Generation):
                    return piece
        raise ServingError("the generator stopped before the answer was written; try again in a second")

    def stream(self, request: GenerationRequest, sampling: Sampling = GREEDY) -> AsyncGenerator[Piece, None]:
        """Yield an answer piece by piece, then, last, the whole; closing the generator takes the request out of the batch."""
        return self._pieces(request, sampling, wants_pieces=True)

    def close(self) -> None:
        """Let the thread end after the token that it is writing; requests that are not answered get a `ServingError`."""
        with self._changed:
            self._closed = True
            self._changed.notify()

    async def _pieces(
        self, request: GenerationRequest, sampling: Sampling, *, wants_pieces: bool
    ) -> AsyncGenerator[Piece, None]:
        reader = _Reader(wants_pieces)
        with self._changed:
            if self._closed:
                raise _stopping()
            submission = self._engine.submit(request, sampling)
            self._readers[submission] = reader
            self._changed.notify()
        try:
            while True:
                text, last = await _all_ready(reader.ready)
                if text:
                    yield text
                if isinstance(last, Exception):
                    raise last
                if last is not None:
                    yield last
                    return
                await asyncio.sleep(FLUSH_S)
        finally:
            submission.cancelled = True
            self._readers.pop(submission, None)

    def _work(self) -> None:
        while self._await_work():
            for submission, item in self._engine.step():
                self._deliver(submission, item)
        with self._changed:
            for submission in self._engine.close():
                self._deliver(submission, _stopping())

    def _await_work(self) -> bool:
        """Wait until there is something to do; return whether the thread is to go on."""
        with self._changed:
            self._changed.wait_for(lambda: self._closed or len(self._engine))
            return not self._closed

    def _deliver(self, submission: Submission, item: Piece | Exception) -> None:
        if reader := self._readers.get(submission):  # it is gone where its reader left meanwhile
            reader.deliver(submission, item)


def _stopping() -> ServingError:
    return ServingError("the generator is stopping; try again in a second")


async def _all_ready(queue: asyncio.Queue[Piece | Exception]) -> tuple[str, Generation | Exception | None]:
    """Wait for one item, then take those that are there already: the text, joined, and what ends the answer, if it has come."""
    items = [await queue.get()]
    while not queue.empty():
        items.append(queue.get_nowait())
    last = items[-1]
    return "".join(item for item in items if isinstance(item, str)), None if isinstance(last, str) else last
