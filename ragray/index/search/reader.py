"""Search. In: query vectors or words. Out: the k best rows over all segments of one snapshot, scored exactly; ties go to the lower row.

N queries, M candidates, K results, D dim.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import lru_cache, partial
from pathlib import Path
from typing import TypeVar

import faiss
import numpy as np

from ragray.embed.encoder import Vectors
from ragray.errors import ArtifactError, CorruptArtifactError, EncoderMismatchError, InputError
from ragray.index.search.bm25 import LexicalIndex
from ragray.index.search.candidates import SPARE, OpenSegment, faiss_candidates
from ragray.index.search.filter import parse_filter
from ragray.index.search.rescore import among, best, inner_products, refined, top
from ragray.index.search.result import BothScores, SearchResult
from ragray.index.store.search_params import SearchParams
from ragray.index.store.segment import Segment
from ragray.index.store.snapshot import SEGMENTS, Snapshot, current_name, read_snapshot
from ragray.index.store.tombstones import live_mask
from ragray.text.checks import require_utf8
from ragray.types import Hit, Passage

FEW_ROWS = 20_000
"""Where deletions and filters leave so few rows of a segment, these are searched exactly: an index would miss most of them."""

MASKS = 16
"""Filters whose matching rows an open reader remembers."""

MAX_RESULTS = 1_000_000
"""Results of a query, at most: they are laid out in memory before it is known how many there are."""

OPENINGS = 20
"""Times that `follow_current` follows `CURRENT` when what it named was collected before it was open."""

logger = logging.getLogger("ragray")

T = TypeVar("T")


class IndexReader:
    """An open snapshot, or some of its segments; it never changes, whatever is published or collected meanwhile.

    Every file is opened with it; vectors, passages and what FAISS can map stay on disk, shared by all processes of a machine.
    """

    def __init__(
        self,
        index: Path,
        snapshot: Snapshot,
        segments: Sequence[OpenSegment],
        threads: int,
        lexical: LexicalIndex | None = None,
        few_rows: int = FEW_ROWS,
    ) -> None:
        """Search ``segments``; where deletions and filters leave at most ``few_rows`` of one, search these exactly."""
        self.index = index
        self.snapshot = snapshot
        self.segments = segments
        self._threads = threads
        self._lexical = lexical
        self._few_rows = few_rows
        self._matching = lru_cache(MASKS)(partial(_matching, tuple(segments)))

    @classmethod
    def open(
        cls, index: Path, *, snapshot: str | None = None, shard: int = 0, num_shards: int = 1, threads: int = 1
    ) -> IndexReader:
        """Open a snapshot (the current one by default), or every ``num_shards``-th segment of it beginning with ``shard``.

        Raises:
            NotAnArtifactError, CorruptArtifactError: there is nothing whole to open.
        """

        def opened(name: str) -> IndexReader:
            return cls.of(index, read_snapshot(index, name), shard=shard, num_shards=num_shards, threads=threads)

        return follow_current(index, opened) if snapshot is None else opened(snapshot)

    @classmethod
    def of(
        cls, index: Path, snapshot: Snapshot, *, shard: int = 0, num_shards: int = 1, threads: int = 1
    ) -> IndexReader:
        """Open the segments of a snapshot that was read before, or is not published yet; raises as `open` does."""
        offsets = np.cumsum([0, *(segment.num_rows for segment in snapshot.segments)])
        opened = []
        for number in range(shard, len(snapshot.segments), num_shards):
            ref = snapshot.segments[number]
            segment = Segment.open(index / SEGMENTS / ref.name, num_rows=ref.num_rows, dim=snapshot.dim)
            live_N, ordered = live_mask(index, ref), refined(segment.index, segment.vectors_ND)
            opened.append(OpenSegment(number, int(offsets[number]), segment, live_N, ordered))
        lexical = None if snapshot.lexical == "none" else LexicalIndex.open(index, snapshot)
        return cls(index, snapshot, opened, threads, lexical)

    def search(
        self,
        queries_ND: Vectors,
        k: int,
        *,
        where: str = "",
        with_vectors: bool = False,
        texts: Sequence[str] | None = None,
    ) -> SearchResult:
        """Return the k rows with the largest inner product for every query, among those that match ``where``.

        The rows' vectors are read ``with_vectors`` alone: training computes with them, all else needs but the scores. ``texts``
        are the queries' own; where they are given, the result carries BM25 scores too (`SearchResult.both`).

        Raises:
            InputError: ``where`` is no filter expression (see `ragray.index.search.filter`), a query is not finite, k is below 1 or
                above `MAX_RESULTS`, or there are texts and the snapshot has no lexical part.
            EncoderMismatchError: the queries have another dimension than the index.
        """
        rows_NK, scores_NK = self.search_rows(queries_ND, k, where=where)
        found = self.result(rows_NK, scores_NK, scores_NK, with_vectors=with_vectors)
        return (
            found
            if texts is None
            else replace(found, both=BothScores(scores_NK, *self._words(texts).scores(texts, rows_NK)))
        )

    def search_rows(
        self, queries_ND: Vectors, k: int, *, where: str = "", params: SearchParams | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """Search as `search` does, but read no passages: global rows (N, K) int64, -1 where none; scores (N, K) float32, -inf.

        ``params`` stand in for those of the snapshot.
        """
        self._check(queries_ND, k)
        params = params or self.snapshot.search_params
        faiss.omp_set_num_threads(self._threads)  # before every search: OpenMP keeps the number for each calling thread
        queries_ND = np.ascontiguousarray(queries_ND, dtype=np.float32)
        parts = [(np.empty((len(queries_ND), 0), dtype=np.int64), np.empty((len(queries_ND), 0), dtype=np.float32))]
        if len(queries_ND):
            allowed = zip(self.segments, self.allowed(where), strict=True)
            parts += [self._search_segment(opened, allowed_N, queries_ND, k, params) for opened, allowed_N in allowed]
        if len(parts) == 2:
            return parts[1]
        rows_NM, scores_NM = (np.concatenate(part, axis=1) for part in zip(*parts, strict=True))
        return top(rows_NM, scores_NM, k)

    def search_text(
        self, queries: Sequence[str], k: int, *, where: str = "", vectors_ND: Vectors | None = None
    ) -> SearchResult:
        """Return the k rows with the largest BM25 score for every query; rows that share no term with it are not found.

        Scores are those of one index over all live rows of the snapshot, whatever segments this reader holds. ``vectors_ND``
        are the queries' own; where they are given, the hits carry the inner products with them (`Hit.dense`), and the result
        `SearchResult.both`.

        Raises:
            InputError: the snapshot has no lexical part, ``where`` is no filter expression, a query cannot be written as UTF-8,
                a vector is not finite, or k is below 1 or above `MAX_RESULTS`.
            EncoderMismatchError: the vectors have another dimension than the index.
        """
        _check_k(k)
        if vectors_ND is not None:
            self._check(vectors_ND, k)
        words = self._words(queries)
        allowed = dict(zip((opened.number for opened in self.segments), self.allowed(where), strict=True))
        rows_NK, scores_NK = words.search(queries, k, allowed)
        if vectors_ND is None:
            return self.result(rows_NK, scores_NK)
        dense_NK = self._dense(rows_NK, vectors_ND)
        found = self.result(rows_NK, scores_NK, dense_NK)
        return replace(found, both=BothScores(dense_NK, *words.scores(queries, rows_NK)))

    def _words(self, queries: Sequence[str]) -> LexicalIndex:
        """Return the lexical part, once the queries have been checked."""
        for number, query in enumerate(queries):
            require_utf8(query, f"query {number}")
        if self._lexical is None:
            self._lexical = LexicalIndex.open(self.index, self.snapshot)
        return self._lexical

    def allowed(self, where: str = "") -> Sequence[np.ndarray]:
        """Return for each open segment which rows are live and match a filter, (rows,) bool."""
        return self._matching(where) if where else [opened.live_N for opened in self.segments]

    def _dense(self, rows_NK: np.ndarray, queries_ND: Vectors) -> np.ndarray:
        """Return the inner products of global rows with their queries, (N, K) float32, -inf where there is no row."""
        dense_NK = np.full(rows_NK.shape, -np.inf, dtype=np.float32)
        for opened in self.segments:
            inside_NK = (rows_NK >= opened.offset) & (rows_NK < opened.offset + len(opened.live_N))
            own_NK = np.where(inside_NK, rows_NK - opened.offset, -1)
            dense_NK = np.maximum(dense_NK, inner_products(np.asarray(opened.segment.vectors_ND), own_NK, queries_ND))
        return dense_NK

    def result(
        self,
        rows_NK: np.ndarray,
        scores_NK: np.ndarray,
        dense_NK: np.ndarray | None = None,
        *,
        with_vectors: bool = False,
    ) -> SearchResult:
        """Look up the passages, perhaps the vectors, of global rows that lie in this reader's segments; -1 is no row."""
        vectors_NKD = np.zeros((*rows_NK.shape, self.snapshot.dim if with_vectors else 0), dtype=np.float16)
        passages: dict[int, Passage] = {}
        for opened in self.segments:
            inside_NK = (rows_NK >= opened.offset) & (rows_NK < opened.offset + len(opened.live_N))
            if inside_NK.any():
                rows = rows_NK[inside_NK] - opened.offset
                if with_vectors:
                    vectors_NKD[inside_NK] = opened.segment.vectors_ND[rows]
                once = np.unique(rows)
                passages.update(zip((once + opened.offset).tolist(), opened.segment.read(once.tolist()), strict=True))
        dense = np.full(rows_NK.shape, None) if dense_NK is None else dense_NK
        hits = [
            [Hit(passages[row], score, own) for row, score, own in zip(*found, strict=True) if row >= 0]
            for found in zip(rows_NK.tolist(), scores_NK.tolist(), dense.tolist(), strict=True)
        ]
        return SearchResult(rows_NK, scores_NK, vectors_NKD, hits)

    def _check(self, queries_ND: Vectors, k: int) -> None:
        if queries_ND.ndim != 2 or queries_ND.shape[1] != self.snapshot.dim:
            raise EncoderMismatchError(
                f"queries of shape {queries_ND.shape}, index snapshot {self.snapshot.name} has {self.snapshot.dim} dimensions"
            )
        _check_k(k)
        wrong = np.flatnonzero(~np.isfinite(queries_ND).all(axis=1))
        if len(wrong):
            raise InputError(f"query {wrong[0]}: its vector holds NaN or infinity; check the encoder that made it")

    def _search_segment(
        self, opened: OpenSegment, allowed_N: np.ndarray, queries_ND: Vectors, k: int, params: SearchParams
    ) -> tuple[np.ndarray, np.ndarray]:
        vectors_ND = np.asarray(opened.segment.vectors_ND)
        count = int(np.count_nonzero(allowed_N))
        try:
            if count == len(allowed_N) or count > self._few_rows:
                found = faiss_candidates(opened, allowed_N, count, queries_ND, k, params)
            else:
                depth = min(count, params.over_retrieve * k + SPARE)
                found = among(vectors_ND, np.flatnonzero(allowed_N), queries_ND, depth)
            rows_NK, scores_NK = best(vectors_ND, found, queries_ND, k)
        except RuntimeError as err:  # FAISS names rows or lists that are not there
            raise CorruptArtifactError(
                f"{opened.segment.folder}: FAISS cannot search it ({str(err).splitlines()[-1]}); "
                f"run: ragray index verify {self.index}"
            ) from err
        zero_N = ~queries_ND.any(axis=1)
        if zero_N.any():  # every row scores the same; FAISS's fast scan would find none
            first = np.flatnonzero(allowed_N)[:k]
            rows_NK[zero_N], scores_NK[zero_N] = -1, -np.inf
            rows_NK[zero_N, : len(first)], scores_NK[zero_N, : len(first)] = first, 0
        return np.where(rows_NK < 0, -1, rows_NK + opened.offset), scores_NK


def follow_current(index: Path, open_snapshot: Callable[[str], T]) -> T:
    """Open the snapshot that `CURRENT` names; where it was collected before it was open, the one that `CURRENT` names then.

    Raises what ``open_snapshot`` raises once `CURRENT` stays where it is.
    """
    for _ in range(OPENINGS):
        name = current_name(index)
        try:
            return open_snapshot(name)
        except (ArtifactError, OSError) as err:
            if current_name(index) == name:
                raise
            failure = err
    raise failure


def _check_k(k: int) -> None:
    if not 1 <= k <= MAX_RESULTS:
        raise InputError(f"k={k}: a search returns at least one result and at most {MAX_RESULTS:,}; ask for so many")


def _matching(segments: Sequence[OpenSegment], where: str) -> Sequence[np.ndarray]:
    condition = parse_filter(where)
    held = [opened.segment for opened in segments]
    if unknown := condition.unknown_field(set().union(*(segment.metadata_keys for segment in held))):
        logger.warning(unknown)
    masks = (condition.mask(segment.passages, segment.columns) for segment in held)
    return [opened.live_N & mask_N for opened, mask_N in zip(segments, masks, strict=True)]
