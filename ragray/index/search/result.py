"""What a search found. In: the results of disjoint segments. Out: the best of all; ties go to the lower row.

N queries, K results, M results of all parts, D dim.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ragray.types import Hit


@dataclass(frozen=True, slots=True)
class BothScores:
    """What the rows found score by vectors and by words, whichever found them: inner products and BM25 scores, (N, K) float32.

    Where there is no row they are -inf and 0. ``limit_N``: what no BM25 score of a query can exceed, (N,) float32.
    """

    dense_NK: np.ndarray
    lexical_NK: np.ndarray
    limit_N: np.ndarray

    def part(self, queries: slice, depth: int | None = None) -> BothScores:
        """Return the scores of the first ``depth`` rows (None: all) of some of the queries."""
        return BothScores(self.dense_NK[queries, :depth], self.lexical_NK[queries, :depth], self.limit_N[queries])


@dataclass(frozen=True, slots=True)
class SearchResult:
    """What a search found: for query n, ``hits[n]`` with global rows ``rows_NK`` and vectors ``vectors_NKD``, best first.

    Where fewer than K were found, the row is -1, the score -inf and the vector zero. D is 0 where the search did not ask for vectors.
    ``both`` is there where the search was given texts and their vectors.
    """

    rows_NK: np.ndarray
    scores_NK: np.ndarray
    vectors_NKD: np.ndarray
    hits: list[list[Hit]]
    both: BothScores | None = None

    def part(self, queries: slice) -> SearchResult:
        """Return the results of some of the queries."""
        return SearchResult(
            self.rows_NK[queries],
            self.scores_NK[queries],
            self.vectors_NKD[queries],
            self.hits[queries],
            self.both and self.both.part(queries),
        )


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
    rows_NK, scores_NK, vectors_NKD = (of_M[take, order_NK] for of_M in (rows_NM, scores_NM, vectors_NMD))
    return SearchResult(rows_NK, scores_NK, vectors_NKD, hits, _both([part.both for part in parts], order_NK))


def _both(parts: Sequence[BothScores | None], order_NK: np.ndarray) -> BothScores | None:
    """Join the scores of all parts in an order of their columns; the parts of one search have the same limits."""
    given = [part for part in parts if part is not None]
    if len(given) < len(parts):
        return None
    dense_NM, lexical_NM = (
        np.concatenate([getattr(part, name) for part in given], axis=1) for name in ("dense_NK", "lexical_NK")
    )
    take = np.arange(len(order_NK))[:, None]
    return BothScores(dense_NM[take, order_NK], lexical_NM[take, order_NK], given[0].limit_N)


def nothing(num_queries: int, k: int) -> SearchResult:
    """Return the result of a search that found nothing, and asked for no vectors."""
    return SearchResult(
        np.full((num_queries, k), -1, dtype=np.int64),
        np.full((num_queries, k), -np.inf, dtype=np.float32),
        np.zeros((num_queries, k, 0), dtype=np.float16),
        [[] for _ in range(num_queries)],
    )
