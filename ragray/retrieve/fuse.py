"""Fusion. In: results of several searches over one snapshot. Out: one result, ordered by the scores or by the ranks of all. Pure.

N queries, K results, M places of all lists, F places that hold a row, P pairs of query and row.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from ragray.index.search.result import SearchResult, nothing
from ragray.types import Hit


def fuse_scores(results: Sequence[SearchResult], dense_weight: float, spread: float, k: int) -> SearchResult:
    """Join results by a convex combination of two scores of each row (Bruch, Gai and Ingber 2023, arXiv:2210.11934).

    Both scores are absolute, not scaled between the candidates of a query, where the best of a poor list would look like the best
    of a good one. The dense score is the inner product in units of ten times ``spread`` (see `ragray.index.search.spread`). The
    lexical score is BM25 as a share of what it can be at most, 0 to 1: which part of the query's terms a passage holds, by weight.
    A row has both, whichever search found it. Ties go to the lower row.

    Raises:
        ValueError: a result does not carry both scores.
    """
    return _with_hits(score_rows(results, dense_weight, spread, k), results)


def score_rows(results: Sequence[SearchResult], dense_weight: float, spread: float, k: int) -> SearchResult:
    """Join results as `fuse_scores` does, without hits."""
    return _joined(results, [_combined(part, dense_weight, spread) for part in results], k, np.maximum)


def fuse_ranks(results: Sequence[SearchResult], k: int, *, rrf_k: int) -> SearchResult:
    """Join results by reciprocal-rank fusion: a row's score is the sum of 1 / (rrf_k + rank) (Cormack et al. 2009).

    Scores are divided by the largest possible one: a row that is first in every list has 1.0. Ties go to the lower row.
    """
    return _with_hits(rank_rows(results, k, rrf_k=rrf_k), results)


def rank_rows(results: Sequence[SearchResult], k: int, *, rrf_k: int) -> SearchResult:
    """Join results as `fuse_ranks` does, without hits."""
    largest = len(results) / (rrf_k + 1)
    ranks = [np.arange(1, part.rows_NK.shape[1] + 1) for part in results]
    shares = [
        np.broadcast_to(1 / (rrf_k + rank_K) / largest, part.rows_NK.shape)
        for part, rank_K in zip(results, ranks, strict=True)
    ]
    return _joined(results, shares, k, np.add)


def _combined(found: SearchResult, dense_weight: float, spread: float) -> np.ndarray:
    """Return the convex combination of both scores, (N, K); 0 where there is no row."""
    both = found.both
    if both is None:
        raise ValueError("fusion by scores needs both scores of every row: search with texts and their vectors")
    dense_NK = np.where(found.rows_NK >= 0, both.dense_NK, 0) / (10 * spread)
    limit_N1 = both.limit_N[:, None]
    share_NK = np.divide(both.lexical_NK, limit_N1, out=np.zeros_like(both.lexical_NK), where=limit_N1 > 0)
    return np.asarray(dense_weight * dense_NK + (1 - dense_weight) * share_NK)


def _joined(results: Sequence[SearchResult], shares: Sequence[np.ndarray], k: int, join: np.ufunc) -> SearchResult:
    """Join the shares (N, K of each result) of every row, and keep the k rows with the largest; no hits."""
    rows_NM = np.concatenate([part.rows_NK for part in results], axis=1)
    shares_NM = np.concatenate(shares, axis=1)
    found = query_F, _ = np.nonzero(rows_NM >= 0)
    # one number for a query and a row: unique of one column is much faster than of two
    span = int(rows_NM.max(initial=0)) + 1
    pairs_P, inverse_F = np.unique(query_F * span + rows_NM[found], return_inverse=True)
    # float32, because sums of the same shares in another order differ in the last bits of float64 and would not tie
    joined_P = np.full(len(pairs_P), 0.0 if join is np.add else -np.inf)
    join.at(joined_P, inverse_F, shares_NM[found])
    sums_P = joined_P.astype(np.float32)
    order_P = np.lexsort((pairs_P, -sums_P, pairs_P // span))
    query_P, row_P = np.divmod(pairs_P[order_P], span)
    rank_P = np.arange(len(query_P)) - np.searchsorted(query_P, query_P)
    kept_P = rank_P < k
    joined, place = nothing(len(rows_NM), k), (query_P[kept_P], rank_P[kept_P])
    joined.rows_NK[place], joined.scores_NK[place] = row_P[kept_P], sums_P[order_P[kept_P]]
    return joined


def _with_hits(joined: SearchResult, results: Sequence[SearchResult]) -> SearchResult:
    """Give joined rows the hits that the results have for them."""
    for number, hits in enumerate(joined.hits):
        known: dict[int, Hit] = {}
        for part in reversed(results):
            known.update(zip(part.rows_NK[number].tolist(), part.hits[number], strict=False))
        ranked = zip(joined.rows_NK[number].tolist(), joined.scores_NK[number].tolist(), strict=True)
        hits += [replace(known[row], score=score) for row, score in ranked if row >= 0]
    return joined
