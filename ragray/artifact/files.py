"""Files written whole. In: what a file is to hold. Out: the file under its name with all of it, or none."""

from __future__ import annotations

import contextlib
import os
import shutil
import uuid
from collections.abc import Iterator
from pathlib import Path
from tokenize import TokenError

from ragray.jsontext import to_json

ARRAY_ERRORS = (OSError, ValueError, EOFError, SyntaxError, TokenError, TypeError, OverflowError, MemoryError)


"""What `numpy.load` raises where it reads a damaged file: the header is parsed as Python."""


@contextlib.contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside ``path``; on success move it there, on any error remove it.

    Works for a file and for a folder. The content is flushed to disk before the move. A folder that was there is moved away
    first: a process killed at that very moment leaves it whole, but under its hidden name ``.*.old``.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.tmp")
    try:
        yield temporary
        # Content before name: after a power failure the new name must not lead to an empty file.
        for part in temporary.rglob("*"):
            _flush(part)
        _flush(temporary)
        if temporary.is_dir():
            replace_folder(temporary, path)
        else:
            temporary.replace(path)
            _flush(path.parent)  # the name itself is on disk only now
    finally:
        if temporary.is_dir():
            shutil.rmtree(temporary, ignore_errors=True)
        else:
            temporary.unlink(missing_ok=True)


def replace_folder(new: Path, path: Path) -> None:
    """Move a folder to ``path``, where an old one may lie, which is removed; raises `OSError`, and the old one is back then."""
    old = new.with_suffix(".old")
    if path.exists():
        path.replace(old)
    try:
        new.replace(path)
    except OSError:
        if old.exists():
            old.replace(path)
        raise
    _flush(path.parent)
    shutil.rmtree(old, ignore_errors=True)


def _flush(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def write_through(path: Path, text: str) -> None:
    """Write a small file and wait until it is on disk, not atomically: it may be found cut off."""
    path.write_text(text, encoding="utf-8")
    _flush(path)
    _flush(path.parent)


def write_json(path: Path, value: object) -> None:
    """Write JSON atomically; raises `RagrayError` where a value is no JSON."""
    text = to_json(value, str(path), indent=2)
    with atomic_path(path) as temporary:
        temporary.write_text(text + "\n", encoding="utf-8")
