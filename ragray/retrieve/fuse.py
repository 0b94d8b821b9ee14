"""Reciprocal-rank fusion. In: results of several searches over one snapshot. Out: one result, ordered by the ranks alone. Pure.

N queries, K results, M rows of all lists.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from ragray.index.search.result import SearchResult, nothing
from ragray.types import Hit


def fuse(results: Sequence[SearchResult], k: int, *, rrf_k: int) -> SearchResult:
    """Join ranked lists: a row's score is the sum of 1 / (rrf_k + rank) over the lists that hold it (Cormack et al. 2009).

    Scores are divided by the largest that there can be: a row that stands first in every list has 1.0. Ties go to the lower row.
    """
    num_queries = len(results[0].hits)
    fused = nothing(num_queries, k)
    for number in range(num_queries):
        rows_M, scores_M, found = _scored(results, number, rrf_k)
        best = np.lexsort((rows_M, -scores_M))[:k]
        for rank, (row, score) in enumerate(zip(rows_M[best].tolist(), scores_M[best].tolist(), strict=True)):
            fused.rows_NK[number, rank], fused.scores_NK[number, rank] = row, score
            fused.hits[number].append(replace(found[row], score=score))
    return fused


def _scored(results: Sequence[SearchResult], number: int, rrf_k: int) -> tuple[np.ndarray, np.ndarray, dict[int, Hit]]:
    """Return the rows that any list holds for a query, their scores (float32: sums in another order tie) and hits."""
    found: dict[int, Hit] = {}
    sums: dict[int, float] = {}
    for part in results:
        for rank, hit in enumerate(part.hits[number], start=1):
            row = int(part.rows_NK[number, rank - 1])
            found[row] = hit
            sums[row] = sums.get(row, 0.0) + 1 / (rrf_k + rank)
    largest = len(results) / (rrf_k + 1)
    scores_M = np.fromiter(sums.values(), np.float64, len(sums)) / largest
    return np.fromiter(sums, np.int64, len(sums)), scores_M.astype(np.float32), found
