"""One writer at a time. In: a folder. Out: the folder held for writing, or an error that names who holds it or what lies in it."""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path

from ragray.artifact.kinds import kind_in
from ragray.errors import ArtifactBusyError, ArtifactError

LOCK_NAME = ".lock"


def _require_ours(folder: Path, kind: str) -> None:
    """Raise `ArtifactError` unless a folder is new, empty, or one that a stage making ``kind`` has written to."""
    if folder.exists() and not folder.is_dir():
        raise ArtifactError(f"{folder}: is a file; choose another --out, a folder")
    found = kind_in(folder)
    if not found and folder.is_dir() and any(folder.iterdir()) and not (folder / LOCK_NAME).exists():
        found = "files that ragray did not write"
    if found not in ("", kind):
        raise ArtifactError(f"{folder}: holds {found}; choose another --out")


@contextlib.contextmanager
def exclusive(folder: Path, *, kind: str = "", wait: bool = False) -> Iterator[None]:
    """Hold the folder for writing; the operating system releases it when the process ends, however it ends.

    Between machines this holds where the file system passes `flock` on to its server: NFS does (Linux turns it into a byte-range lock,
    for which the file must be open for writing) unless it is mounted with `nolock` or `local_lock`; Lustre does when mounted with `flock`.
    Elsewhere only the processes of one machine exclude each other; `CURRENT` is then still safe from being half written.

    Raises:
        ArtifactBusyError: another process holds it, and this one does not ``wait``.
        ArtifactError: an artefact of another ``kind``, if one is given, lies there, or files that no stage wrote.
    """
    if kind:
        _require_ours(folder, kind)
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / LOCK_NAME).open("a+", encoding="utf-8") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except OSError as err:
            lock.seek(0)
            holder = lock.read().strip() or "unknown"
            raise ArtifactBusyError(
                f"{folder}: process {holder} is writing here; wait for it or choose another --out"
            ) from err
        lock.truncate(0)
        lock.write(str(os.getpid()))
        lock.flush()
        yield
