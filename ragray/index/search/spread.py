"""How far apart the vectors of an index lie. In: a snapshot. Out: one number, the unit in which dense scores are measured.

M rows of a sample, D dim.
"""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

import numpy as np

from ragray.artifact.files import ARRAY_ERRORS
from ragray.errors import CorruptArtifactError, first_line
from ragray.index.store.segment import VECTORS_FILE
from ragray.index.store.snapshot import SEGMENTS, SegmentRef, Snapshot

SAMPLE = 1000
"""Rows, at most: the standard deviation of their 499,500 inner products hardly depends on which they are."""

OF_FEW = 0.1
"""The spread of an index whose vectors show none: one row, or all rows alike."""

_Key = tuple[Path, tuple[SegmentRef, ...]]


def spread_of(index: Path, snapshot: Snapshot) -> float:
    """Return the standard deviation of the inner products between passages of a snapshot: a sample, evenly spaced over its rows.

    Encoders differ in it by a factor of five: unrelated texts have inner products of -0.1 to 0.3 by one and of 0.7 to 0.8 by another.

    Raises:
        CorruptArtifactError: the vectors of a segment cannot be read.
    """
    return _spread((index, snapshot.segments))


@lru_cache(maxsize=16)
def _spread(key: _Key) -> float:
    index, segments = key
    vectors_MD = _sample(index, segments)
    products = (vectors_MD @ vectors_MD.T)[np.triu_indices(len(vectors_MD), k=1)]
    return float(products.std()) or OF_FEW if len(products) > 1 else OF_FEW


def _sample(index: Path, segments: tuple[SegmentRef, ...]) -> np.ndarray:
    """Read evenly spaced rows, (M, D) float32."""
    total = sum(ref.num_rows for ref in segments)
    wanted = np.arange(min(SAMPLE, total)) * total // max(min(SAMPLE, total), 1)
    parts, offset = [], 0
    for ref in segments:
        rows = wanted[(wanted >= offset) & (wanted < offset + ref.num_rows)] - offset
        parts.append(_rows(index / SEGMENTS / ref.name / VECTORS_FILE, rows))
        offset += ref.num_rows
    return np.concatenate(parts) if parts else np.empty((0, 0), np.float32)


def _rows(path: Path, rows: np.ndarray) -> np.ndarray:
    try:
        return np.asarray(np.load(path, mmap_mode="r")[rows], dtype=np.float32)
    except (*ARRAY_ERRORS, IndexError) as err:
        raise CorruptArtifactError(f"{path}: cannot be read ({first_line(err)}); build the index again") from err
