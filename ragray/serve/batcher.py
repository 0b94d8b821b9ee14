"""One thread that owns a generator. In: prompts, as requests come. Out: their answers, piece by piece, written side by side.

A request joins the running batch as soon as there is room, and leaves it between two tokens when nobody waits for it any longer.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections import deque
from collections.abc import AsyncGenerator
from dataclasses import dataclass, field

from ragray.errors import InputError, ServingError
from ragray.generate.generator import Generation, GenerationBatch, Generator, Prompt

FLUSH_S = 0.03
"""Pieces that are ready within this time of each other travel as one: a message costs more than a token."""


@dataclass(slots=True, eq=False)
class Request:
    """A prompt, and the event loop that waits for what comes of it."""

    prompt: Prompt
    wants_pieces: bool
    loop: asyncio.AbstractEventLoop
    ready: asyncio.Queue[str | Generation | Exception] = field(default_factory=asyncio.Queue)
    left: bool = False

    def deliver(self, item: str | Generation | Exception) -> None:
        """Hand something over to the event loop; where that has ended, nobody waits any longer."""
        if isinstance(item, str) and not self.wants_pieces:
            return
        try:
            self.loop.call_soon_threadsafe(self.ready.put_nowait, item)
        except RuntimeError:
            self.left = True


class Batcher:
    """Writes the answers of all requests in one thread: the generator is never entered twice."""

    def __init__(self, generator: Generator) -> None:
        self._generator = generator
        self._waiting: deque[Request] = deque()
        self._running: dict[int, Request] = {}
        self._changed = threading.Condition()
        self._closed = False
        self._last_key = 0
        self._thread = threading.Thread(target=self._work, name="generator", daemon=True)
        self._thread.start()

    async def generate(self, prompt: Prompt) -> Generation:
        """Answer a prompt; who stops waiting takes it out of the batch. Raises what the generator raises of this prompt."""
        async with contextlib.aclosing(self._submit(prompt, wants_pieces=False)) as pieces:
            async for piece in pieces:
                if isinstance(piece, Generation):
                    return piece
        raise ServingError("the generator stopped before the answer was written; try again in a second")

    def stream(self, prompt: Prompt) -> AsyncGenerator[str | Generation, None]:
        """Yield an answer piece by piece, then, last, the whole; closing the generator takes the prompt out of the batch."""
        return self._submit(prompt, wants_pieces=True)

    def close(self) -> None:
        """Let the thread end after the token that it is writing; requests that are not answered get a `ServingError`."""
        with self._changed:
            self._closed = True
            self._changed.notify()

    async def _submit(self, prompt: Prompt, *, wants_pieces: bool) -> AsyncGenerator[str | Generation, None]:
        request = Request(prompt, wants_pieces, asyncio.get_running_loop())
        with self._changed:
            if self._closed:
                raise ServingError("the generator is stopping; try again in a second")
            self._waiting.append(request)
            self._changed.notify()
        try:
            while True:
                text, last = await _all_ready(request.ready)
                if text:
                    yield text
                if isinstance(last, Exception):
                    raise last
                if last is not None:
                    yield last
                    return
                await asyncio.sleep(FLUSH_S)
        finally:
            request.left = True

    def _work(self) -> None:
        batch = self._generator.open_batch()
        while self._await_work():
            for key in [key for key, request in self._running.items() if request.left]:
                del self._running[key]
                batch.remove(key)
            try:
                self._admit(batch)
                pieces = batch.step() if len(batch) else []
            except Exception as err:
                self._fail(err)
                batch = self._generator.open_batch()
                continue
            for key, piece in pieces:
                self._running[key].deliver(piece)
                if isinstance(piece, Generation):
                    del self._running[key]
        with self._changed:
            self._fail(ServingError("the generator is stopping; try again in a second"))

    def _await_work(self) -> bool:
        """Wait until there is something to do; return whether the thread is to go on."""
        with self._changed:
            self._changed.wait_for(lambda: self._closed or self._waiting or self._running)
            return not self._closed

    def _admit(self, batch: GenerationBatch) -> None:
        """Let requests join in the order that they came in; one that the generator refuses gets its error alone.

        Any other error is raised too: it may have come while the request's rows were put beside the others.
        """
        while batch.room:
            with self._changed:
                if not self._waiting:
                    return
                request = self._waiting.popleft()
            if request.left:
                continue
            self._last_key += 1
            try:
                batch.add({self._last_key: request.prompt})
            except InputError as err:
                request.deliver(err)
            except Exception as err:
                request.deliver(err)
                raise
            else:
                self._running[self._last_key] = request

    def _fail(self, error: Exception) -> None:
        """Give an error to all whose answers are being written and, at the end, to all who wait."""
        for request in [*self._running.values(), *(self._waiting if self._closed else ())]:
            request.deliver(error)
        self._running.clear()


async def _all_ready(queue: asyncio.Queue[str | Generation | Exception]) -> tuple[str, Generation | Exception | None]:
    """Wait for one item, then take those that are there already: the text, joined, and what ends the answer, if it has come."""
    items = [await queue.get()]
    while not queue.empty():
        items.append(queue.get_nowait())
    last = items[-1]
    return "".join(item for item in items if isinstance(item, str)), None if isinstance(last, str) else last
