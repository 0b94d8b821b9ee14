"""Runs `index build` on Ray. In: embeddings and their corpus. Out: segments, built in parallel as tasks, and a snapshot of them."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path
from time import monotonic

import faiss
import numpy as np

from ragray import artifact
from ragray.cluster.session import session
from ragray.config import Config, IndexConfig
from ragray.corpus.table import Corpus
from ragray.embed.shards import Embeddings
from ragray.errors import ArtifactError, RagrayError
from ragray.index.build import SegmentPlan, build_segment, plan_segments, sample_rows, train_empty_index
from ragray.index.plan import IndexPlan, plan_index
from ragray.index.search import IndexReader
from ragray.index.segment import Segment
from ragray.index.snapshot import (
    SEGMENTS,
    SegmentRef,
    Snapshot,
    find_current,
    next_name,
    now,
    publish_snapshot,
    read_snapshot,
    require_file_system,
)
from ragray.index.tune import tuned_snapshot
from ragray.progress import Progress

TRAINED = "trained"
"""Folder of an index that keeps trained lists and codes until the segments that need them are built."""


@dataclass(frozen=True, slots=True)
class IndexReport:
    """What a run of `index build` did."""

    snapshot: Snapshot
    seconds: float
    reused: bool
    reason: str


def build_index(
    embeddings: Path, corpus: Path, out: Path, config: Config, *, address: str | None = None
) -> IndexReport:
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
    key = artifact.fingerprint([vectors.manifest.fingerprint, config.index.model_dump(mode="json")])
    require_file_system(out)
    with artifact.exclusive(out):
        expected = find_current(out)
        current = _current(out)
        if current and current.source == key and _is_whole(out):
            return IndexReport(current, monotonic() - started, True, plan.reason)
        segments = plan_segments(
            vectors, passages, config.index.segment_rows, _segment_key(vectors, plan, config.index)
        )
        todo = [segment for segment in segments if not _is_built(out, segment, vectors.encoder.dim)]
        if todo:
            empty = _trained(out, vectors, plan, config.index)
            with session(address), Progress("index", total=sum(s.num_rows for s in todo), unit="passages") as progress:
                _run(todo, out, empty, config.index.lexical, progress)
        snapshot = tuned_snapshot(
            out, _snapshot(out, key, current, segments, vectors, plan, config.index), config.index
        )
        publish_snapshot(out, snapshot, expected=expected)
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
    return artifact.fingerprint(
        [vectors.manifest.fingerprint, plan.factory, config.segment_rows, config.lexical, *sample]
    )


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


def _is_built(out: Path, segment: SegmentPlan, dim: int) -> bool:
    folder = out / SEGMENTS / segment.name
    try:
        Segment.open(folder, num_rows=segment.num_rows, dim=dim)
    except ArtifactError:
        shutil.rmtree(folder, ignore_errors=True)
        return False
    return True


def _trained(out: Path, vectors: Embeddings, plan: IndexPlan, config: IndexConfig) -> np.ndarray:
    """Return the empty index, serialised; one that an interrupted run trained is taken up."""
    path = out / TRAINED / f"{_segment_key(vectors, plan, config)}.faiss"
    if not path.is_file():
        empty = train_empty_index(plan, sample_rows(vectors, plan.train_rows, config.seed), config)
        with artifact.atomic_path(path) as temporary:
            faiss.write_index(empty, str(temporary))
    return np.fromfile(path, dtype=np.uint8)


def _run(todo: list[SegmentPlan], out: Path, empty: np.ndarray, lexical: str, progress: Progress) -> None:
    """Build segments as tasks; an error on purpose in one of them is raised here as it was there."""
    import ray
    from ray.exceptions import RayTaskError

    for litter in (out / SEGMENTS).glob(".*.tmp"):  # of tasks that were killed
        shutil.rmtree(litter, ignore_errors=True)

    empty_bytes = ray.put(empty)
    build = ray.remote(_build)
    waiting = {build.remote(plan, str(out.resolve()), empty_bytes, lexical): plan for plan in todo}
    while waiting:
        [ready], _ = ray.wait(list(waiting), num_returns=1)
        try:
            ray.get(ready)
        except RayTaskError as err:
            if isinstance(err.cause, RagrayError):
                raise err.cause from err
            raise
        progress.advance(waiting.pop(ready).num_rows)


def _build(plan: SegmentPlan, out: str, empty_bytes: np.ndarray, lexical: str) -> None:
    empty = faiss.deserialize_index(empty_bytes.copy())
    build_segment(plan, Path(out) / SEGMENTS / plan.name, empty, lexical=lexical)


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
        segments=tuple(SegmentRef(name=segment.name, num_rows=segment.num_rows) for segment in segments),
        encoder=vectors.encoder,
        encoder_config=vectors.encoder_config,
        dim=vectors.encoder.dim,
        factory=plan.factory,
        nprobe=plan.nprobe,
        ef_search=plan.ef_search,
        over_retrieve=plan.over_retrieve,
        lexical=config.lexical,
        recall_at_10=None,
    )
