"""One thread that owns a model. In: calls and iterators that block. Out: awaitables and streams that do not."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncGenerator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")

FLUSH_S = 0.03
"""Pieces that are ready within this time of each other travel as one: a message costs more than a token."""


class Worker:
    """Runs calls one after another, in the order they came, in a thread of its own: a model is never entered twice."""

    def __init__(self, name: str) -> None:
        self._pool = ThreadPoolExecutor(max_workers=1, thread_name_prefix=name)

    async def run(self, work: Callable[[], T]) -> T:
        """Run one call; if it is cancelled before its turn, it never runs."""
        return await asyncio.get_running_loop().run_in_executor(self._pool, work)

    async def stream(self, start: Callable[[], Iterator[str | T]]) -> AsyncGenerator[str | T, None]:
        """Iterate in the thread, yield here: the first piece at once, later ones joined, what is no text on its own.

        Closing the generator stops the iteration after the piece that is being made.
        """
        loop = asyncio.get_running_loop()
        ready: asyncio.Queue[str | T | None] = asyncio.Queue()
        stopped = threading.Event()

        def produce() -> None:
            for item in start():
                if stopped.is_set():
                    return
                loop.call_soon_threadsafe(ready.put_nowait, item)

        work = loop.run_in_executor(self._pool, produce)
        work.add_done_callback(lambda _: ready.put_nowait(None))
        try:
            ended = False
            while not ended:
                items = await _all_ready(ready)
                if text := "".join(item for item in items if isinstance(item, str)):
                    yield text
                for item in items:
                    if item is not None and not isinstance(item, str):
                        yield item
                ended = None in items
                if not ended:
                    await asyncio.sleep(FLUSH_S)
            await work
        finally:
            stopped.set()
            work.cancel()

    def close(self) -> None:
        """Let the thread end after what it is doing now; calls that wait are cancelled."""
        self._pool.shutdown(wait=False, cancel_futures=True)


async def _all_ready(queue: asyncio.Queue[str | T | None]) -> list[str | T | None]:
    """Wait for one item, then take those that are there already."""
    items = [await queue.get()]
    while not queue.empty():
        items.append(queue.get_nowait())
    return items
