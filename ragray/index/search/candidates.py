"""Candidates of one segment. In: queries, the rows that may be found, search parameters. Out: what FAISS proposes, to be re-scored.

N queries, M candidates, D dim.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil

import faiss
import numpy as np

from ragray.embed.encoder import Vectors
from ragray.index.search.rescore import Candidates
from ragray.index.store.search_params import SearchParams
from ragray.index.store.segment import Segment

SPARE = 8
"""Candidates beyond those asked for: the k-th result and what ties with it are seldom the last ones."""


@dataclass(frozen=True, slots=True)
class OpenSegment:
    """A segment of an open snapshot: its number there, its first global row, which of its rows are live, (rows,) bool, and its
    index with the candidates ordered by their fp16 vectors."""

    number: int
    offset: int
    segment: Segment
    live_N: np.ndarray
    refined: faiss.IndexRefine


def faiss_candidates(
    opened: OpenSegment, allowed_N: np.ndarray, count: int, queries_ND: Vectors, k: int, params: SearchParams
) -> Candidates:
    """Ask FAISS; an index that is not exhaustive looks the farther the more a filter hides."""
    index = opened.segment.index
    selector = None
    if count < len(allowed_N):
        selector = faiss.IDSelectorBitmap(np.packbits(allowed_N, bitorder="little"))
    asked = _faiss_params(index, selector, params, np.count_nonzero(opened.live_N) / max(count, 1))
    if not isinstance(index, faiss.IndexFlat | faiss.IndexIVFFlat | faiss.IndexHNSWFlat):
        return _refined(opened.refined, min(count, params.over_retrieve * k), asked, queries_ND, k)
    depth = min(count, params.over_retrieve * k + SPARE)
    scores_NM, rows_NM = index.search(queries_ND, depth, params=asked)

    def beyond(query_D: np.ndarray, bound: float) -> np.ndarray:
        found: np.ndarray = index.range_search(query_D[None], bound, params=asked)[2]
        return found

    return Candidates(rows_NM, scores_NM, beyond if depth < count else None)


def _refined(
    index: faiss.IndexRefine, depth: int, base: faiss.SearchParameters, queries_ND: Vectors, k: int
) -> Candidates:
    """Take the best of ``depth`` candidates by their fp16 vectors, which FAISS reads faster than numpy does."""

    def search(some_ND: Vectors, kept: int) -> tuple[np.ndarray, np.ndarray]:
        # FAISS asks its base index for int(kept * k_factor) candidates, in float32: the half keeps rounding from losing one of ``depth``.
        params = faiss.IndexRefineSearchParameters(k_factor=(depth + 0.5) / kept, base_index_params=base)
        found: tuple[np.ndarray, np.ndarray] = index.search(some_ND, kept, params=params)
        return found

    def beyond(query_D: np.ndarray, _: float) -> np.ndarray:
        rows_M: np.ndarray = search(query_D[None], depth)[1][0]
        return rows_M[rows_M >= 0]

    kept = min(depth, k + SPARE)
    scores_NM, rows_NM = search(queries_ND, kept)
    return Candidates(rows_NM, scores_NM, beyond if kept < depth else None)


def _faiss_params(
    index: faiss.Index, selector: faiss.IDSelector | None, params: SearchParams, widening: float
) -> faiss.SearchParameters:
    """Return the parameters as FAISS takes them, with the effort multiplied by ``widening``."""
    if lists := faiss.try_extract_index_ivf(index):
        nprobe = min(lists.nlist, ceil(max(1, params.nprobe) * widening))
        found = faiss.SearchParametersIVF(sel=selector, nprobe=nprobe)
        if isinstance(index, faiss.IndexPreTransform):
            return faiss.SearchParametersPreTransform(index_params=found)
        return found
    if isinstance(index, faiss.IndexHNSW):
        return faiss.SearchParametersHNSW(sel=selector, efSearch=ceil(max(1, params.ef_search) * widening))
    return faiss.SearchParameters(sel=selector)
