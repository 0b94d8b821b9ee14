"""BM25 over the segments of a snapshot. In: queries. Out: rows and scores, equal to those of one index over all live rows.

N rows of a segment, K results.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ragray.errors import InputError
from ragray.index.search.maxscore import SegmentScorer
from ragray.index.store.postings import LEXICAL, Postings
from ragray.index.store.snapshot import SEGMENTS, Snapshot
from ragray.index.store.tombstones import live_mask
from ragray.text.analyzer import analyze


def require_lexical(snapshot: Snapshot) -> None:
    """Raise `InputError` unless the snapshot has a lexical part."""
    if snapshot.lexical == "none":
        raise InputError(
            f"index snapshot {snapshot.name} was built without a lexical part, so only retrieve.mode=dense can search it; "
            "for the other modes run ragray index build again with index.lexical=english"
        )


@dataclass(frozen=True, slots=True)
class _SegmentPostings:
    """The postings of one segment of a snapshot, its first global row, and which of its rows are live (None: all)."""

    offset: int
    postings: Postings
    live_N: np.ndarray | None

    def document_frequency(self, term: np.uint64) -> int:
        """Return how many live rows hold a term."""
        where = self.postings.of(term)
        if self.live_N is None:
            return int(where.stop - where.start)
        return int(np.count_nonzero(self.live_N[self.postings.rows_P[where]]))


class LexicalIndex:
    """The postings of all segments of a snapshot, memory-mapped."""

    def __init__(self, segments: Sequence[_SegmentPostings], analyzer: str) -> None:
        self._segments = segments
        self._analyzer = analyzer
        lengths = [
            segment.postings.lengths_N if segment.live_N is None else segment.postings.lengths_N[segment.live_N]
            for segment in segments
        ]
        self._num_live = sum(len(lengths_N) for lengths_N in lengths)
        mean_length = sum(int(lengths_N.sum(dtype=np.int64)) for lengths_N in lengths) / max(self._num_live, 1)
        self._scorers = [SegmentScorer(segment.postings, mean_length) for segment in segments]

    @classmethod
    def open(cls, index: Path, snapshot: Snapshot) -> LexicalIndex:
        """Open the postings of all segments.

        Raises:
            InputError: the snapshot has none.
            CorruptArtifactError: some postings do not fit their segment.
        """
        require_lexical(snapshot)
        segments, offset = [], 0
        for ref in snapshot.segments:
            postings = Postings.open(index / SEGMENTS / ref.name / LEXICAL, ref.num_rows)
            segments.append(_SegmentPostings(offset, postings, live_mask(index, ref) if ref.num_deleted else None))
            offset += ref.num_rows
        return cls(segments, snapshot.lexical)

    def search(
        self, queries: Sequence[str], k: int, allowed: Mapping[int, np.ndarray]
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return global rows (N, K) int64 and scores (N, K) float32, best first, ties to the lower row, -1 and -inf where none.

        ``allowed`` names the segments to search, by their number, and which of their rows may be found. A score is Lucene's
        BM25 (Kamphuis et al. 2020): the sum over the terms of the query, repeated ones repeatedly, of
        ln(1 + (N - df + 0.5) / (df + 0.5)) * tf / (tf + K1 * (1 - B + B * length / mean length)).
        """
        rows_NK = np.full((len(queries), k), -1, dtype=np.int64)
        scores_NK = np.full((len(queries), k), -np.inf, dtype=np.float32)
        ids, hashes = analyze(queries, self._analyzer)
        for number, terms in enumerate(ids):
            weights = self._weights(Counter(hashes[term] for term in terms))
            found = [self._best(place, weights, k, allowed_N) for place, allowed_N in allowed.items()]
            rows = np.concatenate([np.empty(0, np.int64), *(rows for rows, _ in found)])
            scores = np.concatenate([np.empty(0, np.float32), *(scores for _, scores in found)])
            best = np.lexsort((rows, -scores))[:k]
            rows_NK[number, : len(best)], scores_NK[number, : len(best)] = rows[best], scores[best]
        return rows_NK, scores_NK

    def scores(self, queries: Sequence[str], rows_NK: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the BM25 scores of global rows (N, K) float32, 0 for -1, and what no score of a query can exceed, (N,) float32.

        The bound is the sum of the weights of the query's terms, because term counts saturate at 1; 0 where no row holds a term.
        """
        scores_NK, limit_N = np.zeros(rows_NK.shape, dtype=np.float32), np.zeros(len(rows_NK), dtype=np.float32)
        ids, hashes = analyze(queries, self._analyzer)
        for number, terms in enumerate(ids):
            weights = self._weights(Counter(hashes[term] for term in terms))
            limit_N[number] = sum(weights.values())
            for segment, scorer in zip(self._segments, self._scorers, strict=True):
                own_K = rows_NK[number] - segment.offset
                inside_K = (rows_NK[number] >= 0) & (own_K >= 0) & (own_K < len(segment.postings.lengths_N))
                if inside_K.any():
                    scores_NK[number, inside_K] = scorer.scores(weights, own_K[inside_K])
        return scores_NK, limit_N

    def known(self, query: str) -> bool:
        """Return whether any live row of the snapshot holds a term of a query."""
        _, hashes = analyze([query], self._analyzer)
        return any(segment.document_frequency(term) for segment in self._segments for term in hashes)

    def _weights(self, terms: Counter[np.uint64]) -> dict[np.uint64, float]:
        """Return the inverse document frequency of the terms of a query, times how often it names them; those of no row are left out."""
        weights = {}
        for term, times in terms.items():
            df = sum(segment.document_frequency(term) for segment in self._segments)
            if df:
                weights[term] = times * float(np.log(1 + (self._num_live - df + 0.5) / (df + 0.5)))
        return weights

    def _best(
        self, place: int, weights: Mapping[np.uint64, float], k: int, allowed_N: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return the global rows and scores of the k best of a segment (more where the k-th ties), in no order."""
        rows, scores = self._scorers[place].best(weights, k, allowed_N)
        return rows + self._segments[place].offset, scores
