"""Manifests. In: a folder and the files that a stage wrote. Out: a manifest, written last, and verified when the folder is opened.

A folder without its manifest does not exist: readers raise :class:`NotAnArtifactError`.
"""

from __future__ import annotations

import contextlib
import json
import logging
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TypeVar

from pydantic import BaseModel, ConfigDict, JsonValue, TypeAdapter, ValidationError

from ragray.artifact.digest import file_checksum
from ragray.artifact.files import write_json
from ragray.artifact.kinds import MANIFEST_NAME, how_to_make
from ragray.errors import CorruptArtifactError, NotAnArtifactError, first_line

FORMAT_VERSION = 1

CHECKSUM_ON_OPEN_BYTES = 64 << 20
"""Files up to this size are checksummed whenever an artefact is opened; larger ones when they have changed since (`CHECKED_NAME`)."""

CHECKED_NAME = ".checked.json"
"""Which large files were seen to have the checksum of the manifest, each with inode, size and time of that moment. A cache: where it
is absent, or cannot be written, large files are read whole when they are opened."""

LONG_CHECK_BYTES = 4 << 30
"""Before a file of this size or more is read for its checksum, the log says so: it takes about one second per GB."""

logger = logging.getLogger("ragray")

T = TypeVar("T")


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
    """Remove the manifest before an artefact is written again: while it is incomplete it must not be opened."""
    (folder / MANIFEST_NAME).unlink(missing_ok=True)


def require_known_format(path: Path, raw: Mapping[str, object], newest: int = FORMAT_VERSION) -> None:
    """Raise `CorruptArtifactError` where a newer ragray wrote a file, in a format later than ``newest``."""
    version = raw.get("format_version")
    if isinstance(version, int) and version > newest:
        raise CorruptArtifactError(
            f"{path}: format_version {version} was written by a newer ragray (this one reads {newest}); upgrade"
        )


def read_manifest(folder: Path, kind: str) -> Manifest:
    """Read a folder's manifest without looking at its files.

    Raises:
        NotAnArtifactError: no manifest, or one of another kind.
        CorruptArtifactError: the manifest cannot be read, or a newer ragray wrote it.
    """
    path = folder / MANIFEST_NAME
    advice = how_to_make(kind, folder)
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


def fact(folder: Path, manifest: Manifest, key: str, kind: type[T]) -> T:
    """Return a fact of a folder's manifest, which must be of a type.

    Raises:
        CorruptArtifactError: it is absent, or of another type; names file and key.
    """
    try:
        return TypeAdapter(kind).validate_python(manifest.facts.get(key), strict=True)
    except ValidationError as err:
        found = json.dumps(manifest.facts[key])[:80] if key in manifest.facts else "missing"
        raise CorruptArtifactError(
            f"{folder / MANIFEST_NAME}: facts.{key} is {found}, expected {getattr(kind, '__name__', kind)}; "
            f"{how_to_make(manifest.kind, folder)}"
        ) from err


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
    """Return whether the folder already holds this very artefact, whole: its stage then has nothing to do."""
    try:
        return open_artifact(folder, kind).fingerprint == fingerprint
    except (NotAnArtifactError, CorruptArtifactError):
        return False
