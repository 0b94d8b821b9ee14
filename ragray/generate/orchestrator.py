"""Retrieve, then generate. In: questions. Out: answers with their passages, the snapshot and the times; wherever the two halves run.

The two halves are ports: `PassageFinder` and `AnswerWriter`. `Pipeline` puts a retriever and a generator behind them that are called
directly, `ragray.serve.local` the same in threads, and `ragray.cluster.serving.gateway` deployments of Ray Serve.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass
from time import monotonic
from typing import Protocol

from ragray.generate.engine import Generation, GenerationRequest, Piece
from ragray.text.checks import require_text
from ragray.types import Answer, Citation, RetrievalResult

NOTHING_FOUND = RetrievalResult("", ())
"""What a closed-book answer is written from."""


@dataclass(frozen=True, slots=True)
class QuestionRequest:
    """A question to be answered from its k best passages (None: the configured k), or from none (closed book)."""

    question: str
    k: int | None = None
    closed_book: bool = False


@dataclass(frozen=True, slots=True)
class ServedAnswer:
    """An answer, the run that wrote it ("" where the base model did), and the seconds that its two halves took."""

    answer: Answer
    run: str
    retrieve_s: float
    generate_s: float


class PassageFinder(Protocol):
    """Finds passages; may raise `RagrayError`."""

    async def find(self, queries: Sequence[str], k: int) -> list[RetrievalResult]:
        """Return for every query its k best passages."""


class AnswerWriter(Protocol):
    """Writes answers; may raise `RagrayError`."""

    async def check(self, question: str) -> None:
        """Raise `InputError`, which names the limit, where a question is too long."""

    async def generate(self, requests: Sequence[GenerationRequest]) -> list[Generation]:
        """Answer several requests."""

    def stream(self, request: GenerationRequest) -> AsyncGenerator[Piece, None]:
        """Yield an answer piece by piece, then, last, the whole; closing the generator stops the writing."""


class Orchestrator:
    """Answers questions: checks them, finds their passages, has the answers written, and names the sources."""

    def __init__(self, finder: PassageFinder, writer: AnswerWriter, *, k: int, run: str = "") -> None:
        self._finder = finder
        self._writer = writer
        self._k = k
        self._run = run

    async def search(self, query: str, *, k: int | None) -> RetrievalResult:
        """Return the k best passages of a query; ``k=None`` means the configured k."""
        [found] = await self._finder.find([query], k or self._k)
        return found

    async def answer(self, request: QuestionRequest) -> ServedAnswer:
        """Answer a question; raises as `answer_all` does."""
        [served] = await self.answer_all([request])
        return served

    async def answer_all(self, requests: Sequence[QuestionRequest]) -> list[ServedAnswer]:
        """Answer several questions together.

        Raises:
            InputError: a question is blank, cannot be written as UTF-8, or is too long; nothing is retrieved then.
        """
        started = monotonic()
        found = await self._find(requests)
        found_at = monotonic()
        generations = await self._writer.generate([_prompt(*pair) for pair in zip(requests, found, strict=True)])
        times = found_at - started, monotonic() - found_at
        return [
            ServedAnswer(_cited(request, result, generation), self._run, *times)
            for request, result, generation in zip(requests, found, generations, strict=True)
        ]

    async def stream(self, request: QuestionRequest) -> AsyncGenerator[str | ServedAnswer, None]:
        """Yield an answer piece by piece, then, last, the whole; closing the generator stops the writing."""
        started = monotonic()
        [found] = await self._find([request])
        found_at = monotonic()
        async with contextlib.aclosing(self._writer.stream(_prompt(request, found))) as pieces:
            async for piece in pieces:
                if isinstance(piece, Generation):
                    times = found_at - started, monotonic() - found_at
                    yield ServedAnswer(_cited(request, found, piece), self._run, *times)
                else:
                    yield piece

    async def _find(self, requests: Sequence[QuestionRequest]) -> list[RetrievalResult]:
        """Check all questions, then find the passages of each; questions that want as many are searched for together."""
        for number, request in enumerate(requests):
            require_text(request.question, f"question {number}")
            await self._writer.check(request.question)
        wanted = [0 if request.closed_book else request.k or self._k for request in requests]
        found = [NOTHING_FOUND] * len(requests)
        for k in sorted(set(wanted) - {0}):
            numbers = [number for number, each in enumerate(wanted) if each == k]
            results = await self._finder.find([requests[number].question for number in numbers], k)
            for number, result in zip(numbers, results, strict=True):
                found[number] = result
        return found


def _prompt(request: QuestionRequest, found: RetrievalResult) -> GenerationRequest:
    return GenerationRequest(request.question, found.hits)


def _cited(request: QuestionRequest, found: RetrievalResult, generation: Generation) -> Answer:
    """Join a generation with the passages it was written from, best supported first."""
    cited = [Citation(hit, weight) for hit, weight in zip(found.hits, generation.weights, strict=True)]
    ranked = tuple(sorted(cited, key=lambda citation: -citation.weight))
    return Answer(
        request.question, generation.text, ranked, generation.log_prob, found.snapshot, generation.finish_reason
    )
