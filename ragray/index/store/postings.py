"""Posting lists of one segment. In: the texts of its passages. Out: files of plain counts, memory-mapped when they are opened.

Counts, not scores: what BM25 sums over all live rows of a snapshot, `ragray.index.search.bm25` sums when a query comes.

N rows of a segment, T distinct terms, P postings.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

import numpy as np

from ragray.artifact.files import ARRAY_ERRORS
from ragray.errors import CorruptArtifactError, first_line
from ragray.text.analyzer import analyze

LEXICAL = "lexical"

RUN_ROWS = 8192
"""Passages that are tokenised and counted together."""

DTYPES: dict[str, type[np.generic]] = {
    "terms": np.uint64,
    "starts": np.int64,
    "rows": np.int32,
    "counts": np.uint16,
    "lengths": np.int32,
}
"""The files of a lexical part, see `Postings`."""


@dataclass(frozen=True, slots=True)
class Postings:
    """The posting lists of one segment, memory-mapped.

    ``terms_T`` are hashes of the terms, ascending; the passages with term t are ``rows_P[starts[t]:starts[t + 1]]``, ascending,
    and hold it ``counts_P`` times (at most 65,535 are counted). ``lengths_N`` are the tokens of every passage.
    """

    terms_T: np.ndarray
    starts: np.ndarray
    rows_P: np.ndarray
    counts_P: np.ndarray
    lengths_N: np.ndarray

    @classmethod
    def open(cls, folder: Path, num_rows: int) -> Postings:
        """Open the lexical part of a segment.

        Raises:
            CorruptArtifactError: a file is missing or damaged, or the files do not fit each other or the segment.
        """
        part = cls(*(_load(folder / f"{name}.npy", dtype) for name, dtype in DTYPES.items()))
        postings = len(part.rows_P)
        faults = {
            f"lengths.npy has {len(part.lengths_N)} rows, the snapshot says {num_rows}": len(part.lengths_N)
            != num_rows,
            "terms.npy is not in order": bool((part.terms_T[1:] <= part.terms_T[:-1]).any()),
            f"starts.npy does not fit {len(part.terms_T)} terms": len(part.starts) != len(part.terms_T) + 1,
            f"counts.npy has {len(part.counts_P)} entries, rows.npy {postings}": len(part.counts_P) != postings,
        }
        if not any(faults.values()):
            bounds = (int(part.starts[0]), int(part.starts[-1]))
            ascending = bool((part.starts[1:] >= part.starts[:-1]).all())
            faults[f"starts.npy does not divide {postings} postings"] = bounds != (0, postings) or not ascending
        for fault, found in faults.items():
            if found:
                raise CorruptArtifactError(f"{folder}: {fault}; build the index again")
        return part

    def number_of(self, term: np.uint64) -> int | None:
        """Return the place of a term among ``terms_T``; None if no passage holds it."""
        number = int(self.terms_T.searchsorted(term))
        return number if number < len(self.terms_T) and self.terms_T[number] == term else None

    def of(self, term: np.uint64) -> slice:
        """Return where the postings of a term lie; empty if no passage holds it."""
        number = self.number_of(term)
        return slice(0, 0) if number is None else slice(int(self.starts[number]), int(self.starts[number + 1]))


def _load(path: Path, dtype: type[np.generic]) -> np.ndarray:
    try:
        found: np.ndarray = np.load(path, mmap_mode="r", allow_pickle=False)
    except ARRAY_ERRORS as err:
        reason = first_line(err)
        raise CorruptArtifactError(f"{path}: cannot be read ({reason}); build the index again") from err
    if found.ndim != 1 or found.dtype != dtype:
        raise CorruptArtifactError(
            f"{path}: holds {found.dtype} of shape {found.shape}, expected a list of {np.dtype(dtype)}; build the index again"
        )
    return found


@dataclass(frozen=True, slots=True)
class _SortedRun:
    """The postings of some neighbouring rows: ``sizes_T`` of each term, in the order of ``terms_T``."""

    terms_T: np.ndarray
    sizes_T: np.ndarray
    rows_P: np.ndarray
    counts_P: np.ndarray


class LexicalWriter:
    """Collects the terms of a segment's passages, in row order, and writes them as posting lists; needs some 12 bytes per posting."""

    def __init__(self, analyzer: str) -> None:
        self._analyzer = analyzer
        self._pending: list[str] = []
        self._runs: list[_SortedRun] = []
        self._lengths: list[np.ndarray] = []

    def add(self, texts: Sequence[str]) -> None:
        """Append passages (title and text joined as the encoder sees them)."""
        self._pending.extend(texts)
        if len(self._pending) >= RUN_ROWS:
            self._count()

    def write(self, folder: Path) -> list[Path]:
        """Write the files of the lexical part; return them."""
        self._count()
        folder.mkdir(parents=True, exist_ok=True)
        terms_T = np.unique(np.concatenate([np.empty(0, np.uint64), *(run.terms_T for run in self._runs)]))
        sizes_T = np.zeros(len(terms_T), dtype=np.int64)
        for run in self._runs:
            sizes_T[np.searchsorted(terms_T, run.terms_T)] += run.sizes_T
        starts = np.concatenate([[0], np.cumsum(sizes_T)])
        rows_P, counts_P = self._postings(terms_T, starts)
        lengths_N = np.concatenate([np.empty(0, np.int32), *self._lengths])
        arrays = dict(zip(DTYPES, (terms_T, starts, rows_P, counts_P, lengths_N), strict=True))
        for name, array in arrays.items():
            np.save(folder / f"{name}.npy", array.astype(DTYPES[name], copy=False), allow_pickle=False)
        return [folder / f"{name}.npy" for name in arrays]

    def _count(self) -> None:
        """Turn the pending texts into a run."""
        if not self._pending:
            return
        ids, hashes = analyze(self._pending, self._analyzer)
        first, num_rows = sum(len(lengths) for lengths in self._lengths), len(ids)
        lengths_N = np.fromiter(map(len, ids), np.int32, num_rows)
        tokens = np.fromiter(chain.from_iterable(ids), np.int64, int(lengths_N.sum()))
        terms_T, place = np.unique(hashes, return_inverse=True)
        keys = place[tokens] * num_rows + np.repeat(np.arange(num_rows), lengths_N)
        keys, counts_P = np.unique(keys, return_counts=True)
        term_P, row_P = np.divmod(keys, num_rows)
        sizes_T = np.bincount(term_P, minlength=len(terms_T)).astype(np.int32)
        counts_P = np.minimum(counts_P, np.iinfo(np.uint16).max).astype(np.uint16)
        self._runs.append(_SortedRun(terms_T, sizes_T, (row_P + first).astype(np.int32), counts_P))
        self._lengths.append(lengths_N)
        self._pending = []

    def _postings(self, terms_T: np.ndarray, starts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Merge the runs term by term. A counting sort suffices: runs are in row order, and each is sorted by term already."""
        rows_P, counts_P = np.empty(starts[-1], np.int32), np.empty(starts[-1], np.uint16)
        ends = starts[:-1].copy()
        for run in self._runs:
            places = np.searchsorted(terms_T, run.terms_T)
            begins = np.cumsum(run.sizes_T) - run.sizes_T
            to = np.repeat(ends[places] - begins, run.sizes_T) + np.arange(len(run.rows_P))
            rows_P[to], counts_P[to] = run.rows_P, run.counts_P
            ends[places] += run.sizes_T
        return rows_P, counts_P
