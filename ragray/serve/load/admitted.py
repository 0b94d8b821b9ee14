"""Answers within the time that there is. In: an `AnswerWriter`. Out: one that refuses early what it could not write in time."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncGenerator, Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from time import monotonic

from ragray.config import ServeConfig
from ragray.errors import OverloadedError
from ragray.generate.engine import Generation, GenerationRequest, Piece, Sampling
from ragray.generate.orchestrator import AnswerWriter
from ragray.retrieve.caller import current_caller
from ragray.retrieve.retriever import SearchOptions
from ragray.serve.load.admission import Admission
from ragray.serve.load.deadline import time_left


@dataclass(slots=True)
class _Held:
    """Requests that were let in, and whether their answers were written."""

    answered: bool = False


class AdmittedWriter:
    """The port `AnswerWriter` over another one, with admission before it: by the wait to expect, and by the time that is left.

    A request is judged when it is checked, before anything is looked up for it, and again when it is to be written.
    """

    def __init__(
        self, writer: AnswerWriter, config: ServeConfig, *, most: int, clock: Callable[[], float] = monotonic
    ) -> None:
        """Take how many requests may be open at one time."""
        self._writer = writer
        self._config = config
        self._admission = Admission(most)
        self._clock = clock

    @property
    def num_open(self) -> int:
        """Number of requests whose answers are waited for."""
        return self._admission.num_open

    async def check(self, question: str, instruction: str) -> None:
        """Raise `InputError` where a question is too long, and `OverloadedError` where it would not be answered in time."""
        self._require(1)
        await self._writer.check(question, instruction)

    def spare(self, k: int, options: SearchOptions) -> tuple[int, SearchOptions]:
        """Return how an answer's passages are looked up: as given, or for less where time is short and `serve.degraded_k` allows it.

        The caller's record says so then.
        """
        most = self._config.degraded_k
        if not most or not self._admission.is_short(self._clock(), self._within_s()):
            return k, options
        current_caller().degraded = f"k={min(k, most)}, no reranking"
        return min(k, most), replace(options, rerank=False)

    async def generate(self, requests: Sequence[GenerationRequest], samplings: Sequence[Sampling]) -> list[Generation]:
        """Answer several requests; raises `OverloadedError` where they would not be answered in time."""
        with self._hold(len(requests)) as held:
            answers = await self._writer.generate(requests, samplings)
            held.answered = True
            return answers

    async def stream(self, request: GenerationRequest, sampling: Sampling) -> AsyncGenerator[Piece, None]:
        """Yield an answer piece by piece, then, last, the whole; raises as `generate` does."""
        with self._hold(1) as held:
            async with contextlib.aclosing(self._writer.stream(request, sampling)) as pieces:
                async for piece in pieces:
                    held.answered = isinstance(piece, Generation)
                    yield piece

    @contextlib.contextmanager
    def _hold(self, number: int) -> Iterator[_Held]:
        self._require(number)
        self._admission.begin(self._clock(), number)
        held = _Held()
        try:
            yield held
        finally:
            self._admission.end(self._clock(), number, answered=held.answered)

    def _require(self, number: int) -> None:
        now, within_s = self._clock(), self._within_s()
        if wait_s := self._admission.retry_after_s(now, within_s, number):
            raise OverloadedError(
                f"{self._admission.num_open} requests are open, one more would be answered in about "
                f"{self._admission.wait_s(now, number):.1f} s, and has {within_s:g} s; try again in {wait_s} s",
                retry_after_s=wait_s,
            )

    def _within_s(self) -> float:
        return time_left(self._config.request_timeout_s)
