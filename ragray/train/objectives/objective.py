"""The port `Objective`. In: examples and what was retrieved for them. Out: a loss that the loop can minimise without knowing it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol, TypeVar

from ragray.embed.encoder import Vectors
from ragray.index.search.reader import IndexReader
from ragray.index.search.result import SearchResult
from ragray.types import Example

if TYPE_CHECKING:
    from torch import Tensor

B = TypeVar("B")

TOKENS = "tokens"
"""Metric of an objective: tokens that the generator read and learned in a micro-batch; the log has them per second."""


class SearchFuture(Protocol):
    """A search in flight."""

    def result(self) -> SearchResult:
        """Wait for the search to end and return what it found."""


class Searcher(Protocol):
    """Searches without blocking: an index in this process, or a pool of retriever actors."""

    def submit(self, vectors_ND: Vectors, k: int) -> SearchFuture:
        """Begin a search whose result holds the passages' vectors, and return at once."""


@dataclass(frozen=True, slots=True)
class CompletedSearch:
    """A search that has ended: of a local searcher, or restored from a checkpoint."""

    found: SearchResult

    def result(self) -> SearchResult:
        """Return what was found."""
        return self.found


@dataclass(frozen=True, slots=True)
class LocalSearcher:
    """Searches an index in this process."""

    reader: IndexReader

    def submit(self, vectors_ND: Vectors, k: int) -> SearchFuture:
        """Search, then return."""
        return CompletedSearch(self.reader.search(vectors_ND, k, with_vectors=True))


@dataclass(frozen=True, slots=True)
class Loss:
    """The loss of a micro-batch, a mean over its examples, with other means to be logged beside it."""

    value: Tensor
    """Scalar; the loop calls ``backward`` on it."""
    metrics: Mapping[str, Tensor] = field(default_factory=dict)
    """Scalars by name; every micro-batch on every rank has the same names, because the ranks average them together."""


class Objective(Protocol[B]):
    """What a run minimises, over the components that it was made with; ``B`` is its micro-batch."""

    def retrieve(self, examples: Sequence[Example]) -> SearchFuture:
        """Begin the retrieval for the examples of a step. `ragray.index.search.result.nothing` stands for no retrieval."""

    def collate(self, examples: Sequence[Example], found: SearchResult, *, epoch: int) -> B:
        """Make a micro-batch of N examples; ``found`` holds their N results, in the same order.

        ``epoch``, counted from 0, is for what is drawn at random: a resumed run, and any number of ranks, must draw the same.
        """

    def loss(self, batch: B) -> Loss:
        """Return the loss of a micro-batch."""

    def not_finite(self, batch: B) -> str:
        """Return what is computed from a micro-batch and is not finite, to be named in an error; "" if nothing is."""
