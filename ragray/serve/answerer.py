"""The port `Answerer`. In: questions and queries. Out: passages, and answers with what they were made from."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from dataclasses import dataclass
from typing import Protocol

from ragray.generate.orchestrator import QuestionRequest, ServedAnswer
from ragray.types import RetrievalResult


@dataclass(frozen=True, slots=True)
class Health:
    """What a healthy service serves; ``last_error`` says why a newer index was refused (the older one is served on)."""

    snapshot: str
    run: str = ""
    index: str = ""
    loading: bool = False
    last_error: str = ""


class Answerer(Protocol):
    """What answers behind the HTTP interface: an `Orchestrator` that also reports its health. All may raise `RagrayError`."""

    async def search(self, query: str, *, k: int | None) -> RetrievalResult:
        """Return the k best passages of a query; ``k=None`` means the configured k."""

    async def answer(self, request: QuestionRequest) -> ServedAnswer:
        """Answer a question."""

    def stream(self, request: QuestionRequest) -> AsyncGenerator[str | ServedAnswer, None]:
        """Yield an answer piece by piece, then, last, the whole; closing the generator stops the writing."""

    async def health(self) -> Health:
        """Describe what is served; raises `RagrayError` with the reason where nothing can be."""
