"""Lifecycle of snapshots. In: an index folder. Out: a list of its snapshots, another one made current, unneeded files removed."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from ragray.artifact.lock import exclusive
from ragray.artifact.manifest import unpublish
from ragray.errors import ArtifactError, CorruptArtifactError
from ragray.index.plan.tune import TUNING
from ragray.index.search.reader import IndexReader
from ragray.index.store.fusion_params import FusionParams
from ragray.index.store.snapshot import (
    SEGMENTS,
    SNAPSHOTS,
    Snapshot,
    changing_current,
    current_name,
    holding_current,
    names,
    read_snapshot,
    write_current,
)
from ragray.index.store.tombstones import TOMBSTONES

TRAINED = "trained"
"""Where `ragray.stages.build` keeps trained lists and codes until the segments that need them are built."""

SYNC_FOLDER = ".sync"
"""Where `ragray.stages.sync` keeps what it has embedded, until it is a segment."""


@dataclass(frozen=True, slots=True)
class SnapshotInfo:
    """A snapshot in a list; where its file cannot be read, ``problem`` says why and all numbers are zero."""

    name: str
    is_current: bool
    created_at: str = ""
    parent: str | None = None
    num_live: int = 0
    num_deleted: int = 0
    segments: int = 0
    factory: str = ""
    recall: float | None = None
    fusion: FusionParams | None = None
    problem: str = ""


@dataclass(frozen=True, slots=True)
class GarbageReport:
    """What was removed: snapshots, segments and tombstone files by name, and the bytes of everything."""

    snapshots: tuple[str, ...]
    segments: tuple[str, ...]
    tombstones: tuple[str, ...]
    num_bytes: int


def list_snapshots(index: Path) -> list[SnapshotInfo]:
    """Describe all snapshots, oldest first.

    Raises:
        NotAnArtifactError: the folder is no index.
    """
    current = current_name(index)
    return [_info(index, name, name == current) for name in names(index)]


def _info(index: Path, name: str, is_current: bool) -> SnapshotInfo:
    try:
        found = read_snapshot(index, name)
    except ArtifactError as err:
        return SnapshotInfo(name, is_current, problem=str(err))
    return SnapshotInfo(
        name,
        is_current,
        created_at=found.created_at,
        parent=found.parent,
        num_live=found.num_live,
        num_deleted=found.num_rows - found.num_live,
        segments=len(found.segments),
        factory=found.factory,
        recall=found.recall_at_10,
        fusion=found.fusion,
    )


def promote(index: Path, name: str) -> None:
    """Make a snapshot the current one, once it has been seen to open.

    Raises:
        NotAnArtifactError, CorruptArtifactError: it is not there, or not whole; `CURRENT` stays where it is.
        SnapshotConflictError: another writer moved `CURRENT` meanwhile.
    """
    expected = current_name(index)
    IndexReader.of(index, read_snapshot(index, name))
    with changing_current(index, expected):
        read_snapshot(index, name)  # it may have been collected while it was opened
        write_current(index, name)


def rollback(index: Path) -> str:
    """Make the parent of the current snapshot current, and return its name.

    Raises:
        ArtifactError: it has no parent, or as `promote` does.
    """
    current = read_snapshot(index)
    if current.parent is None:
        raise ArtifactError(
            f"{index}: snapshot {current.name} has no parent to go back to; promote one of these: {', '.join(names(index))}"
        )
    promote(index, current.parent)
    return current.parent


def collect_garbage(index: Path, *, keep: int = 2, min_age_s: float = 3600) -> GarbageReport:
    """Remove what no reader can need: snapshots but the current one, its ``keep`` nearest ancestors and those younger than
    ``min_age_s``; then segments, tombstones, tuning files and the remains of killed processes that no remaining snapshot
    names, unless they are younger than that (an interrupted build or sync continues from them).

    A reader keeps what it has opened: removed files stay readable to it (on a local file system, or on one that keeps
    open files).

    Raises:
        ArtifactBusyError: another process is writing to the index.
        CorruptArtifactError: a snapshot's file cannot be read, so that the files it needs are unknown; nothing is removed.
    """
    if keep < 0 or min_age_s < 0:
        raise ArtifactError(f"{index}: keep={keep} and min_age_s={min_age_s} must not be negative")
    current_name(index)
    oldest_s = time.time() - min_age_s
    with exclusive(index):
        with holding_current(index):  # a snapshot that is being removed cannot become current
            kept, dropped = _kept_and_dropped(index, keep, oldest_s)
            orphans = _orphans(index)
            num_bytes = sum(_remove(index / SNAPSHOTS / f"{name}.json") for name in dropped)
        refs = [ref for snapshot in kept for ref in snapshot.segments]
        tuning = _unreferenced(index / TUNING, {f"{snapshot.name}.json" for snapshot in kept}, oldest_s)
        segments = _unreferenced(index / SEGMENTS, {ref.name for ref in refs}, oldest_s)
        tombstones = _unreferenced(index / TOMBSTONES, {ref.tombstones for ref in refs}, oldest_s)
        orphans = [path for path in orphans if _written_s(path) <= oldest_s]
        num_bytes += sum(_remove(path) for path in [*tuning, *segments, *tombstones, *orphans])
    return GarbageReport(dropped, _names_of(segments), _names_of(tombstones), num_bytes)


def _kept_and_dropped(index: Path, keep: int, oldest_s: float) -> tuple[list[Snapshot], tuple[str, ...]]:
    """Return the snapshots that are kept, and the names of the others."""
    found = {name: _readable(index, name) for name in names(index)}
    needed = set(_lineage(found, read_snapshot(index).name, keep))
    for name, snapshot in found.items():
        if datetime.fromisoformat(snapshot.created_at).timestamp() > oldest_s:
            needed.add(name)
    return [found[name] for name in found if name in needed], tuple(name for name in found if name not in needed)


def _readable(index: Path, name: str) -> Snapshot:
    try:
        return read_snapshot(index, name)
    except CorruptArtifactError as err:
        raise CorruptArtifactError(
            f"{index / SNAPSHOTS / name}.json: cannot be read, so the segments that it needs are unknown; restore the file, or "
            f"remove it, and run again (nothing was removed; {err})"
        ) from err


def _lineage(found: dict[str, Snapshot], current: str, keep: int) -> Iterator[str]:
    """Yield the current snapshot and its ``keep`` nearest ancestors, as far as they are still there."""
    name: str | None = current
    for _ in range(keep + 1):
        if name is None or name not in found:
            return
        yield name
        name = found[name].parent


def _unreferenced(folder: Path, named: set[str], oldest_s: float) -> list[Path]:
    """Return the entries of a folder that were written before ``oldest_s`` and that no snapshot names, without hidden ones."""
    paths = sorted(path for path in folder.glob("[!.]*") if path.name not in named)
    return [path for path in paths if _written_s(path) <= oldest_s]


def _orphans(index: Path) -> list[Path]:
    """Return what killed processes left: temporary names, and the working folders of an unfinished sync or build."""
    folders = [index, *(index / name for name in (SNAPSHOTS, SEGMENTS, TOMBSTONES, TUNING))]
    hidden = [path for folder in folders for end in ("tmp", "old") for path in folder.glob(f".*.{end}")]
    return sorted([*hidden, *index.glob(SYNC_FOLDER), *index.glob(TRAINED)])


def _written_s(path: Path) -> float:
    """Return when a file, or the newest file of a folder, was last written."""
    return max(part.stat().st_mtime for part in [path, *path.rglob("*")])


def _remove(path: Path) -> int:
    """Remove a file or folder, its manifest first, so that no half of it passes for the whole; return its bytes."""
    if not path.is_dir():
        num_bytes = path.stat().st_size
        path.unlink()
        return num_bytes
    num_bytes = sum(part.stat().st_size for part in path.rglob("*") if part.is_file())
    unpublish(path)
    shutil.rmtree(path)
    return num_bytes


def _names_of(paths: list[Path]) -> tuple[str, ...]:
    return tuple(path.name for path in paths)
