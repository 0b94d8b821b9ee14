"""Fusion. In: results of several searches over one snapshot. Out: one result, ordered by the scores or by the ranks of all. Pure.

N queries, K results, M rows of all lists.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from ragray.index.search.result import SearchResult, nothing
from ragray.types import Hit


def fuse_scores(results: Sequence[SearchResult], weights: Sequence[float], k: int) -> SearchResult:
    """Join results by a convex combination of their scores (Bruch, Gai and Ingber 2023, arXiv:2210.11934, section 3).

    The scores of a result are scaled to 0..1 between the lowest and the highest of a query's candidates. A row's score is the
    weighted sum of its scaled scores; a result that lacks the row counts as 0. ``weights`` sum to one. Ties go to the lower row.
    """
    return _join(results, [weight * _scaled(part) for part, weight in zip(results, weights, strict=True)], k)


def fuse_ranks(results: Sequence[SearchResult], k: int, *, rrf_k: int) -> SearchResult:
    """Join results by reciprocal-rank fusion: a row's score is the sum of 1 / (rrf_k + rank) (Cormack et al. 2009).

    Scores are divided by the largest possible one: a row that is first in every list has 1.0. Ties go to the lower row.
    """
    largest = len(results) / (rrf_k + 1)
    ranks = [np.arange(1, part.rows_NK.shape[1] + 1) for part in results]
    shares = [
        np.broadcast_to(1 / (rrf_k + rank_K) / largest, part.rows_NK.shape)
        for part, rank_K in zip(results, ranks, strict=True)
    ]
    return _join(results, shares, k)


def _scaled(result: SearchResult) -> np.ndarray:
    """Scale scores (N, K) to 0..1 per query; where all candidates of a query have the same score, all get 1."""
    found_NK = result.rows_NK >= 0
    scores_NK = result.scores_NK.astype(np.float64)
    high_N1 = np.max(scores_NK, axis=1, keepdims=True, initial=-np.inf, where=found_NK)
    low_N1 = np.min(scores_NK, axis=1, keepdims=True, initial=np.inf, where=found_NK)
    span_N1 = np.subtract(high_N1, low_N1, where=high_N1 > low_N1, out=np.zeros_like(high_N1))
    scaled_NK = np.ones_like(scores_NK)
    np.divide(scores_NK - np.where(span_N1 > 0, low_N1, 0), span_N1, out=scaled_NK, where=(span_N1 > 0) & found_NK)
    return scaled_NK


def _join(results: Sequence[SearchResult], shares: Sequence[np.ndarray], k: int) -> SearchResult:
    """Sum the shares (N, K of each result) of every row, and keep the k rows with the largest sums."""
    joined = nothing(len(results[0].hits), k)
    for number in range(len(joined.hits)):
        found: dict[int, Hit] = {}
        sums: dict[int, float] = {}
        for part, share_NK in zip(results, shares, strict=True):
            for rank, hit in enumerate(part.hits[number]):
                row = int(part.rows_NK[number, rank])
                found.setdefault(row, hit)
                sums[row] = sums.get(row, 0.0) + float(share_NK[number, rank])
        rows_M = np.fromiter(sums, np.int64, len(sums))
        # float32, because sums of the same shares in another order differ in the last bits of float64 and would not tie
        scores_M = np.fromiter(sums.values(), np.float64, len(sums)).astype(np.float32)
        best = np.lexsort((rows_M, -scores_M))[:k]
        for rank, (row, score) in enumerate(zip(rows_M[best].tolist(), scores_M[best].tolist(), strict=True)):
            joined.rows_NK[number, rank], joined.scores_NK[number, rank] = row, score
            joined.hits[number].append(replace(found[row], score=score))
    return joined
