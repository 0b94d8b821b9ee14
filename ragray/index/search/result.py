"""What a search found. In: the results of disjoint segments. Out: the best of all; ties go to the lower row.

N queries, K results, M results of all parts, D dim.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ragray.types import Hit


@dataclass(frozen=True, slots=True)
class SearchResult:
    """What a search found: for query n, ``hits[n]`` with global rows ``rows_NK`` and vectors ``vectors_NKD``, best first.

    Where fewer than K were found, the row is -1, the score -inf and the vector zero. D is 0 where the search did not ask for vectors.
    """

    rows_NK: np.ndarray
    scores_NK: np.ndarray
    vectors_NKD: np.ndarray
    hits: list[list[Hit]]

    def part(self, queries: slice) -> SearchResult:
        """Return the results of some of the queries."""
        return SearchResult(
            self.rows_NK[queries], self.scores_NK[queries], self.vectors_NKD[queries], self.hits[queries]
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
    return SearchResult(rows_NM[take, order_NK], scores_NM[take, order_NK], vectors_NMD[take, order_NK], hits)


def nothing(num_queries: int, k: int) -> SearchResult:
    """Return the result of a search that found nothing, and asked for no vectors."""
    return SearchResult(
        np.full((num_queries, k), -1, dtype=np.int64),
        np.full((num_queries, k), -np.inf, dtype=np.float32),
        np.zeros((num_queries, k, 0), dtype=np.float16),
        [[] for _ in range(num_queries)],
    )
