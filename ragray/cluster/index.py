"""Runs `index build` on Ray. In: embeddings and their corpus. Out: segments, built in parallel as tasks, and a snapshot of them."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from time import monotonic

import faiss
import numpy as np
import pyarrow.parquet as pq

from ragray import artifact
from ragray.cluster.session import session
from ragray.config import Config, IndexConfig
from ragray.corpus.table import Corpus
from ragray.embed.shards import Embeddings
from ragray.errors import ArtifactError, RagrayError
from ragray.index.build import SegmentPlan, build_segment, measure_recall, plan_segments, train_empty_index
from ragray.index.plan import IndexPlan, plan_index
from ragray.index.search import IndexReader
from ragray.index.segment import Segment
from ragray.index.snapshot import SEGMENTS, SegmentRef, Snapshot, next_name, publish_snapshot, read_snapshot
from ragray.progress import Progress


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
    """Build the segments that are missing, check them, publish a snapshot of them and let `CURRENT` name it.

    Raises:
        NotAnArtifactError: embeddings or corpus are not finished.
        ArtifactError: the embeddings were made from another corpus.
        ArtifactBusyError: another process writes to ``out``.
    """
    started = monotonic()
    vectors, passages = Embeddings.open(embeddings.resolve()), Corpus.open(corpus)
    if vectors.corpus != passages.fingerprint:
        raise ArtifactError(
            f"{embeddings}: was made from another corpus than {corpus}; run: ragray embed {corpus} --out {embeddings}"
        )
    block_rows = [int(pq.read_metadata(path).num_rows) for path in vectors.blocks]
    plan = plan_index(min(sum(block_rows), config.index.segment_rows), config.index)
    key = artifact.fingerprint([vectors.manifest.fingerprint, config.index.model_dump(mode="json")])
    with artifact.exclusive(out):
        current = _current(out)
        if current and current.source == key and _is_whole(out):
            return IndexReport(current, monotonic() - started, True, plan.reason)
        segments = plan_segments(vectors, block_rows, config.index.segment_rows, key)
        todo = [segment for segment in segments if not _is_built(out, segment, vectors.encoder.dim)]
        if todo:
            empty = train_empty_index(plan, vectors, config.index)
            with session(address), Progress("index", total=sum(s.num_rows for s in todo), unit="passages") as progress:
                _run(todo, corpus, out, empty, progress)
        snapshot = _snapshot(out, key, current, segments, vectors, plan, config.index)
        publish_snapshot(out, snapshot)
        return IndexReport(snapshot, monotonic() - started, False, plan.reason)


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


def _run(todo: list[SegmentPlan], corpus: Path, out: Path, empty: faiss.Index, progress: Progress) -> None:
    """Build segments as tasks; an error on purpose in one of them is raised here as it was there."""
    import ray
    from ray.exceptions import RayTaskError

    for litter in (out / SEGMENTS).glob(".*.tmp"):  # of tasks that were killed
        shutil.rmtree(litter, ignore_errors=True)

    empty_bytes = ray.put(faiss.serialize_index(empty))
    build = ray.remote(_build)
    folder = str(out.resolve())
    waiting = {build.remote(plan, str(corpus.resolve()), folder, empty_bytes): plan for plan in todo}
    while waiting:
        [ready], _ = ray.wait(list(waiting), num_returns=1)
        try:
            ray.get(ready)
        except RayTaskError as err:
            if isinstance(err.cause, RagrayError):
                raise err.cause from err
            raise
        progress.advance(waiting.pop(ready).num_rows)


def _build(plan: SegmentPlan, corpus: str, out: str, empty_bytes: np.ndarray) -> None:
    empty = faiss.deserialize_index(empty_bytes.copy())
    build_segment(plan, Path(corpus), Path(out) / SEGMENTS / plan.name, empty)


def _snapshot(
    out: Path,
    key: str,
    parent: Snapshot | None,
    segments: list[SegmentPlan],
    vectors: Embeddings,
    plan: IndexPlan,
    config: IndexConfig,
) -> Snapshot:
    dim = vectors.encoder.dim
    recall = None
    for number, segment in enumerate(segments):
        opened = Segment.open(out / SEGMENTS / segment.name, num_rows=segment.num_rows, dim=dim)
        if number == 0 and not plan.exact:
            recall = measure_recall(opened.index, opened.vectors_ND, plan.nprobe, config.seed)
    return Snapshot(
        name=next_name(out, key),
        parent=parent.name if parent else None,
        created_at=datetime.now(UTC).isoformat(timespec="seconds"),
        source=key,
        segments=tuple(SegmentRef(name=segment.name, num_rows=segment.num_rows) for segment in segments),
        encoder=vectors.encoder,
        encoder_config=vectors.encoder_config,
        dim=dim,
        factory=plan.factory,
        nprobe=plan.nprobe,
        recall_at_10=recall,
    )
