"""The port `Answerer`. In: questions and queries. Out: passages, and answers with what they were made from."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from ragray.errors import ServingError
from ragray.generate.orchestrator import Found, QuestionRequest, ServedAnswer
from ragray.retrieve.follow import Follower
from ragray.retrieve.retriever import AS_SET, Embedded, RetrieverModels, SearchOptions
from ragray.serve.metrics.catalogue import Metric
from ragray.types import Hit, Passage, RetrievalResult

REFUSED = "a newer snapshot was refused; ask with a key for the reason"


@dataclass(frozen=True, slots=True)
class Health:
    """What a healthy service serves; ``last_error`` says why a newer index was refused (the older one is served on)."""

    snapshot: str
    run: str = ""
    index: str = ""
    loading: bool = False
    last_error: str = ""

    def for_strangers(self) -> Health:
        """Return it without what names files."""
        return replace(self, index="", last_error=REFUSED if self.last_error else "")


def health_of(follower: Follower) -> Health:
    """Describe what is served by its follower; raises `ServingError` while that is not known yet."""
    if follower.served is None:
        raise ServingError("it is not known yet which snapshot is open")
    return Health(
        follower.served.snapshot,
        index=follower.served.index,
        loading=follower.loading,
        last_error=follower.last_error,
    )


class Answerer(Protocol):
    """What answers behind the HTTP interface: an `Orchestrator` with the models beside it. All may raise `RagrayError`."""

    @property
    def run(self) -> str:
        """Name of the run that writes the answers, "" where the base model does."""

    @property
    def model(self) -> str:
        """Name of what writes the answers: the run, else the base model."""

    @property
    def numbered(self) -> bool:
        """Whether `[n]` in an answer names its n-th source; where not, it is no citation."""

    async def search(self, query: str, *, k: int | None) -> RetrievalResult:
        """Return the k best passages of a query; ``k=None`` means the configured k."""

    async def search_all(
        self, queries: Sequence[str], *, k: int | None, options: SearchOptions = AS_SET
    ) -> list[RetrievalResult]:
        """Return for every query its k best passages, all from one snapshot; ``k=None`` means the configured k."""

    async def answer(self, request: QuestionRequest) -> ServedAnswer:
        """Answer a question."""

    async def find(self, request: QuestionRequest) -> Found:
        """Look up what a question is to be answered from."""

    def write(self, request: QuestionRequest, found: Found) -> AsyncGenerator[str | ServedAnswer, None]:
        """Yield the answer from what was found piece by piece, then, last, the whole; closing the generator stops the writing."""

    def stream(self, request: QuestionRequest) -> AsyncGenerator[str | ServedAnswer, None]:
        """Yield an answer piece by piece, then, last, the whole; closing the generator stops the writing."""

    async def embed(self, texts: Sequence[str]) -> Embedded:
        """Encode texts as questions are encoded; raises `ConfigError` where no question encoder is loaded."""

    async def rerank(self, query: str, passages: Sequence[Passage]) -> list[Hit]:
        """Order passages by the reranker's scores, best first; raises `ConfigError` where none is loaded."""

    async def models(self) -> RetrieverModels:
        """Name the models beside that which answers."""

    def gauges(self) -> Mapping[Metric, float]:
        """Return what is to be watched of what runs in this process."""

    async def health(self) -> Health:
        """Describe what is served; raises `RagrayError` with the reason where nothing can be."""
