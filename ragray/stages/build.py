"""The stage `index build`. In: embeddings and their corpus. Out: segments, built in parallel, and a snapshot of them."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from time import monotonic

import faiss
import numpy as np

from ragray.artifact.digest import fingerprint
from ragray.artifact.files import atomic_path
from ragray.config import Config, IndexConfig
from ragray.corpus.table import Corpus
from ragray.embed.blocks import Embeddings
from ragray.errors import ArtifactError
from ragray.execute.port import Executor, Resources, Task, run_task
from ragray.index.plan.choose import IndexPlan, plan_index
from ragray.index.plan.tune import tuned_snapshot
from ragray.index.search.reader import IndexReader
from ragray.index.store.lifecycle import TRAINED
from ragray.index.store.output import IndexOutput, index_output
from ragray.index.store.snapshot import SEGMENTS, SegmentRef, Snapshot, next_name, now, read_snapshot
from ragray.index.write.build import SegmentPlan, build_segment, plan_segments, sample_rows, train_empty_index
from ragray.index.write.segments import building_bytes, is_written, remove_half_written

BUILT = "%s: built before from these embeddings and changed since (now %s): left as it is; ragray index snapshots, promote go back"

logger = logging.getLogger("ragray")


@dataclass(frozen=True, slots=True)
class IndexReport:
    """What a run of `index build` did; ``reused``: it had been built before, and perhaps changed since by sync, delete or compact."""

    snapshot: Snapshot
    seconds: float
    reused: bool
    reason: str


class BuildSegments(Task[SegmentPlan]):
    """Builds segments, each from its own copy of the trained empty index."""

    def set_up(self, empty: np.ndarray, lexical: str) -> None:
        """Keep the empty index (``empty``: serialised, uint8)."""
        self._empty, self._lexical = empty, lexical

    def do(self, unit: SegmentPlan) -> int:
        """Build a segment; it counts its rows."""
        empty = faiss.deserialize_index(self._empty.copy())
        build_segment(unit, self.folder / SEGMENTS / unit.name, empty, lexical=self._lexical)
        return unit.num_rows


def build_index(embeddings: Path, corpus: Path, out: Path, config: Config, executor: Executor) -> IndexReport:
    """Build the segments that are missing, tune the search, publish a snapshot and let `CURRENT` name it.

    Raises:
        NotAnArtifactError: embeddings or corpus are not finished.
        ArtifactError: the embeddings were made from another corpus, or hold no vector.
        ArtifactBusyError: another process writes to ``out``.
        IndexBudgetError: memory, latency and recall asked for do not go together; the segments are kept for the next try.
    """
    started = monotonic()
    vectors, passages = Embeddings.open(embeddings.resolve()), Corpus.open(corpus.resolve())
    _require_match(vectors, passages)
    plan = plan_index(vectors.num_rows, vectors.encoder.dim, config.index)
    key = fingerprint([vectors.content, config.index.model_dump(mode="json") | {"lexical": config.index.analyzer}])
    with index_output(out) as output:
        current = _current(out)
        if current and current.build == key and _is_whole(out):
            if current.source != key:
                logger.info(BUILT, out, current.name)
            return IndexReport(current, monotonic() - started, True, plan.reason)
        segments = plan_segments(
            vectors, passages, config.index.segment_rows, _segment_key(vectors, plan, config.index)
        )
        _build_missing(output, segments, vectors, plan, config.index, executor)
        snapshot = tuned_snapshot(
            out, _snapshot(out, key, current, segments, vectors, plan, config.index), config.index
        )
        output.publish(snapshot)
        shutil.rmtree(out / TRAINED, ignore_errors=True)
        return IndexReport(snapshot, monotonic() - started, False, plan.reason)


def _require_match(vectors: Embeddings, corpus: Corpus) -> None:
    if vectors.corpus != corpus.fingerprint:
        raise ArtifactError(
            f"{vectors.folder}: was made from another corpus than {corpus.folder}; "
            f"run: ragray embed {corpus.folder} --out {vectors.folder}"
        )
    if not vectors.num_rows:
        raise ArtifactError(
            f"{vectors.folder}: holds no vector, {vectors.num_quarantined} passages are in its quarantine; "
            f"mend them, then run: ragray embed {corpus.folder} --out {vectors.folder}"
        )


def _segment_key(vectors: Embeddings, plan: IndexPlan, config: IndexConfig) -> str:
    """Name what a segment's content depends on: another latency or recall asked for builds none anew."""
    sample = [plan.train_rows, config.seed] if plan.nlist else []
    return fingerprint([vectors.content, plan.factory, config.segment_rows, config.analyzer, *sample])


def _current(out: Path) -> Snapshot | None:
    try:
        return read_snapshot(out)
    except ArtifactError:
        return None


def _is_whole(out: Path) -> bool:
    try:
        IndexReader.open(out)
    except ArtifactError:
        return False
    return True


def _trained(out: Path, vectors: Embeddings, plan: IndexPlan, config: IndexConfig) -> np.ndarray:
    """Return the empty index, serialised; one that an interrupted run trained is taken up."""
    path = out / TRAINED / f"{_segment_key(vectors, plan, config)}.faiss"
    if not path.is_file():
        empty = train_empty_index(plan, sample_rows(vectors, plan.train_rows, config.seed), config)
        with atomic_path(path) as temporary:
            faiss.write_index(empty, str(temporary))
    return np.fromfile(path, dtype=np.uint8)


def _build_missing(
    output: IndexOutput,
    segments: Sequence[SegmentPlan],
    vectors: Embeddings,
    plan: IndexPlan,
    config: IndexConfig,
    executor: Executor,
) -> None:
    """Build the segments that no earlier run finished."""
    dim = vectors.encoder.dim
    todo = [segment for segment in segments if not is_written(output.folder, segment, dim)]
    if not todo:
        return
    empty = _trained(output.folder, vectors, plan, config)
    remove_half_written(output.folder)
    run_task(
        executor,
        BuildSegments,
        todo,
        output.folder,
        empty,
        config.analyzer,
        stage="index build",
        total=sum(segment.num_rows for segment in todo),
        counted="passages",
        resources=Resources(len(todo), memory_bytes=tuple(building_bytes(segment, dim) for segment in todo)),
    )


def _snapshot(
    out: Path,
    key: str,
    parent: Snapshot | None,
    segments: list[SegmentPlan],
    vectors: Embeddings,
    plan: IndexPlan,
    config: IndexConfig,
) -> Snapshot:
    return Snapshot(
        name=next_name(out, key),
        parent=parent.name if parent else None,
        created_at=now(),
        source=key,
        build=key,
        segments=tuple(SegmentRef(name=segment.name, num_rows=segment.num_rows) for segment in segments),
        encoder=vectors.encoder,
        encoder_config=vectors.encoder_config,
        dim=vectors.encoder.dim,
        factory=plan.factory,
        search_params=plan.search_params,
        lexical=config.analyzer,
        recall_at_10=None,
    )
