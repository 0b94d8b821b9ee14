"""The answerer of one process. In: a retriever and a generator. Out: an `Answerer` that needs no Ray."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Iterator
from concurrent.futures import ThreadPoolExecutor
from time import monotonic

from ragray.errors import OverloadedError
from ragray.generate.generator import Generation, Generator, Prompt
from ragray.generate.pipeline import to_answer
from ragray.retrieve.retriever import Retriever
from ragray.serve.answerer import Found, Health, ServedAnswer
from ragray.serve.batcher import Batcher


class LocalAnswerer:
    """Searches in one thread and writes answers in another; past ``max_waiting`` open requests it refuses more."""

    def __init__(
        self, retriever: Retriever, generator: Generator, *, k: int, run: str = "", max_waiting: int = 64
    ) -> None:
        self._retriever = retriever
        self._generator = generator
        self._k = k
        self._run = run
        self._searching = ThreadPoolExecutor(max_workers=1, thread_name_prefix="retriever")
        self._batcher = Batcher(generator)
        self._max_waiting = max_waiting
        self._waiting = 0

    async def search(self, query: str, *, k: int | None) -> Found:
        """Return the k best passages of a query."""
        with self._place():
            return await self._search(query, k)

    async def answer(self, question: str, *, k: int | None, closed_book: bool) -> ServedAnswer:
        """Answer a question."""
        with self._place():
            prompt, retrieve_s = await self._prompt(question, k, closed_book)
            started = monotonic()
            generation = await self._batcher.generate(prompt)
        return self._served(prompt, generation, closed_book, retrieve_s, monotonic() - started)

    async def stream(
        self, question: str, *, k: int | None, closed_book: bool
    ) -> AsyncGenerator[str | ServedAnswer, None]:
        """Yield an answer piece by piece, then, last, the whole."""
        with self._place():
            prompt, retrieve_s = await self._prompt(question, k, closed_book)
            started = monotonic()
            async with contextlib.aclosing(self._batcher.stream(prompt)) as pieces:
                async for piece in pieces:
                    if isinstance(piece, Generation):
                        yield self._served(prompt, piece, closed_book, retrieve_s, monotonic() - started)
                    else:
                        yield piece

    async def health(self) -> Health:
        """Describe what is served."""
        return Health(snapshot=self._retriever.snapshot, run=self._run)

    def close(self) -> None:
        """Let both threads end."""
        self._searching.shutdown(wait=False, cancel_futures=True)
        self._batcher.close()

    async def _prompt(self, question: str, k: int | None, closed_book: bool) -> tuple[Prompt, float]:
        started = monotonic()
        self._generator.check(question)
        hits = () if closed_book else (await self._search(question, k)).hits
        return Prompt(question, hits), monotonic() - started

    async def _search(self, query: str, k: int | None) -> Found:
        loop = asyncio.get_running_loop()
        [hits] = await loop.run_in_executor(self._searching, self._retriever.search, [query], k or self._k)
        return Found(self._retriever.snapshot, tuple(hits))

    def _served(
        self, prompt: Prompt, generation: Generation, closed_book: bool, retrieve_s: float, generate_s: float
    ) -> ServedAnswer:
        snapshot = "" if closed_book else self._retriever.snapshot
        return ServedAnswer(to_answer(prompt, generation, snapshot), self._run, retrieve_s, generate_s)

    @contextlib.contextmanager
    def _place(self) -> Iterator[None]:
        """Hold one of the places for requests that are not answered yet."""
        if self._waiting >= self._max_waiting:
            raise OverloadedError(f"{self._waiting} requests are waiting already; try again in a second")
        self._waiting += 1
        try:
            yield
        finally:
            self._waiting -= 1
