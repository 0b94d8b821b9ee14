"""Inspection of an index. In: its folder. Out: sizes, list sizes, parameters and measurements of a snapshot, as text and as JSON."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

import faiss
import numpy as np
from pydantic import JsonValue

from ragray.artifact.manifest import open_artifact
from ragray.errors import CorruptArtifactError
from ragray.index.plan.tune import TuningPoint, curve_path, read_curve
from ragray.index.store.fusion_params import FusionParams
from ragray.index.store.postings import LEXICAL, Postings
from ragray.index.store.search_params import SearchParams, flattened
from ragray.index.store.segment import FAISS_FILE
from ragray.index.store.snapshot import SEGMENTS, SegmentRef, Snapshot, current_name, names, read_snapshot


@dataclass(frozen=True, slots=True)
class ListSizes:
    """How evenly the rows of a segment lie over its IVF lists; ``imbalance`` is 1 where all are equal, 2 where a search costs double."""

    sizes: tuple[int, ...]
    smallest: int
    median: float
    largest: int
    imbalance: float


@dataclass(frozen=True, slots=True)
class SegmentInspection:
    """One segment: rows, bytes by file, its FAISS type; terms and postings of its lexical part, if it has one."""

    name: str
    num_rows: int
    num_live: int
    num_bytes: dict[str, int]
    faiss_type: str
    nlist: int
    lists: ListSizes | None
    num_terms: int
    num_postings: int


@dataclass(frozen=True, slots=True)
class IndexInspection:
    """A snapshot with its segments; ``bytes_per_vector`` counts live rows only."""

    index: str
    snapshot: str
    is_current: bool
    created_at: str
    snapshots: tuple[str, ...]
    num_rows: int
    num_live: int
    dim: int
    metric: str
    encoder: str
    factory: str
    search_params: SearchParams
    lexical: str
    recall_at_10: float | None
    fusion: FusionParams | None
    memory_bytes_per_vector: float
    disk_bytes_per_vector: float
    segments: tuple[SegmentInspection, ...]
    tuning: tuple[TuningPoint, ...]

    def as_json(self) -> dict[str, JsonValue]:
        """Return everything as JSON, search parameters among the other keys; the sizes of the single lists are left to the plot."""

        def shown(fields: dict[str, JsonValue]) -> dict[str, JsonValue]:
            return flattened({name: value for name, value in fields.items() if name != "sizes"})

        raw: dict[str, JsonValue] = json.loads(json.dumps(asdict(self)), object_hook=shown)
        return raw

    def lines(self) -> list[str]:
        """Return everything as lines of text."""
        recall = "exact" if self.recall_at_10 is None else f"{self.recall_at_10:.3f}"
        params = {name: value for name, value in asdict(self.search_params).items() if value}
        search = ", ".join(f"{name} {value}" for name, value in params.items())
        head = {
            "snapshot": f"{self.snapshot}{' (current)' if self.is_current else ''}, {self.created_at}",
            "snapshots": ", ".join(self.snapshots),
            "rows": f"{self.num_live:,} live, {self.num_rows - self.num_live:,} deleted, {len(self.segments)} segment(s)",
            "vectors": f"{self.dim} dimensions, {self.metric}, by {self.encoder}",
            "FAISS": f"{self.factory}, {search}, recall@10 {recall}",
            "lexical": self.lexical,
            "hybrid": f"tuned to {self.fusion}" if self.fusion else "not tuned",
            "per vector": f"{self.memory_bytes_per_vector:,.0f} bytes in memory, {self.disk_bytes_per_vector:,.0f} on disk",
        }
        return [
            *(f"{key:<10} {value}" for key, value in head.items()),
            *(line for s in self.segments for line in _lines(s)),
        ]


def _lines(segment: SegmentInspection) -> list[str]:
    sizes = ", ".join(f"{name} {_size(size)}" for name, size in segment.num_bytes.items())
    lines = [
        f"segment {segment.name}: {segment.num_live:,} of {segment.num_rows:,} rows live, {segment.faiss_type}",
        f"  {sizes}",
    ]
    if segment.lists:
        found = segment.lists
        lines.append(
            f"  {segment.nlist:,} lists of {found.smallest:,} to {found.largest:,} rows, median {found.median:,.0f}, "
            f"imbalance {found.imbalance:.2f}"
        )
    if segment.num_terms:
        lines.append(f"  {segment.num_terms:,} terms, {segment.num_postings:,} postings")
    return lines


def _size(num_bytes: int) -> str:
    for unit, power in (("GiB", 30), ("MiB", 20), ("KiB", 10)):
        if num_bytes >= 1 << power:
            return f"{num_bytes / (1 << power):,.1f} {unit}"
    return f"{num_bytes} bytes"


def inspect_index(index: Path, *, snapshot: str | None = None) -> IndexInspection:
    """Describe a snapshot (the current one by default).

    Raises:
        NotAnArtifactError, CorruptArtifactError: there is no such snapshot, or it or a segment cannot be read.
    """
    found = read_snapshot(index, snapshot)
    segments = tuple(_segment(index, ref, found) for ref in found.segments)
    live = max(found.num_live, 1)
    memory = sum(segment.num_bytes.get(FAISS_FILE, 0) for segment in segments)
    disk = sum(sum(segment.num_bytes.values()) for segment in segments)
    return IndexInspection(
        index=str(index),
        snapshot=found.name,
        is_current=current_name(index) == found.name,
        created_at=found.created_at,
        snapshots=tuple(names(index)),
        num_rows=found.num_rows,
        num_live=found.num_live,
        dim=found.dim,
        metric=found.metric,
        encoder=found.encoder.model,
        factory=found.factory,
        search_params=found.search_params,
        lexical=found.lexical,
        recall_at_10=found.recall_at_10,
        fusion=found.fusion,
        memory_bytes_per_vector=memory / live,
        disk_bytes_per_vector=disk / live,
        segments=segments,
        tuning=read_curve(curve_path(index, found.name)),
    )


def _segment(index: Path, ref: SegmentRef, snapshot: Snapshot) -> SegmentInspection:
    folder = index / SEGMENTS / ref.name
    manifest = open_artifact(folder, "segment")
    faiss_type, lists = _faiss(folder / FAISS_FILE)
    postings = Postings.open(folder / LEXICAL, ref.num_rows) if snapshot.lexical != "none" else None
    return SegmentInspection(
        name=ref.name,
        num_rows=ref.num_rows,
        num_live=ref.num_rows - ref.num_deleted,
        num_bytes={entry.path: entry.num_bytes for entry in manifest.files},
        faiss_type=faiss_type,
        nlist=len(lists.sizes) if lists else 0,
        lists=lists,
        num_terms=len(postings.terms_T) if postings else 0,
        num_postings=len(postings.rows_P) if postings else 0,
    )


def _faiss(path: Path) -> tuple[str, ListSizes | None]:
    """Return the class of a FAISS index (of the one inside, where vectors are rotated first) and the sizes of its lists."""
    try:
        index = faiss.read_index(str(path), faiss.IO_FLAG_MMAP_IFC)
    except RuntimeError as err:
        raise CorruptArtifactError(f"{path}: cannot be read; run: ragray index verify INDEX") from err
    name = type(index).__name__
    if isinstance(index, faiss.IndexPreTransform):
        name += f"({type(faiss.downcast_index(index.index)).__name__})"
    ivf = faiss.try_extract_index_ivf(index)
    if ivf is None:
        return name, None
    invlists = faiss.downcast_index(ivf).invlists
    sizes = np.array([invlists.list_size(number) for number in range(ivf.nlist)])
    imbalance = float(len(sizes) * np.square(sizes, dtype=np.float64).sum() / max(float(sizes.sum()) ** 2, 1.0))
    largest, smallest, median = int(sizes.max()), int(sizes.min()), float(np.median(sizes))
    return name, ListSizes(tuple(sizes.tolist()), smallest, median, largest, imbalance)
