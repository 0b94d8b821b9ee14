"""Snapshots: what an index holds at one moment. In: segments. Out: an immutable JSON file, and `CURRENT`, which names one of them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict

from ragray.artifact import FORMAT_VERSION, atomic_path, fingerprint, write_json
from ragray.config import EncoderConfig
from ragray.embed.encoder import EncoderFingerprint
from ragray.errors import CorruptArtifactError, NotAnArtifactError

CURRENT = "CURRENT"
SNAPSHOTS = "snapshots"
SEGMENTS = "segments"


class SegmentRef(BaseModel):
    """A segment of a snapshot; ``deleted`` are the rows that its tombstones hide."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    num_rows: int
    deleted: tuple[int, ...] = ()


class Snapshot(BaseModel):
    """An index at one moment: its segments and everything a reader must know before it searches."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    format_version: int = FORMAT_VERSION
    parent: str | None
    created_at: str
    source: str
    """Fingerprint of the embeddings, the corpus and the configuration it was built from."""
    segments: tuple[SegmentRef, ...]
    encoder: EncoderFingerprint
    encoder_config: EncoderConfig
    dim: int
    metric: str = "inner_product"
    factory: str
    nprobe: int
    recall_at_10: float | None
    """Share of the exact ten nearest that the index finds, measured on held-out rows; None for exact search."""

    @property
    def num_rows(self) -> int:
        """Rows of all segments, deleted ones included."""
        return sum(segment.num_rows for segment in self.segments)


def read_snapshot(index: Path, name: str | None = None) -> Snapshot:
    """Read one snapshot of an index folder, the current one by default.

    Raises:
        NotAnArtifactError: the folder is no index, or has no such snapshot.
        CorruptArtifactError: the snapshot's file cannot be read, or a newer ragray wrote it.
    """
    name = name or current_name(index)
    path = index / SNAPSHOTS / f"{name}.json"
    if not path.is_file():
        raise NotAnArtifactError(f"{index}: has no snapshot '{name}'; there are: {', '.join(names(index)) or 'none'}")
    try:
        raw = json.loads(path.read_text(encoding="utf-8"))
        version = raw.get("format_version")
        if isinstance(version, int) and version > FORMAT_VERSION:
            raise CorruptArtifactError(
                f"{path}: format_version {version} was written by a newer ragray (this one reads {FORMAT_VERSION}); upgrade"
            )
        return Snapshot.model_validate(raw)
    except (ValueError, AttributeError) as err:
        reason = " ".join(str(err).split())
        raise CorruptArtifactError(f"{path}: cannot be read as a snapshot ({reason}); build the index again") from err


def current_name(index: Path) -> str:
    """Return the name of the current snapshot."""
    path = index / CURRENT
    if not path.is_file():
        found = (
            "the folder does not exist" if not index.exists() else "it has no CURRENT, so no build ever finished here"
        )
        raise NotAnArtifactError(
            f"{index}: not an index ({found}); run: ragray index build EMBEDDINGS --corpus CORPUS --out {index}"
        )
    return path.read_text(encoding="utf-8").strip()


def names(index: Path) -> list[str]:
    """Return the names of all snapshots, oldest first."""
    return sorted(path.stem for path in (index / SNAPSHOTS).glob("*.json"))


def next_name(index: Path, source: str) -> str:
    """Return the name of the snapshot that follows: a counter and eight digits of what it is made from."""
    counter = max((int(name.split("-")[0]) for name in names(index)), default=0) + 1
    return f"{counter:06}-{fingerprint([source, counter])[:8]}"


def publish_snapshot(index: Path, snapshot: Snapshot) -> None:
    """Write a snapshot, then let `CURRENT` name it; readers see the old one or the new one, never anything between."""
    content: dict[str, Any] = snapshot.model_dump(mode="json")
    write_json(index / SNAPSHOTS / f"{snapshot.name}.json", content)
    with atomic_path(index / CURRENT) as path:
        path.write_text(snapshot.name + "\n", encoding="utf-8")
