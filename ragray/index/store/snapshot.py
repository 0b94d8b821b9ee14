"""Snapshots: what an index holds at one moment. In: segments. Out: an immutable JSON file, and `CURRENT`, which names one of them."""

from __future__ import annotations

import contextlib
import fcntl
import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path

from pydantic import BaseModel, ConfigDict, SerializerFunctionWrapHandler, model_serializer, model_validator

from ragray.artifact.digest import fingerprint
from ragray.artifact.files import atomic_path, write_json
from ragray.artifact.kinds import CURRENT as CURRENT
from ragray.artifact.manifest import require_known_format
from ragray.config import EncoderConfig
from ragray.embed.encoder import EncoderFingerprint
from ragray.errors import ArtifactError, CorruptArtifactError, NotAnArtifactError, SnapshotConflictError
from ragray.index.store.fusion_params import FusionParams
from ragray.index.store.search_params import KEY, SearchParams, flattened, lifted

SNAPSHOT_FORMAT = 2
"""2 brought analyzers with a version in `Snapshot.lexical`, which a reader of format 1 would take for `plain`."""

TUNED_FORMAT = 4
"""A snapshot with `Snapshot.fusion`, which a reader of format 2 refuses; a snapshot without stays in format 2."""

OLD_TUNED_FORMAT = 3
"""Its weight was for scores scaled between the candidates of each query: of such a snapshot's fusion only k still holds."""

SNAPSHOTS = "snapshots"
SEGMENTS = "segments"
CURRENT_LOCK = ".current.lock"
CHECKSUM = "checksum"
"""Key in a snapshot's file that holds the fingerprint of all its other keys."""


class SegmentRef(BaseModel):
    """A segment of a snapshot, and the file of its tombstones (see `ragray.index.store.tombstones`), if it has any."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    num_rows: int
    tombstones: str = ""
    num_deleted: int = 0


class Snapshot(BaseModel):
    """An index at one moment: its segments and everything a reader must know before it searches.

    As a mapping, and so in its file, it holds the names of `SearchParams` among its own keys.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    format_version: int = SNAPSHOT_FORMAT
    parent: str | None
    created_at: str
    source: str
    """Fingerprint of what made it: embeddings and configuration of a build, or its parent and what changed."""
    build: str = ""
    """``source`` of the build that it goes back to, through all that was changed since."""
    segments: tuple[SegmentRef, ...]
    encoder: EncoderFingerprint
    encoder_config: EncoderConfig
    dim: int
    metric: str = "inner_product"
    factory: str
    search_params: SearchParams = SearchParams()
    lexical: str = "none"
    """The analyzer of the BM25 parts, with its version (`ragray.text.analyzer`); `none`: there are none."""
    recall_at_10: float | None
    """Share of the exact ten nearest that the index finds, None for exact search. Measured by leave-one-out: with rows of the
    index as queries, each left out of its own result. A snapshot made by sync or deletion keeps the figure of its parent."""
    fusion: FusionParams | None = None
    """What hybrid search was tuned to; kept by sync, deletion and compaction."""

    @model_validator(mode="before")
    @classmethod
    def _from_file(cls, raw: object) -> object:
        return lifted(raw) if isinstance(raw, dict) and KEY not in raw else raw

    @model_serializer(mode="wrap")
    def _to_file(self, fields: SerializerFunctionWrapHandler) -> dict[str, object]:
        raw = fields(self)
        encoder = {key: value for key, value in raw["encoder_config"].items() if key != "question_model" or value}
        kept = {key: value for key, value in raw.items() if key != "fusion" or value is not None}
        return flattened({**kept, "encoder_config": encoder})

    @property
    def num_rows(self) -> int:
        """Rows of all segments, deleted ones included."""
        return sum(segment.num_rows for segment in self.segments)

    @property
    def num_live(self) -> int:
        """Rows that a search can return."""
        return sum(segment.num_rows - segment.num_deleted for segment in self.segments)


def read_snapshot(index: Path, name: str | None = None) -> Snapshot:
    """Read one snapshot of an index folder, the current one by default.

    Raises:
        NotAnArtifactError: the folder is no index, or has no such snapshot.
        CorruptArtifactError: the snapshot's file cannot be read, differs from its checksum, or a newer ragray wrote it.
    """
    name = current_name(index) if name is None else name
    path = index / SNAPSHOTS / f"{name}.json"
    try:
        raw = json.loads(path.read_text(encoding="utf-8"))
        require_known_format(path, raw, TUNED_FORMAT)
        found = raw.pop(CHECKSUM, "none")
        snapshot = Snapshot.model_validate(raw)
        if found != fingerprint(raw) or snapshot.name != name:
            raise ValueError(f"it says {CHECKSUM} {found}, name {snapshot.name}; its content is {fingerprint(raw)}")
        return _untuned(snapshot) if snapshot.format_version == OLD_TUNED_FORMAT else snapshot
    except OSError as err:
        others = ", ".join(names(index)) or "none"
        raise NotAnArtifactError(f"{index}: has no snapshot '{name}' ({err.strerror}); there are: {others}") from err
    except (ValueError, AttributeError) as err:
        reason = " ".join(str(err).split())
        raise CorruptArtifactError(
            f"{path}: cannot be read as a snapshot ({reason}); promote another snapshot, or build the index again"
        ) from err


def _untuned(snapshot: Snapshot) -> Snapshot:
    """Return a snapshot without a weight and candidates that were fitted to other scores."""
    k = snapshot.fusion.k if snapshot.fusion else None
    return snapshot.model_copy(update={"fusion": None if k is None else FusionParams(k=k)})


def current_name(index: Path) -> str:
    """Return the name of the current snapshot; raises as `read_snapshot` does."""
    require_file_system(index)
    name = find_current(index)
    if name is None:
        found = (
            "the folder does not exist" if not index.exists() else "it has no CURRENT, so no build ever finished here"
        )
        raise NotAnArtifactError(
            f"{index}: not an index ({found}); run: ragray index build EMBEDDINGS --corpus CORPUS --out {index}"
        )
    return name


def find_current(index: Path) -> str | None:
    """Return the name that `CURRENT` holds, None where there is no such file yet; what it names may be damaged."""
    try:
        return (index / CURRENT).read_text(encoding="utf-8").strip()
    except (FileNotFoundError, NotADirectoryError):
        return None
    except UnicodeDecodeError as err:
        raise CorruptArtifactError(
            f"{index / CURRENT}: is not text (byte {err.start}); write the name of one of these into it: "
            f"{', '.join(names(index)) or 'none'}"
        ) from err


def names(index: Path) -> list[str]:
    """Return the names of all snapshots, oldest first."""
    return sorted(path.stem for path in (index / SNAPSHOTS).glob("[!.]*.json"))


def next_name(index: Path, source: str) -> str:
    """Return the name of the snapshot that follows: a counter and eight digits of what it is made from."""
    counters = [name.split("-")[0] for name in names(index)]
    counter = max((int(digits) for digits in counters if digits.isdecimal()), default=0) + 1
    return f"{counter:06}-{fingerprint([source, counter])[:8]}"


def successor(index: Path, parent: Snapshot, source: str, segments: Sequence[SegmentRef]) -> Snapshot:
    """Return the snapshot that follows ``parent`` with other segments; all else stays as it was."""
    changes = {
        "name": next_name(index, source),
        "parent": parent.name,
        "created_at": now(),
        "source": source,
        "segments": tuple(segments),
    }
    return parent.model_copy(update=changes)


def tuned(index: Path, parent: Snapshot, fusion: FusionParams | None) -> Snapshot:
    """Return the snapshot that follows ``parent`` with other values for hybrid search; all else stays as it was."""
    source = fingerprint([parent.source, "fusion", asdict(fusion) if fusion else None])
    changes = {"fusion": fusion, "format_version": TUNED_FORMAT if fusion else SNAPSHOT_FORMAT}
    return successor(index, parent, source, parent.segments).model_copy(update=changes)


def now() -> str:
    """Return the time as snapshots record it."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def publish_snapshot(index: Path, snapshot: Snapshot, *, expected: str | None) -> None:
    """Write a snapshot and let `CURRENT` name it, if `CURRENT` still names ``expected`` (None: there is none yet).

    Readers see the old one or the new one, never anything between.

    Raises:
        SnapshotConflictError: another writer was faster; nothing was changed.
        ArtifactError: ``index`` is no path of a file system.
    """
    content = snapshot.model_dump(mode="json")
    path = index / SNAPSHOTS / f"{snapshot.name}.json"
    # The segments are on disk before this is called. The snapshot's file comes before CURRENT: a process that is killed in between leaves
    # a snapshot that nobody opens, never a CURRENT that names what is not there.
    with changing_current(index, expected):
        if path.exists():
            raise SnapshotConflictError(
                f"{index}: another writer has taken the name {snapshot.name} meanwhile; run again on top of what it published"
            )
        write_json(path, {**content, CHECKSUM: fingerprint(content)})
        write_current(index, snapshot.name)


@contextlib.contextmanager
def holding_current(index: Path) -> Iterator[str | None]:
    """Lock `CURRENT` for the length of the block, which should be short; yield the name that it holds."""
    require_file_system(index)
    index.mkdir(parents=True, exist_ok=True)
    # opened to write: on NFS an exclusive lock needs that (see `artifact.lock`)
    with (index / CURRENT_LOCK).open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield find_current(index)


@contextlib.contextmanager
def changing_current(index: Path, expected: str | None) -> Iterator[None]:
    """Hold the right to move `CURRENT` once it is seen to name ``expected``; raises as `publish_snapshot` does."""
    with holding_current(index) as found:
        if found != expected:
            raise SnapshotConflictError(
                f"{index}: the current snapshot is {found or 'gone'}, this change was made for {expected or 'a new index'}: "
                "another writer was faster; run again on top of the new one"
            )
        yield


def write_current(index: Path, name: str) -> None:
    """Let `CURRENT` name a snapshot; to be called inside `changing_current`."""
    with atomic_path(index / CURRENT) as path:
        path.write_text(name + "\n", encoding="utf-8")


def require_file_system(index: Path) -> None:
    """Raise `ArtifactError` for a URI: an index is memory-mapped, and changed by atomic renames and locks."""
    if scheme := re.match(r"([A-Za-z][A-Za-z0-9+.-]+):/", str(index)):
        raise ArtifactError(
            f"{index}: an index needs a file system (memory-mapped files, atomic renames), {scheme[1]}: is none; "
            "use a local or shared folder, and copy a finished index from there"
        )
