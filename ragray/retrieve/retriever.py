"""The port `Retriever`. In: questions. Out: the k best passages of each. With the implementation over one open snapshot."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

import numpy as np

from ragray.config import RetrieveConfig
from ragray.embed.encoder import Encoder, Vectors
from ragray.errors import ConfigError
from ragray.index.search.bm25 import require_lexical
from ragray.index.search.filter import parse_filter
from ragray.index.search.reader import IndexReader
from ragray.index.search.result import SearchResult
from ragray.index.search.spread import spread_of
from ragray.index.store.snapshot import Snapshot
from ragray.retrieve.fuse import fuse_ranks, fuse_scores
from ragray.retrieve.pairs import PAIRED, with_pairs
from ragray.retrieve.question_cache import CachingEncoder
from ragray.retrieve.rerank import Reranker
from ragray.retrieve.tuned import in_force
from ragray.text.analyzer import require_analyzer
from ragray.text.checks import require_text
from ragray.types import Hit, Passage, RetrievalResult

Mode = Literal["dense", "lexical", "hybrid"]


@dataclass(frozen=True, slots=True)
class SearchOptions:
    """What a request changes of how passages are found: ``mode`` replaces that of the settings.

    ``where`` is a filter that passages must match too: beside that of the settings, never instead of it. With ``listed`` nothing is
    searched for: the first passages that match are returned in the order of the index, whatever the query. Without ``rerank`` the
    order is that of the search, also where a reranker is loaded.
    """

    mode: Mode | None = None
    where: str = ""
    listed: bool = False
    rerank: bool = True


@dataclass(frozen=True, slots=True)
class Embedded:
    """Texts as vectors, (N, D), and the number of tokens that the encoder read."""

    vectors_ND: Vectors
    num_tokens: int


@dataclass(frozen=True, slots=True)
class RetrieverModels:
    """Names of the models that a retriever has loaded; "" where there is none."""

    encoder: str = ""
    reranker: str = ""


@dataclass(frozen=True, slots=True)
class RetrieverFacts:
    """When the snapshot was made (ISO 8601), and how many questions had a vector that was remembered, how many were encoded."""

    snapshot_made_at: str
    cache_hits: int = 0
    cache_misses: int = 0


AS_SET = SearchOptions()
"""Nothing is changed."""


class Retriever(Protocol):
    """Finds the passages that fit a question best."""

    @property
    def snapshot(self) -> str:
        """Name of the snapshot that the next search uses; a result names the one that it came from."""

    @property
    def models(self) -> RetrieverModels:
        """The models that are loaded."""

    @property
    def facts(self) -> RetrieverFacts:
        """What is to be watched."""

    def search(self, queries: Sequence[str], k: int, options: SearchOptions = AS_SET) -> list[RetrievalResult]:
        """Return for every query its k best passages, best first, fewer where the index holds fewer; all from one snapshot."""

    def embed(self, texts: Sequence[str]) -> Embedded:
        """Encode texts as questions are encoded; raises `ConfigError` where no question encoder is loaded."""

    def rerank(self, query: str, passages: Sequence[Passage]) -> list[Hit]:
        """Order passages by the reranker's scores, best first; raises `ConfigError` where none is loaded."""


class Searcher(Protocol):
    """Searches one snapshot: `IndexReader` in this process, a pool of actors on Ray."""

    @property
    def index(self) -> Path:
        """The folder of the index."""

    @property
    def snapshot(self) -> Snapshot:
        """The snapshot that is searched."""

    def search(
        self, queries_ND: Vectors, k: int, /, *, where: str = "", texts: Sequence[str] | None = None
    ) -> SearchResult:
        """Search by vectors; with the queries' texts the result carries both scores (`SearchResult.both`)."""

    def search_text(
        self, queries: Sequence[str], k: int, /, *, where: str = "", vectors_ND: Vectors | None = None
    ) -> SearchResult:
        """Search by BM25; with the queries' vectors the result carries both scores, and hits their inner product."""


class LocalRetriever:
    """Encodes questions in this process, searches one snapshot by vectors, by BM25 or by both, and re-ranks what was found."""

    def __init__(
        self,
        searcher: Searcher,
        encoder: Encoder | None,
        settings: RetrieveConfig | None = None,
        reranker: Reranker | None = None,
    ) -> None:
        """Prepare; without ``encoder`` only `lexical` can be searched.

        Raises:
            EncoderMismatchError: the encoder is not the one the index was made with.
            InputError: the settings ask for a lexical part that the snapshot lacks, or for a filter that cannot be read.
        """
        snapshot = searcher.snapshot
        self._settings = settings or RetrieveConfig()
        self._tuned = in_force(self._settings, snapshot)
        if encoder is not None:
            snapshot.encoder.require(
                encoder.fingerprint, here=f"index snapshot {snapshot.name}", there="the question encoder"
            )
        if self._settings.mode != "dense":
            require_lexical(snapshot)
            require_analyzer(snapshot.lexical)
        if self._settings.where:
            parse_filter(self._settings.where)
        self._searcher = searcher
        self._encoder = encoder
        self._reranker = reranker

    @classmethod
    def open(cls, index: Path, encoder: Encoder, *, threads: int = 1) -> LocalRetriever:
        """Open the current snapshot of an index folder."""
        return cls(IndexReader.open(index, threads=threads), encoder)

    @property
    def snapshot(self) -> str:
        """Name of the snapshot that every search uses."""
        return self._searcher.snapshot.name

    @property
    def k(self) -> int:
        """Passages per question: what was set, else what the snapshot was tuned to."""
        return self._tuned.k

    @property
    def models(self) -> RetrieverModels:
        """The models that are loaded."""
        encoder = self._encoder.fingerprint.model if self._encoder else ""
        return RetrieverModels(encoder, self._settings.rerank_model if self._reranker else "")

    @property
    def facts(self) -> RetrieverFacts:
        """What is to be watched."""
        made_at = self._searcher.snapshot.created_at
        if isinstance(self._encoder, CachingEncoder):
            return RetrieverFacts(made_at, self._encoder.hits, self._encoder.misses)
        return RetrieverFacts(made_at)

    def encode(self, queries: Sequence[str]) -> Vectors | None:
        """Return the vectors of questions, (N, D) float32, for several searches; None where there is no encoder.

        Raises:
            InputError: a query is blank or cannot be written as UTF-8.
        """
        for number, query in enumerate(queries):
            require_text(query, f"query {number}")
        return self._encoder.encode_questions(queries) if self._encoder else None

    def search(
        self,
        queries: Sequence[str],
        k: int,
        options: SearchOptions = AS_SET,
        *,
        where: str | None = None,
        mode: Mode | None = None,
        vectors_ND: Vectors | None = None,
    ) -> list[RetrievalResult]:
        """Return for every query its k best passages, best first; ``where`` and ``mode`` replace those of the settings.

        ``vectors_ND`` are the queries' own, from `encode`; without them they are encoded here.

        Raises:
            InputError: the filter cannot be read, a query is blank or cannot be written as UTF-8, k is not a possible number of
                results, or the snapshot has no lexical part.
            ConfigError: the mode is unknown, or needs the encoder that this retriever was made without.
        """
        if not queries:
            return []
        where = both(self._settings.where if where is None else where, options.where)
        if options.listed:
            return [self._listed(k, where)] * len(queries)
        if vectors_ND is None:
            vectors_ND = self.encode(queries)
        reranker = self._reranker if options.rerank else None
        depth = max(k, self._settings.candidates) if reranker else k
        hits = self._found(queries, vectors_ND, depth, where, options.mode or mode or self._settings.mode).hits
        ranked = reranker.rerank(queries, hits, k) if reranker else hits
        return [RetrievalResult(self.snapshot, tuple(found)) for found in ranked]

    def _listed(self, k: int, where: str) -> RetrievalResult:
        """Return the first k passages that match a filter: what a vector of zeros finds, for which all score alike."""
        [hits] = self._searcher.search(np.zeros((1, self._searcher.snapshot.dim), np.float32), k, where=where).hits
        return RetrievalResult(self.snapshot, tuple(hits))

    def embed(self, texts: Sequence[str]) -> Embedded:
        """Encode texts as questions are encoded.

        Raises:
            ConfigError: this retriever was made without a question encoder.
        """
        if self._encoder is None:
            raise ConfigError("no question encoder is loaded: retrieve.mode=lexical needs none; choose dense or hybrid")
        return Embedded(self._encoder.encode_questions(texts), self._encoder.num_question_tokens(texts))

    def rerank(self, query: str, passages: Sequence[Passage]) -> list[Hit]:
        """Order passages by the reranker's scores, best first.

        Raises:
            ConfigError: this retriever was made without a reranker.
        """
        if self._reranker is None:
            raise ConfigError("no reranker is loaded: retrieve.rerank_model names none")
        [ranked] = self._reranker.rerank([query], [[Hit(passage, 0.0) for passage in passages]], len(passages))
        return ranked

    def candidates(
        self, queries: Sequence[str], vectors_ND: Vectors, depth: int, where: str = ""
    ) -> list[SearchResult]:
        """Return what dense and what lexical search find, ``depth`` passages each with both scores: what hybrid search joins."""
        return [
            self._searcher.search(vectors_ND, depth, where=where, texts=queries),
            self._searcher.search_text(queries, depth, where=where, vectors_ND=vectors_ND),
        ]

    @property
    def spread(self) -> float:
        """The unit of dense scores in hybrid search (see `ragray.index.search.spread`)."""
        return spread_of(self._searcher.index, self._searcher.snapshot)

    @property
    def analyzer(self) -> str:
        """The analyzer of the snapshot's lexical part."""
        return self._searcher.snapshot.lexical

    @property
    def pair_weight(self) -> float:
        """What a passage that keeps all pairs of a query's terms together gains (see `ragray.retrieve.pairs`)."""
        return self._settings.pair_weight

    def _found(
        self, queries: Sequence[str], vectors_ND: Vectors | None, k: int, where: str, mode: Mode
    ) -> SearchResult:
        if mode == "lexical":
            return self._searcher.search_text(queries, k, where=where, vectors_ND=vectors_ND)
        if mode not in ("dense", "hybrid"):
            raise ConfigError(f"retrieve.mode={mode!r}: expected dense, lexical or hybrid")
        if vectors_ND is None:
            raise ConfigError("this retriever was made without a question encoder; only retrieve.mode=lexical works")
        if mode == "dense":
            return self._searcher.search(vectors_ND, k, where=where)
        settings = self._tuned if self._settings.fusion == "convex" else self._settings
        found = self.candidates(queries, vectors_ND, max(k, settings.candidates), where)
        if settings.fusion == "rrf":
            return fuse_ranks(found, k, rrf_k=settings.rrf_k)
        fused = fuse_scores(found, settings.dense_weight, self.spread, max(k, PAIRED))
        return with_pairs(fused, queries, self.analyzer, (1 - settings.dense_weight) * settings.pair_weight, k)


def both(where: str, more: str) -> str:
    """Join two filters, of which either may be empty; raises `InputError` where the second cannot be read by itself."""
    if not more:
        return where
    parse_filter(more)  # joined unread, a parenthesis too many would end the first filter
    return f"({where}) and ({more})" if where else more
