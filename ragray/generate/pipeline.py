"""Questions to answers in this process. In: a retriever and a generator, whichever they are. Out: answers with their sources."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Coroutine, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from ragray.generate.engine import Generation, GenerationRequest, Piece, Sampling
from ragray.generate.generator import Generator
from ragray.generate.orchestrator import NOTHING_FOUND, Orchestrator, QuestionRequest
from ragray.retrieve.retriever import AS_SET, Retriever, SearchOptions
from ragray.types import Answer, RetrievalResult

T = TypeVar("T")


class Pipeline:
    """The orchestrator without an event loop. Without a retriever every question is answered closed-book."""

    def __init__(self, retriever: Retriever | None, generator: Generator, *, k: int) -> None:
        self._orchestrator = Orchestrator(DirectFinder(retriever), DirectWriter(generator), k=k)

    def answer(self, questions: Sequence[str]) -> list[Answer]:
        """Answer several questions together.

        Raises:
            InputError: a question is blank, cannot be written as UTF-8, or is too long for the generator.
        """
        requests = [QuestionRequest(question) for question in questions]
        return [served.answer for served in _result(self._orchestrator.answer_all(requests))]

    def stream(self, question: str) -> Iterator[str | Answer]:
        """Yield one answer piece by piece, then, last, the whole `Answer`; raises as `answer` does."""
        pieces = self._orchestrator.stream(QuestionRequest(question))
        try:
            while True:
                piece = _result(_next(pieces))
                if piece is None:
                    return
                yield piece if isinstance(piece, str) else piece.answer
        finally:
            _result(pieces.aclose())


@dataclass(frozen=True, slots=True)
class DirectFinder:
    """A retriever that is called where it is."""

    retriever: Retriever | None

    async def find(self, queries: Sequence[str], k: int, options: SearchOptions = AS_SET) -> list[RetrievalResult]:
        """Return for every query its k best passages; none without a retriever."""
        return self.retriever.search(queries, k, options) if self.retriever else [NOTHING_FOUND] * len(queries)


@dataclass(frozen=True, slots=True)
class DirectWriter:
    """A generator that is called where it is."""

    generator: Generator

    async def check(self, question: str, instruction: str) -> None:
        """Raise `InputError` where a question is too long."""
        self.generator.check(question, instruction)

    async def generate(self, requests: Sequence[GenerationRequest], samplings: Sequence[Sampling]) -> list[Generation]:
        """Answer several requests."""
        return self.generator.generate(requests, samplings)

    async def stream(self, request: GenerationRequest, sampling: Sampling) -> AsyncGenerator[Piece, None]:
        """Yield an answer piece by piece, then, last, the whole."""
        for piece in self.generator.stream(request, sampling):
            yield piece


async def _next(pieces: AsyncGenerator[T, None]) -> T | None:
    return await anext(pieces, None)


def _result(coroutine: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine that never waits. An event loop could not be started where one runs already, as in a notebook."""
    try:
        coroutine.send(None)
    except StopIteration as done:
        result: T = done.value
        return result
    raise AssertionError("a pipeline waits for nothing")
