"""Exact scores. In: candidate rows of fp16 vectors, queries. Out: the k best rows of each query; ties go to the lower row.

N queries, M candidates, K results, D dim.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import reduce

import faiss
import numpy as np

from ragray.embed.encoder import Vectors

ROUNDING = 1e-5
"""How far a score of FAISS may be from ours, relative to the lengths of the two vectors: both sum in float32, in another order."""

RESCORE_ROWS = 256
"""Vectors re-scored at a time: in float32 they still fit the processor's cache."""

SUMMED = 4096
"""Products that numpy adds up in one go."""

HALF_MAGNITUDE = np.int32(-0x70002000)
"""Mask 0x8fffe000: sign, exponent and mantissa of a half after its sign was extended to 32 bits and shifted left by 13."""

Beyond = Callable[[np.ndarray, float], np.ndarray]
"""Returns all rows that the index can find whose score with a query (D,) is at least a bound, up to FAISS's own rounding."""


@dataclass(frozen=True, slots=True)
class Candidates:
    """What a search proposes: rows (N, M), best first, -1 where none, with its own scores.

    Where ``beyond`` is given, the search's scores are exact but for rounding, and it can find rows that tie with the k-th.
    """

    rows_NM: np.ndarray
    scores_NM: np.ndarray
    beyond: Beyond | None


def refined(index: faiss.Index, vectors_ND: np.ndarray) -> faiss.IndexRefine:
    """Let FAISS order the candidates of an index by fp16 vectors (N, D), which it reads where they lie, memory-mapped or not.

    Its fp16 codes are the vectors as they are; its Python interface can show it memory that it does not own only field by field.
    """
    halves = faiss.IndexScalarQuantizer(index.d, faiss.ScalarQuantizer.QT_fp16, index.metric_type)
    halves.ntotal = len(vectors_ND)
    memory = np.asarray(vectors_ND).view(np.uint8).reshape(-1)
    codes = halves.codes
    codes.is_owned = False
    codes.view_data = codes.c_ptr = faiss.swig_ptr(memory)
    codes.view_size = codes.c_size = memory.size
    halves.referenced_objects = [memory]  # as FAISS itself keeps alive what an index reads
    return faiss.IndexRefine(index, halves)


def best(vectors_ND: np.ndarray, found: Candidates, queries_ND: Vectors, k: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the k best candidates of each query, rows (N, K) and scores (N, K); -1 and -inf where there are fewer."""
    scores_NM = inner_products(vectors_ND, found.rows_NM, queries_ND)
    rows_NK, scores_NK = top(found.rows_NM, scores_NM, k)
    if found.beyond is None or found.rows_NM.shape[1] < k:
        return rows_NK, scores_NK
    bounds_N = scores_NK[:, -1] - _rounding(vectors_ND, rows_NK[:, -1], queries_ND)
    for number in np.flatnonzero((found.rows_NM[:, -1] >= 0) & (found.scores_NM[:, -1] >= bounds_N)):
        # rows that the search left out may tie with the k-th
        more = found.beyond(queries_ND[number], float(bounds_N[number]))
        rows_1M = np.union1d(found.rows_NM[number], more)[None]
        scores_1M = inner_products(vectors_ND, rows_1M, queries_ND[number, None])
        (rows_NK[number],), (scores_NK[number],) = top(rows_1M, scores_1M, k)
    return rows_NK, scores_NK


def top(rows_NM: np.ndarray, scores_NM: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """Sort by score, then by row, and keep k columns; -1 and -inf fill up what is missing.

    Rows decide ties, as they are the same however rows are cut into segments and segments into shards: the order in which shards answer,
    or FAISS's own order among equal scores, would give other results on another cluster.
    """
    order_NK = np.lexsort((rows_NM, -scores_NM))[:, :k]
    rows_NK, scores_NK = (np.take_along_axis(found, order_NK, axis=1) for found in (rows_NM, scores_NM))
    if num_missing := k - order_NK.shape[1]:
        missing = ((0, 0), (0, num_missing))
        return np.pad(rows_NK, missing, constant_values=-1), np.pad(scores_NK, missing, constant_values=-np.inf)
    return rows_NK, scores_NK


def inner_products(vectors_ND: np.ndarray, rows_NM: np.ndarray, queries_ND: Vectors) -> np.ndarray:
    """Score rows (N, M) with their query, (N, M) float32; -inf where the row is -1.

    Every product is summed by itself, in the same order: equal vectors get equal scores, wherever they lie and whatever
    else is scored with them.
    """
    num_queries, num_rows = rows_NM.shape
    scores_NM = np.empty(rows_NM.shape, dtype=np.float32)
    step = max(1, RESCORE_ROWS // max(num_rows, 1))
    for start in range(0, num_queries, step):
        for left in range(0, num_rows, RESCORE_ROWS):
            piece = slice(start, start + step), slice(left, left + RESCORE_ROWS)
            halves = vectors_ND.take(rows_NM[piece], axis=0, mode="clip")
            scores_NM[piece] = _summed(widened(halves), queries_ND[piece[0]])
    scores_NM[rows_NM < 0] = -np.inf
    return scores_NM


def _summed(vectors_NMD: np.ndarray, queries_ND: Vectors) -> np.ndarray:
    """Sum the products over D, SUMMED at a time: longer rows numpy would cut where its buffer ends, here or there."""
    cuts = [slice(left, left + SUMMED) for left in range(0, queries_ND.shape[1], SUMMED)]
    parts: list[np.ndarray] = [np.einsum("nmd,nd->nm", vectors_NMD[:, :, cut], queries_ND[:, cut]) for cut in cuts]
    return reduce(np.add, parts)


def widened(halves: np.ndarray) -> np.ndarray:
    """Convert finite float16 to float32, exactly, and three times as fast as numpy's own conversion.

    The bits of a half, moved to where float32 has sign, exponent and mantissa, are a number 2^112 times too small.
    """
    bits = halves.view(np.int16).astype(np.int32)
    bits <<= 13
    bits &= HALF_MAGNITUDE
    values: np.ndarray = bits.view(np.float32)
    values *= np.float32(2.0**112)
    return values


def among(vectors_ND: np.ndarray, rows: np.ndarray, queries_ND: Vectors, depth: int) -> Candidates:
    """Search some rows exactly, without any index."""
    if len(rows) <= depth:
        rows_NM = np.broadcast_to(rows, (len(queries_ND), len(rows)))
        return Candidates(rows_NM, np.zeros(rows_NM.shape, dtype=np.float32), None)
    exact = faiss.METRIC_INNER_PRODUCT
    scores_NM, found_NM = faiss.knn(queries_ND, widened(vectors_ND[rows]), depth, metric=exact)
    return Candidates(rows[found_NM], scores_NM, lambda query_D, bound: rows)


def _rounding(vectors_ND: np.ndarray, rows_N: np.ndarray, queries_ND: Vectors) -> np.ndarray:
    """Bound the difference between FAISS's score and ours; never zero, as FAISS searches for what is larger than a bound."""
    squares_N, others_N = (np.einsum("nd,nd->n", some, some) for some in (widened(vectors_ND[rows_N]), queries_ND))
    bounds_N: np.ndarray = np.maximum(ROUNDING * np.sqrt(squares_N * others_N), np.finfo(np.float32).tiny)
    return bounds_N
