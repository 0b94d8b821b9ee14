"""The stage `index compact`. In: an index. Out: a snapshot of the live rows alone, in segments written and trained afresh, in parallel."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from time import monotonic

import faiss
import numpy as np

from ragray.artifact.digest import fingerprint
from ragray.config import Config, IndexConfig
from ragray.errors import ArtifactError, ConfigError
from ragray.execute.port import Executor, Resources, Task, run_task
from ragray.index.plan.choose import IndexPlan, plan_index
from ragray.index.plan.tune import tuned_snapshot
from ragray.index.store.columns import COLUMNS_FILE
from ragray.index.store.live import live_batches
from ragray.index.store.output import changed_index
from ragray.index.store.segment import write_segment
from ragray.index.store.snapshot import SEGMENTS, SNAPSHOT_FORMAT, SegmentRef, Snapshot, successor
from ragray.index.write.build import train_empty_index
from ragray.index.write.segments import building_bytes, is_written, remove_half_written
from ragray.text.analyzer import settings_of

ANALYSIS = {"lexical", "fold_traditional", "chinese_words"}
"""Keys of `IndexConfig` that make the analyzer."""
PLANNING = {"type", "exact_up_to_rows", "memory_gib", "p95_ms", "min_recall", "nlist"}
"""Keys of `IndexConfig` that decide the FAISS type."""


@dataclass(frozen=True, slots=True)
class CompactReport:
    """What a compaction did: rows forgotten, segments before; ``reused``: there was nothing to gain, and nothing was published."""

    snapshot: Snapshot
    num_forgotten: int
    num_segments_before: int
    seconds: float
    reused: bool
    reason: str


@dataclass(frozen=True, slots=True)
class LiveRows:
    """A segment to write: live rows ``start`` to ``stop`` of a snapshot."""

    name: str
    start: int
    stop: int

    @property
    def num_rows(self) -> int:
        """Rows of the segment."""
        return self.stop - self.start


class CopyLiveRows(Task[LiveRows]):
    """Writes live rows of a snapshot into segments, each from its own copy of the trained empty index."""

    def set_up(self, base: Snapshot, empty: np.ndarray, lexical: str) -> None:
        """Keep the empty index (``empty``: serialised, uint8)."""
        self._base, self._empty, self._lexical = base, empty, lexical

    def do(self, unit: LiveRows) -> int:
        """Write a segment; it counts its rows."""
        live = live_batches(self.folder, self._base, unit.start, unit.stop)
        blocks = ((block.passages, block.vectors) for block in live)
        empty = faiss.deserialize_index(self._empty.copy())
        target = self.folder / SEGMENTS / unit.name
        write_segment(target, blocks, num_rows=unit.num_rows, empty_index=empty, lexical=self._lexical)
        return unit.num_rows


def compact_index(index: Path, config: Config, executor: Executor) -> CompactReport:
    """Merge the segments of an index into new ones of ``config.index.segment_rows`` without the deleted rows.

    They are planned, trained and tuned as a build over the same passages in the same order would; the analyzer of the BM25
    part stays unless the configuration names some of `ANALYSIS`; then it is the newest version with those, the others as they
    were. Killed and run again, it keeps the segments that are finished. The old segments stay for readers and for a rollback
    until `collect_garbage`.

    Raises:
        NotAnArtifactError: the folder is no index.
        ArtifactError: every row is deleted.
        ConfigError: an option of the analyzer is asked for where the index has no BM25 part.
        ArtifactBusyError: another process is writing to the index.
        SnapshotConflictError: another snapshot was made current meanwhile.
        IndexBudgetError: recall is below ``config.index.min_recall``; the old snapshot stays current.
    """
    started = monotonic()
    with changed_index(index) as (output, base):
        if not base.num_live:
            advice = "build a new index" if base.factory.startswith("HNSW") else "sync it with a corpus"
            raise ArtifactError(f"{index}: all passages of snapshot {base.name} are deleted; {advice}")
        plan = plan_index(base.num_live, base.dim, config.index)
        before, forgotten = len(base.segments), base.num_rows - base.num_live
        if _is_compact(index, base, plan, config.index):
            return CompactReport(base, 0, before, monotonic() - started, True, "it is compact already")
        lexical = _analyzer(base, config.index)
        settings = config.index.model_dump(mode="json") | {"lexical": lexical}
        key = fingerprint([base.name, base.source, settings])
        parts = _parts(base.num_live, config.index.segment_rows, key)
        _write_missing(index, base, parts, plan, config.index, lexical, executor)
        refs = [SegmentRef(name=part.name, num_rows=part.num_rows) for part in parts]
        changes = {
            "factory": plan.factory,
            "search_params": plan.search_params,
            "lexical": lexical,
            "recall_at_10": None,
        }
        if lexical != base.lexical:
            changes["format_version"] = max(base.format_version, SNAPSHOT_FORMAT)
        snapshot = successor(index, base, key, refs).model_copy(update=changes)
        snapshot = tuned_snapshot(index, snapshot, config.index)
        output.publish(snapshot)
    return CompactReport(snapshot, forgotten, before, monotonic() - started, False, plan.reason)


def _is_compact(index: Path, base: Snapshot, plan: IndexPlan, config: IndexConfig) -> bool:
    """Return whether a compaction would change nothing but the names, and nothing that the configuration asks for by name."""
    number, asked = -(-base.num_live // config.segment_rows), config.model_fields_set
    changes = (
        base.num_live < base.num_rows,
        not all((index / SEGMENTS / ref.name / COLUMNS_FILE).exists() for ref in base.segments),
        len(base.segments) > number or ("segment_rows" in asked and len(base.segments) != number),
        asked & PLANNING and plan.factory != base.factory,
        _analyzer(base, config) != base.lexical,
        plan.nlist and "nprobe" in asked and config.nprobe not in (0, base.search_params.nprobe),
        plan.nlist and "over_retrieve" in asked and config.over_retrieve not in (0, base.search_params.over_retrieve),
        "min_recall" in asked and base.recall_at_10 is not None and base.recall_at_10 < config.min_recall,
    )
    return not any(changes)


def _analyzer(base: Snapshot, config: IndexConfig) -> str:
    """Return the analyzer of the new segments: the old one, or the newest with the settings that are given by name."""
    asked = config.model_fields_set & ANALYSIS
    if not asked:
        return base.lexical
    if "lexical" in asked and config.lexical == "none":
        return "none"
    if "lexical" not in asked and base.lexical == "none":
        raise ConfigError(
            f"index.{min(asked)} has no effect: snapshot {base.name} has no BM25 part; give it one with index.lexical=english"
        )
    return IndexConfig.model_validate(settings_of(base.lexical) | config.model_dump(include=asked)).analyzer


def _parts(num_live: int, segment_rows: int, key: str) -> list[LiveRows]:
    """Cut the live rows into segments of equal size, as a build cuts the rows of a corpus."""
    count = -(-num_live // segment_rows)
    bounds = [num_live * number // count for number in range(count + 1)]
    return [LiveRows(f"{key}-{number:05}", start, stop) for number, (start, stop) in enumerate(pairwise(bounds))]


def _sample(index: Path, base: Snapshot, plan: IndexPlan, config: IndexConfig) -> np.ndarray:
    """Draw at most ``plan.train_rows`` of the live rows, (S, D) float32; none for a type that is not trained."""
    size = min(plan.train_rows, base.num_live)
    chosen = np.sort(np.random.default_rng(config.seed).choice(base.num_live, size=size, replace=False))
    sample = np.empty((size, base.dim), dtype=np.float32)
    first = 0
    for block in live_batches(index, base):
        here = slice(*np.searchsorted(chosen, [first, first + len(block.rows_B)]))
        if here.start < here.stop:
            sample[here] = block.vectors[chosen[here] - first]
        first += len(block.rows_B)
    return sample


def _write_missing(
    index: Path,
    base: Snapshot,
    parts: Sequence[LiveRows],
    plan: IndexPlan,
    config: IndexConfig,
    lexical: str,
    executor: Executor,
) -> None:
    """Write the segments that no earlier run finished."""
    todo = [part for part in parts if not is_written(index, part, base.dim)]
    if not todo:
        return
    empty = train_empty_index(plan, _sample(index, base, plan, config), config)
    remove_half_written(index)
    run_task(
        executor,
        CopyLiveRows,
        todo,
        index,
        base,
        faiss.serialize_index(empty),
        lexical,
        stage="index compact",
        total=sum(part.num_rows for part in todo),
        counted="passages",
        resources=Resources(len(todo), memory_bytes=tuple(building_bytes(part, base.dim) for part in todo)),
    )
