"""Search. In: query vectors. Out: the k best rows over all segments of one snapshot, re-scored exactly; ties go to the lower row.

N queries, K results, D dim.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import faiss
import numpy as np

from ragray.embed.encoder import EncoderFingerprint, Vectors
from ragray.errors import EncoderMismatchError
from ragray.index.segment import Segment
from ragray.index.snapshot import SEGMENTS, Snapshot, read_snapshot
from ragray.types import Hit

OVER_RETRIEVE = 2
"""Candidates taken from FAISS for every result asked for; they are re-scored from the fp16 vectors, whatever the index's type."""

ROUNDING = 1e-5
"""How far a score of FAISS may be from ours, relative to the lengths of the two vectors: both sum in float32, in another order."""

RESCORE_ROWS = 4096
"""Vectors re-scored at a time: bounds the memory where thousands of rows tie."""


@dataclass(frozen=True, slots=True)
class SearchResult:
    """What a search found: for query n, ``hits[n]`` with global rows ``rows_NK`` and vectors ``vectors_NKD``, best first.

    Where fewer than K were found, the row is -1, the score -inf and the vector zero.
    """

    rows_NK: np.ndarray
    scores_NK: np.ndarray
    vectors_NKD: np.ndarray
    hits: list[list[Hit]]


class IndexReader:
    """An open snapshot, or some of its segments; it never changes, whatever is published meanwhile."""

    def __init__(self, snapshot: Snapshot, segments: Sequence[tuple[int, Segment, np.ndarray]], threads: int) -> None:
        """Take ``segments`` as (offset of the first global row, segment, mask of live rows)."""
        self.snapshot = snapshot
        self._segments = segments
        self._threads = threads

    @classmethod
    def open(
        cls, index: Path, *, snapshot: str | None = None, shard: int = 0, num_shards: int = 1, threads: int = 1
    ) -> IndexReader:
        """Open a snapshot (the current one by default), or every ``num_shards``-th segment of it beginning with ``shard``.

        Raises:
            NotAnArtifactError, CorruptArtifactError: there is nothing whole to open.
        """
        found = read_snapshot(index, snapshot)
        offsets = np.cumsum([0, *(segment.num_rows for segment in found.segments)])
        opened = []
        for number in range(shard, len(found.segments), num_shards):
            ref = found.segments[number]
            segment = Segment.open(index / SEGMENTS / ref.name, num_rows=ref.num_rows, dim=found.dim)
            live = np.ones(ref.num_rows, dtype=bool)
            live[list(ref.deleted)] = False
            opened.append((int(offsets[number]), segment, live))
        return cls(found, opened, threads)

    def require_encoder(self, encoder: EncoderFingerprint, name: str) -> None:
        """Raise `EncoderMismatchError` unless this index was made with ``encoder``."""
        self.snapshot.encoder.require(encoder, here=f"index snapshot {self.snapshot.name}", there=name)

    def search(self, queries_ND: Vectors, k: int) -> SearchResult:
        """Return the k rows with the largest inner product for every query.

        Raises:
            EncoderMismatchError: the queries have another dimension than the index.
        """
        if queries_ND.ndim != 2 or queries_ND.shape[1] != self.snapshot.dim:
            raise EncoderMismatchError(
                f"queries of shape {queries_ND.shape}, index snapshot {self.snapshot.name} has {self.snapshot.dim} dimensions"
            )
        faiss.omp_set_num_threads(self._threads)
        queries_ND = np.ascontiguousarray(queries_ND, dtype=np.float32)
        parts = [self._search_segment(queries_ND, k, *entry) for entry in self._segments]
        return merge(parts, k) if parts else _nothing(len(queries_ND), k, self.snapshot.dim)

    def _search_segment(
        self, queries_ND: Vectors, k: int, offset: int, segment: Segment, live: np.ndarray
    ) -> SearchResult:
        depth = min(len(live), OVER_RETRIEVE * k + 8)
        params = self._parameters(live)
        scores, found = segment.index.search(queries_ND, depth, params=params)
        scores_NK = np.full((len(queries_ND), k), -np.inf, dtype=np.float32)
        rows_NK = np.full((len(queries_ND), k), -1, dtype=np.int64)
        vectors_NKD = np.zeros((len(queries_ND), k, queries_ND.shape[1]), dtype=np.float16)
        hits: list[list[Hit]] = []
        for number, query_D in enumerate(queries_ND):
            rows = found[number][found[number] >= 0]
            exact = _rescore(segment.vectors_ND, rows, query_D)
            if len(rows) == depth < len(live):
                threshold = np.sort(exact)[-k] - _rounding(segment.vectors_ND[rows], query_D)
                if scores[number, -1] >= threshold:  # rows that FAISS left out may tie with the k-th
                    _, _, rows = segment.index.range_search(query_D[None], float(threshold), params=params)
                    exact = _rescore(segment.vectors_ND, rows, query_D)
            best = np.lexsort((rows, -exact))[:k]
            size = len(best)
            rows_NK[number, :size] = rows[best] + offset
            scores_NK[number, :size] = exact[best]
            vectors_NKD[number, :size] = segment.vectors_ND[rows[best]]
            passages = segment.read(rows[best].tolist())
            hits.append([Hit(p, float(s)) for p, s in zip(passages, exact[best], strict=True)])
        return SearchResult(rows_NK, scores_NK, vectors_NKD, hits)

    def _parameters(self, live: np.ndarray) -> faiss.SearchParameters | None:
        """Tell FAISS how many lists to search and which rows are deleted."""
        selector = None if live.all() else faiss.IDSelectorBitmap(np.packbits(live, bitorder="little"))
        if self.snapshot.nprobe:
            return faiss.SearchParametersIVF(sel=selector, nprobe=self.snapshot.nprobe)
        return faiss.SearchParameters(sel=selector) if selector else None


def _rescore(vectors_ND: np.ndarray, rows: np.ndarray, query_D: np.ndarray) -> np.ndarray:
    """Return the inner products of some rows, summed row by row: equal vectors get equal scores, wherever they lie."""
    pieces = [rows[start : start + RESCORE_ROWS] for start in range(0, len(rows), RESCORE_ROWS)]
    scores = [(vectors_ND[piece].astype(np.float32) * query_D).sum(axis=1) for piece in pieces]
    return np.concatenate([np.empty(0, dtype=np.float32), *scores])


def _rounding(vectors_ND: np.ndarray, query_D: np.ndarray) -> float:
    """Bound the difference between a score of FAISS and ours; never zero, as FAISS searches for what is larger than a bound."""
    lengths_N = np.linalg.norm(vectors_ND.astype(np.float32), axis=1)
    return max(ROUNDING * float(lengths_N.max() * np.linalg.norm(query_D)), float(np.finfo(np.float32).tiny))


def merge(parts: Sequence[SearchResult], k: int) -> SearchResult:
    """Join the results of disjoint segments: exactly what one index over all their rows would have returned."""
    if len(parts) == 1:
        return parts[0]
    rows_NM = np.concatenate([part.rows_NK for part in parts], axis=1)
    scores_NM = np.concatenate([part.scores_NK for part in parts], axis=1)
    vectors_NMD = np.concatenate([part.vectors_NKD for part in parts], axis=1)
    order_NK = np.lexsort((rows_NM, -scores_NM), axis=1)[:, :k]
    hits: list[list[Hit]] = []
    for number, order in enumerate(order_NK):
        candidates: list[Hit | None] = []
        for part in parts:
            candidates.extend(part.hits[number] + [None] * (part.rows_NK.shape[1] - len(part.hits[number])))
        hits.append([hit for hit in (candidates[column] for column in order) if hit is not None])
    take = np.arange(len(order_NK))[:, None]
    return SearchResult(rows_NM[take, order_NK], scores_NM[take, order_NK], vectors_NMD[take, order_NK], hits)


def _nothing(num_queries: int, k: int, dim: int) -> SearchResult:
    return SearchResult(
        np.full((num_queries, k), -1, dtype=np.int64),
        np.full((num_queries, k), -np.inf, dtype=np.float32),
        np.zeros((num_queries, k, dim), dtype=np.float16),
        [[] for _ in range(num_queries)],
    )
