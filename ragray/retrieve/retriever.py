"""The port `Retriever`. In: questions. Out: the k best passages of each. With the implementation over one open snapshot."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
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
from ragray.index.store.snapshot import Snapshot
from ragray.retrieve.fuse import fuse
from ragray.retrieve.rerank import Reranker
from ragray.text.checks import require_text
from ragray.types import Hit

Mode = Literal["dense", "lexical", "hybrid"]


class Retriever(Protocol):
    """Finds the passages that fit a question best."""

    @property
    def snapshot(self) -> str:
        """Name of the snapshot that is searched."""

    def search(self, queries: Sequence[str], k: int) -> list[list[Hit]]:
        """Return for every query its k best passages, best first; fewer where the index holds fewer."""


class Searcher(Protocol):
    """Searches one snapshot: `IndexReader` in this process, a pool of actors on Ray."""

    @property
    def snapshot(self) -> Snapshot:
        """The snapshot that is searched."""

    def search(self, queries_ND: Vectors, k: int, /, *, where: str = "") -> SearchResult:
        """Search by vectors."""

    def search_text(self, queries: Sequence[str], k: int, /, *, where: str = "") -> SearchResult:
        """Search by BM25."""


class LocalRetriever:
    """Encodes questions in this process, searches a snapshot by vectors, by BM25 or by both, and orders anew what was found."""

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
        self._settings = settings or RetrieveConfig()
        snapshot = searcher.snapshot
        if encoder is not None:
            snapshot.encoder.require(
                encoder.fingerprint, here=f"index snapshot {snapshot.name}", there="the question encoder"
            )
        if self._settings.mode != "dense":
            require_lexical(snapshot)
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
        """Name of the snapshot that is searched."""
        return self._searcher.snapshot.name

    def search(
        self, queries: Sequence[str], k: int, *, where: str | None = None, mode: Mode | None = None
    ) -> list[list[Hit]]:
        """Return for every query its k best passages, best first; ``where`` and ``mode`` stand in for those of the settings.

        Raises:
            InputError: the filter cannot be read, a query is blank or cannot be written as UTF-8, k is no possible number of
                results, or the snapshot has no lexical part.
            ConfigError: the mode is none, or needs the encoder that this retriever was made without.
        """
        if not queries:
            return []
        for number, query in enumerate(queries):
            require_text(query, f"query {number}")
        where = self._settings.where if where is None else where
        depth = max(k, self._settings.candidates) if self._reranker else k
        hits = self._search(queries, depth, where, mode or self._settings.mode)
        return self._reranker.rerank(queries, hits, k) if self._reranker else hits

    def _search(self, queries: Sequence[str], k: int, where: str, mode: Mode) -> list[list[Hit]]:
        if mode not in ("dense", "lexical", "hybrid"):
            raise ConfigError(f"retrieve.mode={mode!r}: expected dense, lexical or hybrid")
        if self._encoder is None:
            if mode != "lexical":
                raise ConfigError(
                    "this retriever was made without a question encoder; only retrieve.mode=lexical works"
                )
            return self._searcher.search_text(queries, k, where=where).hits
        vectors_ND = self._encoder.encode_questions(queries)
        return _with_dense(self._found(queries, vectors_ND, k, where, mode), vectors_ND)

    def _found(self, queries: Sequence[str], vectors_ND: Vectors, k: int, where: str, mode: Mode) -> SearchResult:
        if mode == "dense":
            return self._searcher.search(vectors_ND, k, where=where)
        if mode == "lexical":
            return self._searcher.search_text(queries, k, where=where)
        depth = max(k, self._settings.candidates)
        dense = self._searcher.search(vectors_ND, depth, where=where)
        lexical = self._searcher.search_text(queries, depth, where=where)
        return fuse([dense, lexical], k, rrf_k=self._settings.rrf_k)


def _with_dense(found: SearchResult, vectors_ND: Vectors) -> list[list[Hit]]:
    """Give every hit the inner product of its vector and the question's; K results a question."""
    dense_NK = np.einsum("nkd,nd->nk", found.vectors_NKD.astype(np.float32), vectors_ND)
    return [
        [replace(hit, dense=value) for hit, value in zip(hits, values, strict=False)]
        for hits, values in zip(found.hits, dense_NK.tolist(), strict=True)
    ]
