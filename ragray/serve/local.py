"""The answerer of one process. In: a retriever and a generator. Out: an `Answerer` that needs no Ray."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from typing import ParamSpec, TypeVar

from ragray.config import ServeConfig
from ragray.errors import OverloadedError
from ragray.generate.engine import Generation, GenerationRequest, Piece, Sampling
from ragray.generate.generator import Generator
from ragray.generate.orchestrator import Orchestrator
from ragray.retrieve.caller import current_caller
from ragray.retrieve.follow import FollowedRetriever
from ragray.retrieve.retriever import AS_SET, Embedded, Retriever, RetrieverModels, SearchOptions
from ragray.serve.answerer import Health, health_of
from ragray.serve.load.admitted import AdmittedWriter
from ragray.serve.metrics import gauges
from ragray.serve.metrics.catalogue import SNAPSHOT_REFUSED, Metric
from ragray.serve.model_thread import ModelThread
from ragray.types import Hit, Passage, RetrievalResult

P = ParamSpec("P")
T = TypeVar("T")


class LocalAnswerer(Orchestrator):
    """Searches in one thread and writes answers in another.

    Each refuses more than ``max_waiting`` requests at once, and answers that would not be written in time (`AdmittedWriter`).
    """

    def __init__(
        self,
        retriever: Retriever,
        generator: Generator,
        *,
        k: int,
        run: str = "",
        model: str = "",
        numbered: bool = False,
        max_waiting: int = 64,
        with_keys: bool = False,
        config: ServeConfig | None = None,
    ) -> None:
        """Take what answers; a `FollowedRetriever` is followed from now on, until `close`."""
        self._retriever = retriever
        self._follower = retriever.follower.start() if isinstance(retriever, FollowedRetriever) else None
        self._threads = ThreadFinder(retriever, max_waiting), ThreadWriter(generator)
        writer = AdmittedWriter(self._threads[1], config or ServeConfig(), most=max_waiting)
        how = {"numbered": numbered, "with_keys": with_keys}
        super().__init__(self._threads[0], writer, k=k, run=run, model=model, spare=writer.spare, **how)

    async def embed(self, texts: Sequence[str]) -> Embedded:
        """Encode texts as questions are encoded."""
        embedded = await self._threads[0].call(self._retriever.embed, texts)
        current_caller().num_tokens += embedded.num_tokens
        return embedded

    async def rerank(self, query: str, passages: Sequence[Passage]) -> list[Hit]:
        """Order passages by the reranker's scores, best first."""
        return await self._threads[0].call(self._retriever.rerank, query, passages)

    async def models(self) -> RetrieverModels:
        """Name the models beside that which answers."""
        return self._retriever.models

    async def health(self) -> Health:
        """Describe what is served."""
        if self._follower:
            return replace(health_of(self._follower), run=self._run)
        return Health(snapshot=self._retriever.snapshot, run=self._run)

    def gauges(self) -> Mapping[Metric, float]:
        """Return what is to be watched of the retriever and of the generator's thread."""
        refused = {SNAPSHOT_REFUSED: bool(self._follower.last_error)} if self._follower else {}
        return {**gauges.of_retriever(self._retriever), **gauges.of_writer(self._threads[1].thread), **refused}

    def close(self) -> None:
        """Let the threads end."""
        if self._follower:
            self._follower.close()
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

    async def find(self, queries: Sequence[str], k: int, options: SearchOptions = AS_SET) -> list[RetrievalResult]:
        """Return for every query its k best passages."""
        return await self.call(self._retriever.search, queries, k, options)

    async def call(self, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Do something in the retriever's thread; raises `OverloadedError` where too much waits for it."""
        with self._places.hold():
            loop = asyncio.get_running_loop()
            return await loop.run_in_executor(self._thread, partial(work, *args, **kwargs))

    def close(self) -> None:
        """Let the thread end."""
        self._thread.shutdown(wait=False, cancel_futures=True)


class ThreadWriter:
    """The port `AnswerWriter` over a generator in a thread of its own."""

    def __init__(self, generator: Generator) -> None:
        self._generator = generator
        self.thread = ModelThread(generator)

    async def check(self, question: str, instruction: str) -> None:
        """Raise `InputError` where a question is too long."""
        self._generator.check(question, instruction)

    async def generate(self, requests: Sequence[GenerationRequest], samplings: Sequence[Sampling]) -> list[Generation]:
        """Answer several requests."""
        return list(await asyncio.gather(*map(self.thread.generate, requests, samplings)))

    def stream(self, request: GenerationRequest, sampling: Sampling) -> AsyncGenerator[Piece, None]:
        """Yield an answer piece by piece, then, last, the whole."""
        return self.thread.stream(request, sampling)

    def close(self) -> None:
        """Let the thread end."""
        self.thread.close()
