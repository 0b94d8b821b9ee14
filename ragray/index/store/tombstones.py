"""Tombstones: rows of a segment that a snapshot hides. In: row numbers. Out: an immutable file named by its content."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ragray.artifact.files import ARRAY_ERRORS, atomic_path
from ragray.errors import CorruptArtifactError, first_line
from ragray.index.store.snapshot import SegmentRef

TOMBSTONES = "tombstones"


def with_tombstones(index: Path, ref: SegmentRef, rows: Sequence[int] | np.ndarray) -> SegmentRef:
    """Write which rows of a segment are deleted (all of them, earlier ones too); return the reference that names the file."""
    deleted_N = np.unique(np.asarray(rows, dtype=np.int64))
    if not len(deleted_N):
        return ref.model_copy(update={"tombstones": "", "num_deleted": 0})
    _check(deleted_N, ref, "tombstones")
    name = f"{_digest(deleted_N)}.npy"
    with atomic_path(index / TOMBSTONES / name) as temporary, temporary.open("wb") as stream:
        np.save(stream, deleted_N, allow_pickle=False)
    return ref.model_copy(update={"tombstones": name, "num_deleted": len(deleted_N)})


def hide(index: Path, refs: Sequence[SegmentRef], rows: np.ndarray) -> list[SegmentRef]:
    """Write that global rows of a snapshot's segments are deleted, too; return the references of the snapshot that follows."""
    offset = 0
    hidden = []
    for ref in refs:
        mine = rows[(rows >= offset) & (rows < offset + ref.num_rows)] - offset
        hidden.append(with_tombstones(index, ref, np.append(deleted_rows(index, ref), mine)) if len(mine) else ref)
        offset += ref.num_rows
    return hidden


def deleted_rows(index: Path, ref: SegmentRef) -> np.ndarray:
    """Read the deleted rows of a segment, (num_deleted,) int64, ascending.

    Raises:
        CorruptArtifactError: the file is missing, damaged, or names a row that the segment does not have.
    """
    if not ref.tombstones:
        return np.empty(0, dtype=np.int64)
    path = index / TOMBSTONES / ref.tombstones
    try:
        deleted_N: np.ndarray = np.load(path, allow_pickle=False)
    except ARRAY_ERRORS as err:
        reason = first_line(err)
        raise CorruptArtifactError(f"{path}: cannot be read ({reason}); roll back, or build the index again") from err
    if deleted_N.dtype != np.int64 or deleted_N.ndim != 1 or path.stem != _digest(deleted_N):
        raise CorruptArtifactError(f"{path}: its content does not match its name; roll back, or build the index again")
    if len(deleted_N) != ref.num_deleted:
        raise CorruptArtifactError(
            f"{path}: holds {len(deleted_N)} tombstones, the snapshot says {ref.num_deleted}; roll back, or build again"
        )
    _check(deleted_N, ref, str(path))
    return deleted_N


def live_mask(index: Path, ref: SegmentRef) -> np.ndarray:
    """Return which rows of a segment are not deleted, (num_rows,) bool; raises as `deleted_rows` does."""
    live_N = np.ones(ref.num_rows, dtype=bool)
    live_N[deleted_rows(index, ref)] = False
    return live_N


def _check(deleted_N: np.ndarray, ref: SegmentRef, where: str) -> None:
    if deleted_N[0] < 0 or deleted_N[-1] >= ref.num_rows:
        raise CorruptArtifactError(
            f"{where}: names row {deleted_N[0] if deleted_N[0] < 0 else deleted_N[-1]}, segment {ref.name} has "
            f"{ref.num_rows} rows; roll back, or build the index again"
        )


def _digest(rows_N: np.ndarray) -> str:
    return hashlib.blake2b(rows_N.tobytes(), digest_size=16).hexdigest()
