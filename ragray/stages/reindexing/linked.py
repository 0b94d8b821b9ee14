"""A folder of indexes beside a user's index. In: a snapshot. Out: an index folder that shares its files, and can take others.

A retriever pool serves the snapshots of one folder. This one begins with a snapshot whose segments lie elsewhere; those that are
built into it later are its own. The user's index is read, and never written to.
"""

from __future__ import annotations

import shutil
from collections.abc import Collection
from pathlib import Path

from ragray.artifact.files import atomic_path
from ragray.index.plan.tune import TUNING
from ragray.index.store.snapshot import (
    SEGMENTS,
    SNAPSHOTS,
    Snapshot,
    find_current,
    holding_current,
    names,
    read_snapshot,
    write_current,
)
from ragray.index.store.tombstones import TOMBSTONES


def link_snapshot(index: Path, snapshot: Snapshot, out: Path) -> None:
    """Let ``out`` be an index that holds a snapshot of ``index`` too; what it holds already stays."""
    for ref in snapshot.segments:
        _link(index.resolve() / SEGMENTS / ref.name, out / SEGMENTS / ref.name)
        if ref.tombstones:
            _link(index.resolve() / TOMBSTONES / ref.tombstones, out / TOMBSTONES / ref.tombstones)
    name = f"{snapshot.name}.json"
    with atomic_path(out / SNAPSHOTS / name) as path:
        shutil.copyfile(index / SNAPSHOTS / name, path)
    with holding_current(out):
        if find_current(out) is None:
            write_current(out, snapshot.name)


def keep_snapshots(out: Path, kept: Collection[str]) -> None:
    """Remove all snapshots but some, and segments that none of these names; of what is linked only the link goes.

    `CURRENT` may name one that is gone: whoever opens a snapshot of this folder says which.
    """
    dropped = [name for name in names(out) if name not in kept]
    if not dropped:
        return
    refs = [ref for name in names(out) if name in kept for ref in read_snapshot(out, name).segments]
    for name in dropped:
        (out / SNAPSHOTS / f"{name}.json").unlink(missing_ok=True)
        (out / TUNING / f"{name}.json").unlink(missing_ok=True)
    for folder, named in ((SEGMENTS, {r.name for r in refs}), (TOMBSTONES, {r.tombstones for r in refs})):
        for path in (out / folder).glob("[!.]*"):
            if path.name not in named:
                _remove(path)


def _link(source: Path, target: Path) -> None:
    if not target.is_symlink():
        target.parent.mkdir(parents=True, exist_ok=True)
        target.symlink_to(source)


def _remove(path: Path) -> None:
    if path.is_symlink() or path.is_file():
        path.unlink()
    else:
        shutil.rmtree(path, ignore_errors=True)
