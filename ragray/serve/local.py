"""The answerer of one process. In: a retriever and a generator. Out: an `Answerer` that needs no Ray."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

from ragray.errors import OverloadedError
from ragray.generate.engine import Generation, GenerationRequest, Piece
from ragray.generate.generator import Generator
from ragray.generate.orchestrator import Orchestrator
from ragray.retrieve.retriever import Retriever
from ragray.serve.answerer import Health
from ragray.serve.model_thread import ModelThread
from ragray.types import RetrievalResult


class LocalAnswerer(Orchestrator):
    """Searches in one thread and writes answers in another; each refuses more than ``max_waiting`` requests at once."""

    def __init__(
        self, retriever: Retriever, generator: Generator, *, k: int, run: str = "", max_waiting: int = 64
    ) -> None:
        self._retriever = retriever
        self._threads = ThreadFinder(retriever, max_waiting), ThreadWriter(generator, max_waiting)
        super().__init__(*self._threads, k=k, run=run)

    async def health(self) -> Health:
        """Describe what is served."""
        return Health(snapshot=self._retriever.snapshot, run=self._run)

    def close(self) -> None:
        """Let both threads end."""
        for thread in self._threads:
            thread.close()


class Places:
    """Places for requests that are not answered yet."""

    def __init__(self, number: int) -> None:
        self._number = number
        self._taken = 0

    @contextlib.contextmanager
    def hold(self) -> Iterator[None]:
        """Hold a place for the length of the block; raises `OverloadedError` where none is free."""
        if self._taken >= self._number:
            raise OverloadedError(f"{self._taken} requests are waiting already; try again in a second")
        self._taken += 1
        try:
            yield
        finally:
            self._taken -= 1


class ThreadFinder:
    """The port `PassageFinder` over a retriever in a thread of its own."""

    def __init__(self, retriever: Retriever, max_waiting: int) -> None:
        self._retriever = retriever
        self._places = Places(max_waiting)
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="retriever")

    async def find(self, queries: Sequence[str], k: int) -> list[RetrievalResult]:
        """Return for every query its k best passages."""
        with self._places.hold():
            loop = asyncio.get_running_loop()
            return await loop.run_in_executor(self._thread, self._retriever.search, queries, k)

    def close(self) -> None:
        """Let the thread end."""
        self._thread.shutdown(wait=False, cancel_futures=True)


class ThreadWriter:
    """The port `AnswerWriter` over a generator in a thread of its own."""

    def __init__(self, generator: Generator, max_waiting: int) -> None:
        self._generator = generator
        self._places = Places(max_waiting)
        self._thread = ModelThread(generator)

    async def check(self, question: str) -> None:
        """Raise `InputError` where a question is too long."""
        self._generator.check(question)

    async def generate(self, requests: Sequence[GenerationRequest]) -> list[Generation]:
        """Answer several requests."""
        with self._places.hold():
            return list(await asyncio.gather(*map(self._thread.generate, requests)))

    async def stream(self, request: GenerationRequest) -> AsyncGenerator[Piece, None]:
        """Yield an answer piece by piece, then, last, the whole."""
        with self._places.hold():
            async with contextlib.aclosing(self._thread.stream(request)) as pieces:
                async for piece in pieces:
                    yield piece

    def close(self) -> None:
        """Let the thread end."""
        self._thread.close()
