"""Runs `index build` on Ray. In: embeddings and their corpus. Out: segments, built in parallel as tasks, and a snapshot of them."""

from __future__ import annotations

import logging
import shutil
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from time import monotonic

import faiss
import numpy as np

from ragray.artifact.digest import fingerprint
from ragray.artifact.files import atomic_path
from ragray.artifact.lock import exclusive
from ragray.cluster.segments import is_written, write_as_tasks
from ragray.cluster.session import session
from ragray.config import Config, IndexConfig
from ragray.corpus.table import Corpus
from ragray.embed.blocks import Embeddings
from ragray.errors import ArtifactError
from ragray.index.plan.choose import IndexPlan, plan_index
from ragray.index.plan.tune import tuned_snapshot
from ragray.index.search.reader import IndexReader
from ragray.index.store.lifecycle import TRAINED
from ragray.index.store.snapshot import (
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
from ragray.index.write.build import SegmentPlan, build_segment, plan_segments, sample_rows, train_empty_index
from ragray.progress import Progress
from ragray.text.analyzer import newest

BUILT = "%s: built before from these embeddings and changed since (now %s): left as it is; ragray index snapshots, promote go back"

logger = logging.getLogger("ragray")


@dataclass(frozen=True, slots=True)
class IndexReport:
    """What a run of `index build` did; ``reused``: it had been built before, and perhaps changed since by sync, delete or compact."""

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
    lexical = newest(config.index.lexical)
    key = fingerprint([vectors.content, config.index.model_dump(mode="json") | {"lexical": lexical}])
    require_file_system(out)
    with exclusive(out, kind="index"):
        expected = find_current(out)
        current = _current(out)
        if current and current.build == key and _is_whole(out):
            if current.source != key:
                logger.info(BUILT, out, current.name)
            return IndexReport(current, monotonic() - started, True, plan.reason)
        segments = plan_segments(
            vectors, passages, config.index.segment_rows, _segment_key(vectors, plan, config.index)
        )
        todo = [segment for segment in segments if not is_written(out, segment, vectors.encoder.dim)]
        if todo:
            empty = _trained(out, vectors, plan, config.index)
            with session(address), Progress("index", total=sum(s.num_rows for s in todo), unit="passages") as progress:
                write_as_tasks(
                    todo, partial(_build, out.resolve(), lexical), out, empty, progress,
                    stage="index build", wait_s=config.cluster.wait_s,
                )  # fmt: skip
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
    return fingerprint([vectors.content, plan.factory, config.segment_rows, newest(config.lexical), *sample])


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


def _build(out: Path, lexical: str, plan: SegmentPlan, empty_index: faiss.Index) -> None:
    build_segment(plan, out / SEGMENTS / plan.name, empty_index, lexical=lexical)


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
        nprobe=plan.nprobe,
        ef_search=plan.ef_search,
        over_retrieve=plan.over_retrieve,
        lexical=newest(config.lexical),
        recall_at_10=None,
    )
