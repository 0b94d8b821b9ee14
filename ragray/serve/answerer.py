"""The port `Answerer`. In: questions and queries. Out: passages, and answers with what they were made from."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from dataclasses import dataclass
from typing import Protocol

from ragray.types import Answer, Hit


@dataclass(frozen=True, slots=True)
class Found:
    """The passages of one query, best first, and the snapshot that was searched."""

    snapshot: str
    hits: tuple[Hit, ...]


@dataclass(frozen=True, slots=True)
class ServedAnswer:
    """An answer, the run that wrote it ("" where the base model did), and the seconds that its two halves took."""

    answer: Answer
    run: str
    retrieve_s: float
    generate_s: float


@dataclass(frozen=True, slots=True)
class Health:
    """What a healthy service serves; ``last_error`` says why a newer index was refused (the older one is served on)."""

    snapshot: str
    run: str = ""
    index: str = ""
    loading: bool = False
    last_error: str = ""


class Answerer(Protocol):
    """Whatever answers behind the HTTP interface; ``k=None`` means the configured k. All may raise `RagrayError`."""

    async def search(self, query: str, *, k: int | None) -> Found:
        """Return the k best passages of a query."""

    async def answer(self, question: str, *, k: int | None, closed_book: bool) -> ServedAnswer:
        """Answer a question from its k best passages, or from none (closed book)."""

    def stream(self, question: str, *, k: int | None, closed_book: bool) -> AsyncGenerator[str | ServedAnswer, None]:
        """Yield an answer piece by piece, then, last, the whole; closing the generator stops the writing."""

    async def health(self) -> Health:
        """Describe what is served; raises `RagrayError` with the reason where nothing can be."""
