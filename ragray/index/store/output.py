"""An index held for changing. In: its folder. Out: the folder held by one writer, and the snapshot that a change starts from."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from ragray.artifact.lock import exclusive
from ragray.failures import naming_storage
from ragray.index.store.snapshot import (
    Snapshot,
    find_current,
    publish_snapshot,
    read_snapshot,
    require_file_system,
)


@dataclass(frozen=True, slots=True)
class IndexOutput:
    """An index folder held for writing; ``current`` named its snapshot when the work began, None where there was none."""

    folder: Path
    current: str | None

    def publish(self, snapshot: Snapshot) -> None:
        """Let ``snapshot`` be the current one.

        Raises:
            SnapshotConflictError: another one was made current meanwhile; nothing was changed.
        """
        publish_snapshot(self.folder, snapshot, expected=self.current)


@contextlib.contextmanager
def index_output(index: Path) -> Iterator[IndexOutput]:
    """Hold a folder for building an index in it.

    Raises:
        ArtifactBusyError: another process holds it.
        ArtifactError: it is no path of a file system, or holds something else.
    """
    require_file_system(index)
    with naming_storage(index), exclusive(index, kind="index"):
        yield IndexOutput(index, find_current(index))


@contextlib.contextmanager
def changed_index(index: Path) -> Iterator[tuple[IndexOutput, Snapshot]]:
    """Hold an index for changing it; yield its current snapshot too.

    Raises:
        NotAnArtifactError: the folder is no index; it is left as it is.
        ArtifactBusyError: another process holds it.
    """
    read_snapshot(index)
    with naming_storage(index), exclusive(index):
        base = read_snapshot(index)
        yield IndexOutput(index, base.name), base
