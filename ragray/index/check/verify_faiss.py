"""Verification of a FAISS index. In: an index, the fp16 vectors of its rows. Out: what is wrong, in words.

N rows, D dim, L lists, S sampled rows, K results.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import faiss
import numpy as np

BATCH_ROWS = 4096
SCORED_ROWS = 1000
"""Rows, at most, that are scored with their own vector: where FAISS cannot give vectors back, or gives back others."""

SAME_SCORE = 1e-3
"""How far, relatively, two scores of one vector with its own code may be from each other."""

LIST_SHARE = 0.01
"""Rows that may lie in another list than the nearest: an approximate quantizer, and rounding where two are equally near."""


@dataclass(frozen=True, slots=True)
class Code:
    """How far a FAISS type may be from the vectors it was given.

    ``distance`` is relative to the length of a vector; ``share`` is how many rows may be further away and have another
    code than their vector gets when it is added anew.
    """

    distance: float
    share: float
    gives_back: bool = True

    @property
    def exact(self) -> bool:
        """True where the vectors are kept as they are, in half precision at least."""
        return self.gives_back and self.distance <= HALVES.distance


EXACT = Code(1e-6, 0.0)
HALVES = Code(2e-3, 0.0)
SCALAR = Code(0.4, 0.0)
COARSE = Code(0.9, 0.05)
SCORED = Code(0.0, 0.05, gives_back=False)


def code_of(index: faiss.Index) -> Code:
    """Return how exact a FAISS type is.

    In faiss 1.15.1 a FastScan index crashes when it is asked for its vectors, and RaBitQ gives them back with wrong lengths: both are
    judged by scores alone.
    """
    index = faiss.downcast_index(index)
    if isinstance(index, faiss.IndexPreTransform):
        inner = code_of(index.index)
        return SCALAR if inner.exact else inner
    if isinstance(index, faiss.IndexHNSW):
        return code_of(index.storage)
    if isinstance(index, faiss.IndexIVFFastScan | faiss.IndexFastScan | faiss.IndexIVFRaBitQ | faiss.IndexRaBitQ):
        return SCORED
    if isinstance(index, faiss.IndexFlat | faiss.IndexIVFFlat):
        return EXACT
    if isinstance(index, faiss.IndexScalarQuantizer | faiss.IndexIVFScalarQuantizer):
        return HALVES if index.sq.qtype == faiss.ScalarQuantizer.QT_fp16 else SCALAR
    return COARSE


def faiss_faults(index: faiss.Index, vectors_ND: np.ndarray, rows_S: np.ndarray) -> Iterator[str]:
    """Yield what is wrong with an index over ``vectors_ND``; vectors are compared for the rows ``rows_S``, ascending.

    The index is changed on the way (direct map, at the end perhaps other rows): it must be a copy that is used for nothing else.
    """
    ivf = faiss.try_extract_index_ivf(index)
    if ivf is not None:
        ivf = faiss.downcast_index(ivf)
        list_N = np.full(len(vectors_ND), -1, dtype=np.int32)
        faults = [*_list_faults(ivf, list_N)]
        yield from faults
        if faults:
            return  # FAISS must not follow such ids
        yield from _assignment_faults(index, ivf, list_N, vectors_ND, rows_S)
    yield from _vector_faults(index, ivf, vectors_ND, rows_S)


def _list_faults(ivf: faiss.IndexIVF, list_N: np.ndarray) -> Iterator[str]:
    """Note the list of every row in ``list_N``; say where the lists do not hold every row once."""
    for number in range(ivf.nlist):
        size = ivf.invlists.list_size(number)
        if not size:
            continue
        ids = faiss.rev_swig_ptr(ivf.invlists.get_ids(number), size)
        if ids.min() < 0 or ids.max() >= len(list_N):
            yield f"list {number} holds an id that is no row ({ids.min()} to {ids.max()} of {len(list_N)} rows)"
            return
        if (list_N[ids] >= 0).any() or len(np.unique(ids)) < size:
            yield f"list {number} holds rows that another place holds too"
            return
        list_N[ids] = number
    if (list_N < 0).any():
        yield f"{int((list_N < 0).sum())} rows are in no list, the first is {int((list_N < 0).argmax())}"


def _assignment_faults(
    index: faiss.Index, ivf: faiss.IndexIVF, list_N: np.ndarray, vectors_ND: np.ndarray, rows_S: np.ndarray
) -> Iterator[str]:
    """Yield a fault where many rows lie in a list whose centroid is not the nearest: a search would not look there."""
    wrong, first = 0, -1
    for rows in _batches(rows_S):
        nearest = ivf.quantizer.search(_transformed(index, vectors_ND[rows]), 1)[1][:, 0]
        elsewhere = rows[nearest != list_N[rows]]
        first = int(elsewhere[0]) if first < 0 and len(elsewhere) else first
        wrong += len(elsewhere)
    if wrong > LIST_SHARE * len(rows_S):
        yield f"{wrong} of {len(rows_S)} rows lie in another list than the one nearest to their vector, the first is row {first}"


def _transformed(index: faiss.Index, vectors_ND: np.ndarray) -> np.ndarray:
    vectors_ND = np.ascontiguousarray(vectors_ND, dtype=np.float32)
    index = faiss.downcast_index(index)
    if isinstance(index, faiss.IndexPreTransform):
        for number in range(index.chain.size()):
            vectors_ND = index.chain.at(number).apply(vectors_ND)
    return vectors_ND


def _vector_faults(
    index: faiss.Index, ivf: faiss.IndexIVF | None, vectors_ND: np.ndarray, rows_S: np.ndarray
) -> Iterator[str]:
    code, far = code_of(index), rows_S
    if code.gives_back:
        if ivf is not None:
            ivf.make_direct_map()
        far = np.concatenate([rows[_far(index, code, vectors_ND[rows], rows)] for rows in _batches(rows_S)])
    if code.exact:
        lost, stands_for = far, 1
    else:
        stands_for = -(-len(far) // SCORED_ROWS) or 1
        asked = far[::stands_for]
        lost = asked[_coded_otherwise(index, ivf, vectors_ND, asked)]
    if len(lost) * stands_for > code.share * len(rows_S):
        about = f"about {len(lost) * stands_for}" if stands_for > 1 else str(len(lost))
        yield f"{about} of {len(rows_S)} rows have another vector than in vectors.npy, the first is row {lost[0]}"


def _far(index: faiss.Index, code: Code, vectors_SD: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Return which rows FAISS gives back further from their vectors than their code explains."""
    vectors_SD = vectors_SD.astype(np.float32)
    with np.errstate(over="ignore", invalid="ignore"):
        distance_S = np.linalg.norm(index.reconstruct_batch(rows) - vectors_SD, axis=1)
        far: np.ndarray = ~(distance_S <= code.distance * np.linalg.norm(vectors_SD, axis=1) + 1e-9)
    return far


def _coded_otherwise(
    index: faiss.Index, ivf: faiss.IndexIVF | None, vectors_ND: np.ndarray, rows: np.ndarray
) -> np.ndarray:
    """Return which rows score otherwise with their own vectors than after they were added again, to the same index emptied.

    A distance alone proves nothing: a vector unlike those that the index was trained on (a sync adds such) has a distant code, rightly.
    """
    inner = index if ivf is None else ivf
    queries_SD = _transformed(index, vectors_ND[rows])
    stored_S = _own_scores(inner, queries_SD, rows)
    inner.reset()
    inner.add(queries_SD)
    anew_S = _own_scores(inner, queries_SD, np.arange(len(rows)))
    same_S = np.isclose(stored_S, anew_S, rtol=SAME_SCORE)
    otherwise: np.ndarray = ~same_S & queries_SD.any(axis=1)  # a fast scan cannot score a query of zeros
    return otherwise


def _own_scores(index: faiss.Index, queries_SD: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Return what a search of the nearest list alone scores each row with its own query, (S,) float32; NaN where it is not found."""
    scores_S = np.full(len(rows), np.nan, dtype=np.float32)
    for number, row in enumerate(rows.tolist()):
        selector = faiss.IDSelectorRange(row, row + 1)
        params = faiss.SearchParameters(sel=selector)
        if isinstance(index, faiss.IndexIVF):
            params = faiss.SearchParametersIVF(sel=selector, nprobe=1)
        ((score,),), ((found,),) = index.search(queries_SD[number, None], 1, params=params)
        if found == row:
            scores_S[number] = score
    return scores_S


def _batches(rows: np.ndarray) -> list[np.ndarray]:
    return [rows[start : start + BATCH_ROWS] for start in range(0, len(rows), BATCH_ROWS)]
