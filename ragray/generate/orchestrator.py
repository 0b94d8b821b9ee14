"""Retrieve, then generate. In: questions. Out: answers with their passages, the snapshot and the times; wherever the two halves run.

The two halves are ports: `PassageFinder` and `AnswerWriter`. `Pipeline` puts a retriever and a generator behind them that are called
directly, `ragray.serve.local` the same in threads, and `ragray.cluster.serving.gateway` deployments of Ray Serve.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncGenerator, Callable, Sequence
from dataclasses import dataclass, field
from time import monotonic
from typing import Protocol

from ragray.errors import InputError
from ragray.generate.engine import GREEDY, Generation, GenerationRequest, Piece, Sampling, Turn, Usage
from ragray.retrieve.caller import bound, current_caller
from ragray.retrieve.retriever import AS_SET, SearchOptions
from ragray.text.checks import require_text
from ragray.types import Answer, Citation, RetrievalResult

NOTHING_FOUND = RetrievalResult("", ())
"""What a closed-book answer is written from."""


@dataclass(frozen=True, slots=True)
class QuestionRequest:
    """A question to be answered from its k best passages (None: the configured k), or from none (closed book).

    ``search`` changes how passages are found. A ``snapshot`` is the only one that it may be answered from; "" is any.
    ``history`` and ``instruction`` are those of `GenerationRequest`: passages are looked up for the question alone.
    """

    question: str
    k: int | None = None
    closed_book: bool = False
    search: SearchOptions = AS_SET
    snapshot: str = ""
    history: tuple[Turn, ...] = ()
    instruction: str = ""
    sampling: Sampling = GREEDY


@dataclass(frozen=True, slots=True)
class Found:
    """What was found for a question, and the seconds that it took."""

    result: RetrievalResult
    retrieve_s: float


@dataclass(frozen=True, slots=True)
class ServedAnswer:
    """An answer, the run that wrote it ("" where the base model did), the seconds that its two halves took, and its tokens."""

    answer: Answer
    run: str
    retrieve_s: float
    generate_s: float
    usage: Usage = field(default=Usage())


class PassageFinder(Protocol):
    """Finds passages; may raise `RagrayError`."""

    async def find(self, queries: Sequence[str], k: int, options: SearchOptions = AS_SET) -> list[RetrievalResult]:
        """Return for every query its k best passages."""


class AnswerWriter(Protocol):
    """Writes answers; may raise `RagrayError`."""

    async def check(self, question: str, instruction: str) -> None:
        """Raise `InputError`, which names the limit, where a question with its instruction is too long."""

    async def generate(self, requests: Sequence[GenerationRequest], samplings: Sequence[Sampling]) -> list[Generation]:
        """Answer several requests, each with its sampling."""

    def stream(self, request: GenerationRequest, sampling: Sampling) -> AsyncGenerator[Piece, None]:
        """Yield an answer piece by piece, then, last, the whole; closing the generator stops the writing."""


Spare = Callable[[int, SearchOptions], tuple[int, SearchOptions]]
"""What changes how many passages are looked up for an answer, and how."""


def as_asked(k: int, options: SearchOptions) -> tuple[int, SearchOptions]:
    """Change nothing."""
    return k, options


class Orchestrator:
    """Answers questions: checks them, finds their passages, has the answers written, and names the sources."""

    def __init__(
        self,
        finder: PassageFinder,
        writer: AnswerWriter,
        *,
        k: int,
        run: str = "",
        model: str = "",
        numbered: bool = False,
        with_keys: bool = False,
        spare: Spare = as_asked,
    ) -> None:
        """Take the names of the run and of the base model that write the answers, and whether they cite by `[n]`.

        ``with_keys`` demands a key of whoever looks up. ``spare`` may make the lookup for an answer cheaper.
        """
        self._finder = finder
        self._writer = writer
        self._k = k
        self._run = run
        self._model = model
        self._numbered = numbered
        self._with_keys = with_keys
        self._spare = spare

    @property
    def run(self) -> str:
        """Name of the run that writes the answers, "" where the base model does."""
        return self._run

    @property
    def model(self) -> str:
        """Name of what writes the answers: the run, else the base model."""
        return self._run or self._model

    @property
    def numbered(self) -> bool:
        """Whether `[n]` in an answer names its n-th source (``generate.strategy=together``)."""
        return self._numbered

    async def search(self, query: str, *, k: int | None) -> RetrievalResult:
        """Return the k best passages of a query; ``k=None`` means the configured k."""
        [found] = await self.search_all([query], k=k)
        return found

    async def search_all(
        self, queries: Sequence[str], *, k: int | None, options: SearchOptions = AS_SET
    ) -> list[RetrievalResult]:
        """Return for every query its k best passages; ``k=None`` means the configured k."""
        current_caller().questions = list(queries)
        return await self._look_up(queries, k or self._k, options)

    async def answer(self, request: QuestionRequest) -> ServedAnswer:
        """Answer a question; raises as `answer_all` does."""
        [served] = await self.answer_all([request])
        return served

    async def answer_all(self, requests: Sequence[QuestionRequest]) -> list[ServedAnswer]:
        """Answer several questions together.

        Raises:
            InputError: a question is blank, cannot be written as UTF-8, or is too long (nothing is retrieved then), or the
                snapshot that it is to be answered from is not served.
        """
        started = monotonic()
        found = await self._find(requests)
        found_at = monotonic()
        prompts = [_prompt(*pair) for pair in zip(requests, found, strict=True)]
        generations = await self._writer.generate(prompts, [request.sampling for request in requests])
        times = found_at - started, monotonic() - found_at
        current_caller().num_tokens += sum(generation.usage.total for generation in generations)
        return [
            ServedAnswer(_cited(request, result, generation), self._run, *times, generation.usage)
            for request, result, generation in zip(requests, found, generations, strict=True)
        ]

    async def find(self, request: QuestionRequest) -> Found:
        """Look up what a question is to be answered from; raises as `answer_all` does."""
        started = monotonic()
        [result] = await self._find([request])
        return Found(result, monotonic() - started)

    async def write(self, request: QuestionRequest, found: Found) -> AsyncGenerator[str | ServedAnswer, None]:
        """Yield the answer from what was found piece by piece, then, last, the whole; closing the generator stops the writing."""
        started, result, caller, num_pieces = monotonic(), found.result, current_caller(), 0
        async with contextlib.aclosing(self._writer.stream(_prompt(request, result), request.sampling)) as pieces:
            async for piece in pieces:
                if isinstance(piece, Generation):
                    caller.num_tokens += piece.usage.total - num_pieces
                    answer, times = _cited(request, result, piece), (found.retrieve_s, monotonic() - started)
                    yield ServedAnswer(answer, self._run, *times, piece.usage)
                else:
                    num_pieces += 1
                    caller.num_tokens += 1  # also where the client leaves before the engine reports them
                    yield piece

    async def stream(self, request: QuestionRequest) -> AsyncGenerator[str | ServedAnswer, None]:
        """Yield an answer piece by piece, then, last, the whole; closing the generator stops the writing."""
        async with contextlib.aclosing(self.write(request, await self.find(request))) as pieces:
            async for piece in pieces:
                yield piece

    async def _find(self, requests: Sequence[QuestionRequest]) -> list[RetrievalResult]:
        """Check all questions, then find the passages of each; questions that want the same are searched for together."""
        for number, request in enumerate(requests):
            require_text(request.question, f"question {number}")
            current_caller().questions.append(request.question)
            await self._writer.check(request.question, request.instruction)
        wanted = [None if each.closed_book else self._spare(each.k or self._k, each.search) for each in requests]
        found = [NOTHING_FOUND] * len(requests)
        for want in dict.fromkeys(filter(None, wanted)):
            numbers = [number for number, each in enumerate(wanted) if each == want]
            results = await self._look_up([requests[number].question for number in numbers], *want)
            for number, result in zip(numbers, results, strict=True):
                require_snapshot(requests[number].snapshot, result.snapshot)
                found[number] = result
        return found

    async def _look_up(self, queries: Sequence[str], k: int, options: SearchOptions) -> list[RetrievalResult]:
        """Find passages: the one place where that is done, within the filter of the caller's key."""
        started, caller = monotonic(), current_caller()
        found = await self._finder.find(queries, k, bound(options, with_keys=self._with_keys))
        caller.retrieve_s = monotonic() - started
        caller.snapshot = next((result.snapshot for result in found), "")
        return found


def require_snapshot(wanted: str, found: str) -> None:
    """Raise `InputError` where another snapshot is wanted than the one that was searched; "" is any."""
    if wanted not in ("", found):
        raise InputError(
            f"snapshot '{wanted}' is not served, '{found}' is; leave the snapshot out, or ask for that one"
        )


def _prompt(request: QuestionRequest, found: RetrievalResult) -> GenerationRequest:
    return GenerationRequest(request.question, found.hits, request.history, request.instruction)


def _cited(request: QuestionRequest, found: RetrievalResult, generation: Generation) -> Answer:
    """Join a generation with the passages it was written from: as they are numbered, else best supported first."""
    read = found.hits[: len(generation.weights)]
    cited = [Citation(hit, weight) for hit, weight in zip(read, generation.weights, strict=True)]
    if not generation.numbered:
        cited.sort(key=lambda citation: -citation.weight)
    return Answer(
        request.question,
        generation.text,
        tuple(cited),
        generation.log_prob,
        found.snapshot,
        generation.finish_reason,
        generation.numbered,
    )
