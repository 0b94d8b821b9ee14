"""Requests that are answered together. In: requests, one by one. Out: what each gets, from calls that take all that wait."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from contextvars import Context
from typing import Generic, TypeVar

Item = TypeVar("Item")
R = TypeVar("R")


class Gatherer(Generic[Item, R]):
    """Hands what waits to ``call``, at most ``most`` items at a time, one call after the other.

    Nothing waits for others to come: while a call runs, the next one fills. With ``overflowing`` one that is full begins all the same.
    An item that is no longer waited for is left out of the calls that have not begun.
    """

    def __init__(
        self,
        call: Callable[[list[Item]], Awaitable[Sequence[R | Exception]]],
        *,
        most: int,
        overflowing: bool = False,
    ) -> None:
        """Take a function that returns for each item its result, or the error that is raised for it alone."""
        self._call = call
        self._most = most
        self._overflowing = overflowing
        self._waiting: deque[tuple[Item, asyncio.Future[R]]] = deque()
        self._running: set[asyncio.Task[None]] = set()

    async def __call__(self, item: Item) -> R:
        """Return what the call returns for an item; raises the item's error, or that of its whole call."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[R] = loop.create_future()
        self._waiting.append((item, future))
        loop.call_soon(self._begin)  # not at once: what else comes in this turn of the loop goes with it
        return await future

    def _begin(self) -> None:
        while self._waiting and (not self._running or (self._overflowing and len(self._waiting) >= self._most)):
            batch = [self._waiting.popleft() for _ in range(min(self._most, len(self._waiting)))]
            batch = [each for each in batch if not each[1].done()]
            if batch:
                # In a context of its own: Serve cancels what was sent in the context of a request when its client leaves.
                self._running.add(asyncio.create_task(self._run(batch), context=Context()))

    async def _run(self, batch: Sequence[tuple[Item, asyncio.Future[R]]]) -> None:
        found: Sequence[R | Exception]
        try:
            found = await self._call([item for item, _ in batch])
        except Exception as err:
            found = [err] * len(batch)
        except asyncio.CancelledError:
            for _, future in batch:
                future.cancel()
            raise
        finally:
            task = asyncio.current_task()
            assert task is not None
            self._running.discard(task)
            self._begin()
        for (_, future), result in zip(batch, found, strict=True):
            _settle(future, result)


def _settle(future: asyncio.Future[R], result: R | Exception) -> None:
    if future.done():  # it is no longer waited for
        return
    if isinstance(result, Exception):
        future.set_exception(result)
    else:
        future.set_result(result)
