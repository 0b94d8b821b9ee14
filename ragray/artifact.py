"""A stage's output folder. In: a folder and the files a stage wrote. Out: a manifest, written last and atomically, verified on open.

A folder without its manifest does not exist: readers raise :class:`NotAnArtifactError`. Every file is first written under a
temporary name and moved into place, so that a name either holds the whole file or nothing.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import logging
import os
import shutil
import uuid
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from tokenize import TokenError

from pydantic import BaseModel, ConfigDict, JsonValue, ValidationError

from ragray.errors import ArtifactBusyError, ArtifactError, CorruptArtifactError, NotAnArtifactError, first_line
from ragray.jsontext import to_json

MANIFEST_NAME = "manifest.json"
LOCK_NAME = ".lock"
CURRENT = "CURRENT"
"""File of an index that names its current snapshot: an index has no manifest, its snapshots are (`ragray.index.store.snapshot`)."""

FORMAT_VERSION = 1
CHECKSUM_ON_OPEN_BYTES = 64 << 20
"""Files up to this size are checksummed whenever an artefact is opened; larger ones when they have changed since (`CHECKED_NAME`)."""

CHECKED_NAME = ".checked.json"
"""Which large files were seen to have the checksum of the manifest, each with inode, size and time of that moment. A cache: where it
is absent, or cannot be written, large files are read whole when they are opened."""

LONG_CHECK_BYTES = 4 << 30
"""A check of a file of this size or more says in the log that it is under way: it takes a second a GB or so."""

ARRAY_ERRORS = (OSError, ValueError, EOFError, SyntaxError, TokenError, TypeError, OverflowError, MemoryError)
"""What `numpy.load` raises where it reads a damaged file: the header is parsed as Python."""

logger = logging.getLogger("ragray")

PRODUCED_BY = {
    "corpus": "ragray ingest SOURCE... --out {folder}",
    "embeddings": "ragray embed CORPUS --out {folder}",
    "index": "ragray index build EMBEDDINGS --corpus CORPUS --out {folder}",
    "run": "ragray train --index INDEX --examples FILE --out {folder}",
    "report": "ragray evaluate --index INDEX --examples FILE --out {folder}",
}


class FileEntry(BaseModel):
    """One file of an artefact: path relative to the folder, size in bytes, BLAKE2b-128 of its content."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    path: str
    num_bytes: int
    checksum: str


class Manifest(BaseModel):
    """What an artefact is: its kind, the fingerprint of what it was made from, its files and its facts."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: str
    format_version: int = FORMAT_VERSION
    fingerprint: str
    created_at: str
    facts: dict[str, JsonValue]
    files: tuple[FileEntry, ...]


def fingerprint(value: object) -> str:
    """Hash a JSON-like value into 16 hex digits; the order of mapping keys does not matter. Names of files need not be UTF-8."""
    text = json.dumps(value, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).hexdigest()


def file_checksum(path: Path) -> str:
    """BLAKE2b-128 of a file's content, read in pieces."""
    digest = hashlib.blake2b(digest_size=16)
    with path.open("rb") as stream:
        while piece := stream.read(1 << 20):
            digest.update(piece)
    return digest.hexdigest()


@contextlib.contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside ``path``; on success move it there, on any error remove it.

    Works for a file and for a folder. The content is flushed to disk before the move. A folder that was there is moved away
    first: a process killed at that very moment leaves it whole, but under its hidden name ``.*.old``.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.tmp")
    old = temporary.with_suffix(".old")
    try:
        yield temporary
        for part in temporary.rglob("*"):
            _flush(part)
        _flush(temporary)
        if temporary.is_dir() and path.exists():
            path.replace(old)
        try:
            temporary.replace(path)
        except OSError:
            if old.exists():
                old.replace(path)
            raise
        _flush(path.parent)
        shutil.rmtree(old, ignore_errors=True)
    finally:
        if temporary.is_dir():
            shutil.rmtree(temporary, ignore_errors=True)
        else:
            temporary.unlink(missing_ok=True)


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


def file_entry(folder: Path, path: Path) -> FileEntry:
    """Describe one file for a manifest."""
    return FileEntry(
        path=path.relative_to(folder).as_posix(), num_bytes=path.stat().st_size, checksum=file_checksum(path)
    )


def publish(
    folder: Path, *, kind: str, fingerprint: str, facts: Mapping[str, JsonValue], files: Sequence[FileEntry | Path]
) -> Manifest:
    """Write the manifest of a finished folder; from this moment the artefact exists."""
    entries = [entry if isinstance(entry, FileEntry) else file_entry(folder, entry) for entry in files]
    read = {file for file in files if isinstance(file, Path)}
    manifest = Manifest(
        kind=kind,
        fingerprint=fingerprint,
        created_at=datetime.now(UTC).isoformat(timespec="seconds"),
        facts=dict(facts),
        files=tuple(sorted(entries, key=lambda entry: entry.path)),
    )
    write_json(folder / MANIFEST_NAME, manifest.model_dump(mode="json"))
    large = [entry for entry in entries if entry.num_bytes > CHECKSUM_ON_OPEN_BYTES and folder / entry.path in read]
    if large:
        _write_checked(folder, {entry.path: _state(folder / entry.path, entry) for entry in large})
    return manifest


def unpublish(folder: Path) -> None:
    """Remove the manifest before an artefact is written anew: while it is written, it does not exist."""
    (folder / MANIFEST_NAME).unlink(missing_ok=True)


def require_known_format(path: Path, raw: Mapping[str, object]) -> None:
    """Raise `CorruptArtifactError` where a newer ragray wrote a file."""
    version = raw.get("format_version")
    if isinstance(version, int) and version > FORMAT_VERSION:
        raise CorruptArtifactError(
            f"{path}: format_version {version} was written by a newer ragray (this one reads {FORMAT_VERSION}); upgrade"
        )


def read_manifest(folder: Path, kind: str) -> Manifest:
    """Read a folder's manifest without looking at its files.

    Raises:
        NotAnArtifactError: no manifest, or one of another kind.
        CorruptArtifactError: the manifest cannot be read, or a newer ragray wrote it.
    """
    path = folder / MANIFEST_NAME
    advice = "run: " + PRODUCED_BY[kind].format(folder=folder) if kind in PRODUCED_BY else f"make it as {kind} first"
    if not path.is_file():
        found = (
            "the folder does not exist" if not folder.exists() else "it has no manifest.json, so it was never finished"
        )
        raise NotAnArtifactError(f"{folder}: no {kind} here ({found}); {advice}")
    try:
        raw = json.loads(path.read_text(encoding="utf-8"))
        require_known_format(path, raw)
        manifest = Manifest.model_validate(raw)
    except (ValueError, AttributeError, ValidationError) as err:
        raise CorruptArtifactError(f"{path}: cannot be read as a manifest ({first_line(err)}); {advice}") from err
    if manifest.kind != kind:
        raise NotAnArtifactError(f"{folder}: no {kind} here (its manifest is of kind {manifest.kind}); {advice}")
    return manifest


def verify(folder: Path, manifest: Manifest, *, full: bool = False) -> None:
    """Compare the files with the manifest: presence, size and content; with ``full``, large files are read again in any case.

    Raises:
        CorruptArtifactError: names the first file that is missing or differs.
    """
    known = _read_checked(folder)
    seen = {}
    for entry in manifest.files:
        state = verify_file(folder, entry, manifest.kind, known="" if full else known.get(entry.path, ""))
        if entry.num_bytes > CHECKSUM_ON_OPEN_BYTES:
            seen[entry.path] = state
    if seen and seen != known:
        _write_checked(folder, seen)


def verify_file(folder: Path, entry: FileEntry, kind: str, *, known: str = "") -> str:
    """Compare one file with its entry in the manifest of an artefact; return the state in which it was seen to be right.

    A large file that is still in the state ``known`` is not read again.

    Raises:
        CorruptArtifactError: it is missing or differs.
    """
    path = folder / entry.path
    advice = f"restore the file or make the {kind} again"
    if not path.is_file():
        raise CorruptArtifactError(f"{path}: missing, but listed in {folder / MANIFEST_NAME}; {advice}")
    state = _state(path, entry)
    size = path.stat().st_size
    if size != entry.num_bytes:
        raise CorruptArtifactError(f"{path}: {size} bytes, the manifest says {entry.num_bytes}; {advice}")
    if size > CHECKSUM_ON_OPEN_BYTES and state == known:
        return state
    if size >= LONG_CHECK_BYTES:
        logger.info("%s: %.1f GiB, read once to check them", path, size / (1 << 30))
    if file_checksum(path) != entry.checksum:
        raise CorruptArtifactError(f"{path}: content differs from its checksum in the manifest; {advice}")
    return state


def _state(path: Path, entry: FileEntry) -> str:
    """Return what changes when a file is written to or replaced, and the checksum that it should have."""
    found = path.stat()
    return f"{entry.checksum} {found.st_ino} {found.st_size} {found.st_mtime_ns}"


def _read_checked(folder: Path) -> dict[str, str]:
    try:
        raw = json.loads((folder / CHECKED_NAME).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return raw if isinstance(raw, dict) else {}


def _write_checked(folder: Path, states: Mapping[str, str]) -> None:
    with contextlib.suppress(
        OSError
    ):  # of a read-only place, or one that is being removed: it is read again the next time
        write_json(folder / CHECKED_NAME, states)


def open_artifact(folder: Path, kind: str, *, full: bool = False) -> Manifest:
    """Read and verify; what comes back may be trusted (raises as `read_manifest` and `verify` do)."""
    manifest = read_manifest(folder, kind)
    verify(folder, manifest, full=full)
    return manifest


def is_current(folder: Path, *, kind: str, fingerprint: str) -> bool:
    """Say whether the folder already holds this very artefact, whole: then its stage has nothing to do."""
    try:
        return open_artifact(folder, kind).fingerprint == fingerprint
    except (NotAnArtifactError, CorruptArtifactError):
        return False


def _require_ours(folder: Path, kind: str) -> None:
    """Raise `ArtifactError` unless a folder is new, empty, or one that a stage making ``kind`` has written to."""
    if folder.exists() and not folder.is_dir():
        raise ArtifactError(f"{folder}: is a file; choose another --out, a folder")
    found = "index" if (folder / CURRENT).is_file() else ""
    with contextlib.suppress(OSError, ValueError, LookupError, TypeError):
        found = found or str(json.loads((folder / MANIFEST_NAME).read_text(encoding="utf-8"))["kind"])
    if not found and folder.is_dir() and any(folder.iterdir()) and not (folder / LOCK_NAME).exists():
        found = "files that ragray did not write"
    if found not in ("", kind):
        raise ArtifactError(f"{folder}: holds {found}; choose another --out")


@contextlib.contextmanager
def exclusive(folder: Path, *, kind: str = "", wait: bool = False) -> Iterator[None]:
    """Hold the folder for writing; the operating system lets go when the process ends, however it ends.

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
