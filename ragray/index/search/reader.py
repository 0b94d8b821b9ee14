"""Search. In: query vectors or words. Out: the k best rows over all segments of one snapshot, scored exactly; ties go to the lower row.

N queries, M candidates, K results, D dim.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from math import ceil
from pathlib import Path

import faiss
import numpy as np

from ragray.embed.encoder import EncoderFingerprint, Vectors
from ragray.errors import ArtifactError, CorruptArtifactError, EncoderMismatchError, InputError
from ragray.index.search.bm25 import LexicalIndex
from ragray.index.search.filter import parse_filter
from ragray.index.search.rescore import Candidates, among, best, refined, top
from ragray.index.search.result import SearchResult
from ragray.index.store.segment import Segment
from ragray.index.store.snapshot import SEGMENTS, Snapshot, current_name, read_snapshot
from ragray.index.store.tombstones import live_mask
from ragray.text.checks import require_utf8
from ragray.types import Hit, Passage

SPARE = 8
"""Candidates beyond those asked for: the k-th result and what ties with it are seldom the last ones."""

FEW_ROWS = 20_000
"""Where deletions and filters leave so few rows of a segment, these are searched exactly: an index would miss most of them."""

MASKS = 16
"""Filters whose matching rows an open reader remembers."""

MAX_RESULTS = 1_000_000
"""Results of a query, at most: they are laid out in memory before it is known how many there are."""

OPENINGS = 20
"""Times that `IndexReader.open` follows `CURRENT` when what it named was collected before it was open."""

logger = logging.getLogger("ragray")


@dataclass(frozen=True, slots=True)
class OpenSegment:
    """A segment of an open snapshot: its number there, its first global row, which of its rows are live, (rows,) bool, and its
    index with the candidates ordered by their fp16 vectors."""

    number: int
    offset: int
    segment: Segment
    live_N: np.ndarray
    refined: faiss.IndexRefine


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
    ) -> None:
        self.index = index
        self.snapshot = snapshot
        self.segments = segments
        self._threads = threads
        self._lexical = lexical
        self._matching = lru_cache(MASKS)(partial(_matching, tuple(segments)))

    @classmethod
    def open(
        cls, index: Path, *, snapshot: str | None = None, shard: int = 0, num_shards: int = 1, threads: int = 1
    ) -> IndexReader:
        """Open a snapshot (the current one by default), or every ``num_shards``-th segment of it beginning with ``shard``.

        Raises:
            NotAnArtifactError, CorruptArtifactError: there is nothing whole to open.
        """
        for _ in range(OPENINGS):
            name = current_name(index) if snapshot is None else snapshot
            try:
                return cls.of(index, read_snapshot(index, name), shard=shard, num_shards=num_shards, threads=threads)
            except (ArtifactError, OSError) as err:
                if snapshot is not None or current_name(index) == name:
                    raise
                failure = err
        raise failure

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

    def require_encoder(self, encoder: EncoderFingerprint, name: str) -> None:
        """Raise `EncoderMismatchError` unless this index was made with ``encoder``."""
        self.snapshot.encoder.require(encoder, here=f"index snapshot {self.snapshot.name}", there=name)

    def search(self, queries_ND: Vectors, k: int, *, where: str = "") -> SearchResult:
        """Return the k rows with the largest inner product for every query, among those that match ``where``.

        Raises:
            InputError: ``where`` is no filter expression (see `ragray.index.search.filter`), a query is not finite, or k is below 1 or
                above `MAX_RESULTS`.
            EncoderMismatchError: the queries have another dimension than the index.
        """
        return self.result(*self.search_rows(queries_ND, k, where=where))

    def search_rows(self, queries_ND: Vectors, k: int, *, where: str = "") -> tuple[np.ndarray, np.ndarray]:
        """Search as `search` does, but read no passages: global rows (N, K) int64, -1 where none; scores (N, K) float32, -inf."""
        self._check(queries_ND, k)
        faiss.omp_set_num_threads(self._threads)
        queries_ND = np.ascontiguousarray(queries_ND, dtype=np.float32)
        parts = [(np.empty((len(queries_ND), 0), dtype=np.int64), np.empty((len(queries_ND), 0), dtype=np.float32))]
        if len(queries_ND):
            allowed = zip(self.segments, self.allowed(where), strict=True)
            parts += [self._search_segment(opened, allowed_N, queries_ND, k) for opened, allowed_N in allowed]
        if len(parts) == 2:
            return parts[1]
        rows_NM, scores_NM = (np.concatenate(part, axis=1) for part in zip(*parts, strict=True))
        return top(rows_NM, scores_NM, k)

    def search_text(self, queries: Sequence[str], k: int, *, where: str = "") -> SearchResult:
        """Return the k rows with the largest BM25 score for every query; rows that share no term with it are not found.

        Scores are those of one index over all live rows of the snapshot, whatever segments this reader holds.

        Raises:
            InputError: the snapshot has no lexical part, ``where`` is no filter expression, a query cannot be written as UTF-8,
                or k is below 1 or above `MAX_RESULTS`.
        """
        _check_k(k)
        for number, query in enumerate(queries):
            require_utf8(query, f"query {number}")
        if self._lexical is None:
            self._lexical = LexicalIndex.open(self.index, self.snapshot)
        allowed = dict(zip((opened.number for opened in self.segments), self.allowed(where), strict=True))
        return self.result(*self._lexical.search(queries, k, allowed))

    def allowed(self, where: str = "") -> Sequence[np.ndarray]:
        """Return for each open segment which rows are live and match a filter, (rows,) bool."""
        return self._matching(where) if where else [opened.live_N for opened in self.segments]

    def result(self, rows_NK: np.ndarray, scores_NK: np.ndarray) -> SearchResult:
        """Look up the passages and vectors of global rows that lie in this reader's segments; -1 is no row."""
        vectors_NKD = np.zeros((*rows_NK.shape, self.snapshot.dim), dtype=np.float16)
        passages: dict[int, Passage] = {}
        for opened in self.segments:
            inside_NK = (rows_NK >= opened.offset) & (rows_NK < opened.offset + len(opened.live_N))
            if inside_NK.any():
                rows = rows_NK[inside_NK] - opened.offset
                vectors_NKD[inside_NK] = opened.segment.vectors_ND[rows]
                once = np.unique(rows)
                passages.update(zip((once + opened.offset).tolist(), opened.segment.read(once.tolist()), strict=True))
        hits = [
            [Hit(passages[row], score) for row, score in zip(rows, scores, strict=True) if row >= 0]
            for rows, scores in zip(rows_NK.tolist(), scores_NK.tolist(), strict=True)
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
        self, opened: OpenSegment, allowed_N: np.ndarray, queries_ND: Vectors, k: int
    ) -> tuple[np.ndarray, np.ndarray]:
        vectors_ND = np.asarray(opened.segment.vectors_ND)
        count = int(np.count_nonzero(allowed_N))
        try:
            if count == len(allowed_N) or count > FEW_ROWS:
                found = self._candidates(opened, allowed_N, count, queries_ND, k)
            else:
                depth = min(count, self.snapshot.over_retrieve * k + SPARE)
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

    def _candidates(
        self, opened: OpenSegment, allowed_N: np.ndarray, count: int, queries_ND: Vectors, k: int
    ) -> Candidates:
        """Ask FAISS; an index that is not exhaustive looks the farther the more a filter hides."""
        index = opened.segment.index
        selector = None
        if count < len(allowed_N):
            selector = faiss.IDSelectorBitmap(np.packbits(allowed_N, bitorder="little"))
        params = self._parameters(index, selector, np.count_nonzero(opened.live_N) / max(count, 1))
        if not isinstance(index, faiss.IndexFlat | faiss.IndexIVFFlat | faiss.IndexHNSWFlat):
            return self._refined(opened.refined, min(count, self.snapshot.over_retrieve * k), params, queries_ND, k)
        depth = min(count, self.snapshot.over_retrieve * k + SPARE)
        scores_NM, rows_NM = index.search(queries_ND, depth, params=params)

        def beyond(query_D: np.ndarray, bound: float) -> np.ndarray:
            found: np.ndarray = index.range_search(query_D[None], bound, params=params)[2]
            return found

        return Candidates(rows_NM, scores_NM, beyond if depth < count else None)

    def _refined(
        self, index: faiss.IndexRefine, depth: int, base: faiss.SearchParameters, queries_ND: Vectors, k: int
    ) -> Candidates:
        """Take the best of ``depth`` candidates by their fp16 vectors, which FAISS reads faster than numpy does."""

        def search(some_ND: Vectors, kept: int) -> tuple[np.ndarray, np.ndarray]:
            params = faiss.IndexRefineSearchParameters(k_factor=(depth + 0.5) / kept, base_index_params=base)
            found: tuple[np.ndarray, np.ndarray] = index.search(some_ND, kept, params=params)
            return found

        def beyond(query_D: np.ndarray, _: float) -> np.ndarray:
            rows_M: np.ndarray = search(query_D[None], depth)[1][0]
            return rows_M[rows_M >= 0]

        kept = min(depth, k + SPARE)
        scores_NM, rows_NM = search(queries_ND, kept)
        return Candidates(rows_NM, scores_NM, beyond if kept < depth else None)

    def _parameters(
        self, index: faiss.Index, selector: faiss.IDSelector | None, effort: float
    ) -> faiss.SearchParameters:
        if lists := faiss.try_extract_index_ivf(index):
            nprobe = min(lists.nlist, ceil(max(1, self.snapshot.nprobe) * effort))
            params = faiss.SearchParametersIVF(sel=selector, nprobe=nprobe)
            if isinstance(index, faiss.IndexPreTransform):
                return faiss.SearchParametersPreTransform(index_params=params)
            return params
        if isinstance(index, faiss.IndexHNSW):
            return faiss.SearchParametersHNSW(sel=selector, efSearch=ceil(max(1, self.snapshot.ef_search) * effort))
        return faiss.SearchParameters(sel=selector)


def _check_k(k: int) -> None:
    if not 1 <= k <= MAX_RESULTS:
        raise InputError(f"k={k}: a search returns at least one result and at most {MAX_RESULTS:,}; ask for so many")


def _matching(segments: Sequence[OpenSegment], where: str) -> Sequence[np.ndarray]:
    condition = parse_filter(where)
    if unknown := condition.unknown_field([opened.segment.passages for opened in segments]):
        logger.warning(unknown)
    return [opened.live_N & condition.mask(opened.segment.passages) for opened in segments]
