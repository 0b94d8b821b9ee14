"""The best rows of one segment by BM25. In: the weights of a query's terms. Out: the k best rows, as if every posting were scored.

MaxScore (Turtle and Flood 1995): a term adds to a score so much at most. Where the terms that are left cannot lift a row to the k-th
best score that is known of, their posting lists are only looked into for the rows that can still reach it. Sums that decide what
is left out are float32 and allow for their rounding; the rows that remain are scored in float64, in the order of the query.

N rows of the segment, L rows of a posting list, C candidates.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from ragray.index.store.postings import Postings

K1 = 0.9
B = 0.6
"""Saturation of the term count, and weight of the passage length, chosen on training questions (`docs/experiments.md`)."""

FEW_POSTINGS = 20_000
"""A query whose terms have so few postings is answered faster when all are scored."""

GROUPS = 64
"""The rows are seen as so many equal parts: the best of n rows, one of each part, is found by one sweep over the parts."""

SEEDS = 64
"""Rows, at least, that are scored whole to learn what the k-th best score is at least."""

SWEEP = 64
"""A list longer than 1/64 of the rows takes longer than the sweep that may save it."""

LOOKUP = 10
"""Looking a row up in a posting list takes as long as so many entries of it take to be compared."""

SMALLEST = float(np.finfo(np.float32).tiny)


@dataclass(frozen=True, slots=True)
class TermList:
    """The posting list of a term of a query, what the term weighs, and what it adds to a score at most (inf: not known yet)."""

    number: int
    rows_L: np.ndarray
    counts_L: np.ndarray
    weight: float
    bound: float

    def counts_of(self, rows_C: np.ndarray) -> np.ndarray:
        """Return how often each row holds the term."""
        places_C = self.rows_L.searchsorted(rows_C)
        places_C[places_C == len(self.rows_L)] = 0
        return np.where(self.rows_L[places_C] == rows_C, self.counts_L[places_C], 0)


class SegmentScorer:
    """Scores the rows of one segment of a snapshot; threads may share it."""

    def __init__(self, postings: Postings, mean_length: float) -> None:
        """Score by the mean length of all live passages of the snapshot."""
        self._postings = postings
        self._rows_P, self._counts_P = np.asarray(postings.rows_P), np.asarray(postings.counts_P)
        self._lengths_N = np.asarray(postings.lengths_N)
        self._mean_length = mean_length
        self._peaks_T = np.zeros(len(postings.terms_T), dtype=np.float32)
        self._spare_sums: list[np.ndarray] = []

    def best(self, weights: Mapping[np.uint64, float], k: int, allowed_N: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the rows and float32 scores of the k best of the rows that are allowed (more where the k-th ties), in no order."""
        lists = self._lists(weights)
        num_postings = sum(len(found.rows_L) for found in lists)
        pays = num_postings > FEW_POSTINGS and 2 * max(k, SEEDS) * GROUPS < len(self._lengths_N)
        rows = self._candidates(lists, k, allowed_N) if pays else None
        if rows is not None and len(rows) * len(lists) * LOOKUP < num_postings:
            scores = self._scores(lists, rows).astype(np.float32)
        else:
            scores_N = self._all_scores(lists)
            rows = np.flatnonzero((scores_N > 0) & allowed_N)
            scores = scores_N[rows].astype(np.float32)
        if len(rows) > k:
            keep = scores >= np.partition(scores, -k)[-k]
            rows, scores = rows[keep], scores[keep]
        return rows, scores

    def scores(self, weights: Mapping[np.uint64, float], rows_C: np.ndarray) -> np.ndarray:
        """Return the scores of some rows, (C,) float32, as `best` returns them."""
        return self._scores(self._lists(weights), rows_C).astype(np.float32)

    def parts(self, counts_L: np.ndarray, rows_L: np.ndarray) -> np.ndarray:
        """Return what a term of weight 1 adds to the scores of rows that hold it so often, (L,) float32."""
        parts_L, norms_L = counts_L.astype(np.float32), self._all_norms[rows_L]
        norms_L += parts_L
        parts_L /= norms_L
        return parts_L

    def learn(self, found: TermList, parts_L: np.ndarray) -> None:
        """Remember the largest of all parts of a term."""
        self._peaks_T[found.number] = parts_L.max()

    def _lists(self, weights: Mapping[np.uint64, float]) -> list[TermList]:
        lists = []
        for term, weight in weights.items():
            number, where = self._postings.number_of(term), self._postings.of(term)
            if number is not None and where.start < where.stop:
                bound = weight * float(self._peaks_T[number]) or np.inf
                lists.append(TermList(number, self._rows_P[where], self._counts_P[where], weight, bound))
        return lists

    @cached_property
    def _all_norms(self) -> np.ndarray:
        return self._norms(slice(None)).astype(np.float32)

    def _norms(self, rows: np.ndarray | slice) -> np.ndarray:
        """Return what a row's length adds to its term counts where these are saturated."""
        return np.asarray(K1 * (1 - B + B * self._lengths_N[rows] / self._mean_length))

    def _all_scores(self, lists: Sequence[TermList]) -> np.ndarray:
        """Return the scores of all rows."""
        scores_N = np.zeros(len(self._lengths_N))
        for found in lists:
            rows_L, counts_L = found.rows_L.astype(np.intp), found.counts_L.astype(np.float64)
            scores_N[rows_L] += found.weight * counts_L / (counts_L + self._norms(rows_L))
        return scores_N

    def _scores(self, lists: Sequence[TermList], rows_C: np.ndarray) -> np.ndarray:
        """Return the scores of some rows, to the last bit those of `_all_scores`."""
        scores_C, norms_C = np.zeros(len(rows_C)), self._norms(rows_C)
        for found in lists:
            counts_C = found.counts_of(rows_C).astype(np.float64)
            scores_C += found.weight * counts_C / (counts_C + norms_C)
        return scores_C

    def _candidates(self, lists: Sequence[TermList], k: int, allowed_N: np.ndarray) -> np.ndarray:
        """Return rows, ascending, among which the k best are."""
        try:
            sums = self._spare_sums.pop()
            sums.fill(0)
        except IndexError:  # other threads have them
            sums = np.zeros(-(-len(allowed_N) // GROUPS) * GROUPS, np.float32)
        rows_C = _Pruning(self, lists, k, None if allowed_N.all() else allowed_N, sums).candidates()
        self._spare_sums.append(sums)
        return rows_C


class _Pruning:
    """One query: what the lists scored so far give each row, and what the k-th best row scores at least."""

    def __init__(
        self,
        segment: SegmentScorer,
        lists: Sequence[TermList],
        k: int,
        allowed_N: np.ndarray | None,
        sums: np.ndarray,
    ) -> None:
        """Begin with the lists that add most; ``sums`` is zero, as long as the rows or a little longer."""
        self._segment, self._k, self._allowed_N, self._sums = segment, k, allowed_N, sums
        self._lists = sorted(lists, key=lambda found: -found.bound)
        bounds = [found.bound for found in self._lists]
        self._rests = np.cumsum([0.0, *reversed(bounds)])[::-1].tolist()
        # A sum of n parts is wrong by n + 6 half units of its last bit at most; two such sums are compared.
        self._margin = 1 - 4 * (len(lists) + 8) * float(np.finfo(np.float32).eps)
        self._least = 0.0

    def candidates(self) -> np.ndarray:
        """Return the rows, ascending, that may be among the k best."""
        first = self._score_essential()
        rows_C = np.flatnonzero(self._sums >= max(self._least - self._rests[first], SMALLEST))
        for number, found in enumerate(self._lists[first:], first):
            self._complete(found, rows_C, self._least - self._rests[number])
            sums_C = self._sums[rows_C]
            self._raise_least(sums_C)
            rows_C = rows_C[sums_C + self._rests[number + 1] >= self._least]
        return rows_C

    def _score_essential(self) -> int:
        """Score whole lists until those that are left cannot make a result alone; return the number of the first that is left."""
        most = 0.0
        for number, found in enumerate(self._lists):
            if self._rests[number] < most and len(found.rows_L) * SWEEP > len(self._sums):
                self._seed(self._lists[number:])
            if self._rests[number] < self._least:
                return number
            self._add(found)
            most += found.bound
        self._seed([])
        return len(self._lists)

    def _add(self, found: TermList) -> None:
        rows_L = found.rows_L.astype(np.intp)
        parts_L = self._segment.parts(found.counts_L, rows_L)
        if found.bound == np.inf:
            self._segment.learn(found, parts_L)
        parts_L *= np.float32(found.weight)
        if self._allowed_N is not None:
            parts_L *= self._allowed_N[rows_L]
        self._sums[rows_L] += parts_L

    def _seed(self, left: Sequence[TermList]) -> None:
        """Score some of the best rows whole."""
        parts, count = self._sums.reshape(GROUPS, -1), max(2 * self._k, SEEDS)
        columns = np.argpartition(parts.max(axis=0), -count)[-count:]
        rows_C = np.sort(columns + parts.shape[1] * parts[:, columns].argmax(axis=0))
        sums_C = self._sums[rows_C]
        rows_C, sums_C = rows_C[sums_C > 0], sums_C[sums_C > 0]  # others are not allowed, or hold no term yet
        for found in left:
            sums_C += self._looked_up(found, rows_C)
        self._raise_least(sums_C)

    def _raise_least(self, sums_C: np.ndarray) -> None:
        """Learn from the sums of some rows."""
        if len(sums_C) >= self._k:
            self._least = max(self._least, self._margin * float(np.partition(sums_C, -self._k)[-self._k]))

    def _complete(self, found: TermList, rows_C: np.ndarray, floor: float) -> None:
        """Add a list to the candidates, which are the rows whose sum is ``floor`` or more."""
        if len(rows_C) * LOOKUP < len(found.rows_L):
            self._sums[rows_C] += self._looked_up(found, rows_C)
        else:
            hits = np.flatnonzero(self._sums[found.rows_L] >= floor)
            rows_L = found.rows_L[hits]
            self._sums[rows_L] += self._segment.parts(found.counts_L[hits], rows_L) * np.float32(found.weight)

    def _looked_up(self, found: TermList, rows_C: np.ndarray) -> np.ndarray:
        return self._segment.parts(found.counts_of(rows_C), rows_C) * np.float32(found.weight)
