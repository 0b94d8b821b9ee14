"""Errors of libraries in one line. In: an exception, and where it happened. Out: the `RagrayError` to end with.

None of these goes away when the same work is tried again. The death of a process may, but raises nothing in that process.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import shutil
import tempfile
import traceback
from collections.abc import Iterator
from pathlib import Path

from ragray.errors import ArtifactError, RagrayError, first_line

STORAGE = {
    errno.ENOSPC: "disk full",
    errno.EDQUOT: "disk quota used up",
    errno.EFBIG: "file larger than this file system or this user's limit allows",
    errno.EROFS: "read-only file system",
    errno.EACCES: "permission denied",
    errno.EPERM: "operation not permitted",
    errno.EIO: "the disk fails to read or write",
}
"""What an operating system says of a disk that is full, read-only, closed to this user or broken."""

FULL = (errno.ENOSPC, errno.EDQUOT)

logger = logging.getLogger("ragray")


def storage_errno(error: BaseException) -> int | None:
    """Return the error number among `STORAGE` that an exception carries, else None.

    Libraries in C++ or Rust (safetensors, FAISS, Arrow) raise errors of their own types, which hold only the system's message.
    """
    if isinstance(error, OSError) and error.errno is not None:
        return error.errno if error.errno in STORAGE else None
    return next((number for number in STORAGE if os.strerror(number) in str(error)), None)


def told(
    error: BaseException, where: Path | str, *, then: str = "run again", kind: type[RagrayError] = RagrayError
) -> RagrayError:
    """Return an error of one line for any exception.

    An error that ragray raised on purpose is returned unchanged. A storage error becomes an `ArtifactError` that names the path. Anything
    else becomes ``kind`` with its type, its first line and the line of code that raised it. ``where`` is the folder or file
    worked on, ``then`` what to do after mending the cause.
    """
    if isinstance(error, RagrayError):
        return error
    number = storage_errno(error)
    if number is not None:
        path = Path(_text(getattr(error, "filename", None)) or where)
        if number in FULL:
            return ArtifactError(f"{path}: {STORAGE[number]} ({_free(path)}); free space there, then {then}")
        return ArtifactError(f"{path}: cannot be read or written ({STORAGE[number]}); mend that, then {then}")
    if isinstance(error, OSError):
        return ArtifactError(
            f"{where}: cannot be read or written ({' '.join(str(error).split())}); mend that and {then}"
        )
    return kind(f"{where}: {described(error)}; mend that, then {then}")


@contextlib.contextmanager
def naming_storage(folder: Path) -> Iterator[None]:
    """Turn a storage error that is raised in the block, such as a full disk, into an `ArtifactError` that names the folder."""
    try:
        yield
    except RagrayError:
        raise
    except Exception as err:
        if storage_errno(err) is None:
            raise
        raise told(err, folder) from err


def described(error: BaseException) -> str:
    """Return an exception's type, its first line and the file and line of code that raised it."""
    line, name = first_line(error), type(error).__name__
    frames = traceback.extract_tb(error.__traceback__)
    at = f" (at {Path(frames[-1].filename).name}:{frames[-1].lineno})" if frames else ""
    return f"{name}{at}" if line == name else f"{name}: {line}{at}"


def keep_traceback(error: BaseException) -> Path | None:
    """Write a traceback to a temporary file and return its path, "" where it cannot be written."""
    try:
        handle, name = tempfile.mkstemp(prefix="ragray-traceback-", suffix=".txt")
        with os.fdopen(handle, "w", encoding="utf-8", errors="backslashreplace") as file:
            file.writelines(traceback.format_exception(error))
    except OSError:
        return None
    return Path(name)


def _text(filename: object) -> str:
    return os.fsdecode(filename) if isinstance(filename, str | bytes) else ""


def _free(path: Path) -> str:
    """Describe the free space of the file system of a path, which need not exist."""
    here = path.absolute()
    try:
        free = shutil.disk_usage(next(folder for folder in (here, *here.parents) if folder.exists())).free
    except OSError:
        return "free space unknown"
    return f"{free / 2**20:.0f} MiB free now"
