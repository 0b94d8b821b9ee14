"""Building segments. In: embeddings with their corpus. Out: segment folders, and the recall of an approximate index against exact search."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import faiss
import numpy as np
import pyarrow as pa

from ragray.artifact import Manifest
from ragray.config import IndexConfig
from ragray.corpus.table import Corpus
from ragray.embed.shards import Embeddings, load_block
from ragray.errors import CorruptArtifactError
from ragray.index.plan import IndexPlan
from ragray.index.segment import write_segment

RECALL_QUERIES = 200
RECALL_K = 10


@dataclass(frozen=True, slots=True)
class SegmentPlan:
    """One segment to build: rows ``start`` to ``stop`` of the corpus, in the blocks (path, first row, rows) that hold them."""

    name: str
    start: int
    stop: int
    blocks: tuple[tuple[str, int, int], ...]

    @property
    def num_rows(self) -> int:
        """Rows of the segment."""
        return self.stop - self.start


def plan_segments(embeddings: Embeddings, block_rows: Sequence[int], segment_rows: int, key: str) -> list[SegmentPlan]:
    """Cut the rows of an embeddings folder into segments of equal size, at most ``segment_rows`` each, in corpus order."""
    total = sum(block_rows)
    count = max(1, -(-total // segment_rows))
    bounds = [total * number // count for number in range(count + 1)]
    starts = np.cumsum([0, *block_rows])
    plans = []
    for number, (start, stop) in enumerate(zip(bounds, bounds[1:], strict=False)):
        inside = tuple(
            (str(path), int(first), rows)
            for path, first, rows in zip(embeddings.blocks, starts, block_rows, strict=False)
            if first < stop and first + rows > start
        )
        plans.append(SegmentPlan(f"{key}-{number:05}", start, stop, inside))
    return plans


def train_empty_index(plan: IndexPlan, embeddings: Embeddings, config: IndexConfig) -> faiss.Index:
    """Make the empty index that every segment starts from; an IVF's quantizer is trained once, on a sample of the rows."""
    index = faiss.index_factory(embeddings.encoder.dim, plan.factory, faiss.METRIC_INNER_PRODUCT)
    if plan.exact:
        return index
    sample = _sample(embeddings, config)
    index.cp.seed = config.seed + 1
    index.cp.min_points_per_centroid = 1
    index.train(sample)
    return index


def _sample(embeddings: Embeddings, config: IndexConfig) -> np.ndarray:
    """Draw at most ``train_rows`` rows evenly from all blocks, (rows, D) float32."""
    generator = np.random.default_rng(config.seed)
    share = min(1.0, config.train_rows / max(embeddings.num_rows, 1))
    chosen = []
    for _, vectors in embeddings.iter_blocks():
        count = max(1, round(len(vectors) * share))
        chosen.append(vectors[np.sort(generator.choice(len(vectors), size=count, replace=False))])
    return np.concatenate(chosen).astype(np.float32)


def build_segment(plan: SegmentPlan, corpus: Path, folder: Path, empty_index: faiss.Index) -> Manifest:
    """Build one segment from its rows of the corpus and their vectors.

    Raises:
        CorruptArtifactError: the ids of corpus and embeddings differ in some row.
    """
    rows = _joined(plan, Corpus.open(corpus))
    return write_segment(folder, rows, num_rows=plan.num_rows, empty_index=empty_index)


def _joined(plan: SegmentPlan, corpus: Corpus) -> Iterator[tuple[pa.Table, np.ndarray]]:
    passages = _PassageCursor(corpus, plan.start)
    for path, first, rows in plan.blocks:
        start, stop = max(plan.start, first), min(plan.stop, first + rows)
        ids, vectors = load_block(Path(path))
        table = passages.slice(start, stop)
        found, expected = table["id"].to_pylist(), ids[start - first : stop - first]
        if found != expected:
            wrong = next(number for number, pair in enumerate(zip(found, expected, strict=True)) if pair[0] != pair[1])
            raise CorruptArtifactError(
                f"{path}: row {start - first + wrong} embeds passage '{expected[wrong]}', the corpus has '{found[wrong]}' there; "
                "embed this corpus again"
            )
        yield table, vectors[start - first : stop - first]


class _PassageCursor:
    """Reads ascending slices of a corpus, one row group in memory at a time; shards before ``start`` are not read."""

    def __init__(self, corpus: Corpus, start: int) -> None:
        shards = list(corpus.shards)
        self._first = 0
        while shards and self._first + shards[0][1] <= start:
            self._first += shards.pop(0)[1]
        self._tables = replace(corpus, shards=tuple(shards)).iter_tables()
        self._table: pa.Table | None = None

    def slice(self, start: int, stop: int) -> pa.Table:
        parts = []
        while start < stop:
            while self._table is None or self._first + len(self._table) <= start:
                self._first += len(self._table) if self._table is not None else 0
                self._table = next(self._tables)
            part = self._table.slice(start - self._first, stop - start)
            parts.append(part)
            start += len(part)
        return pa.concat_tables(parts)


def measure_recall(approximate: faiss.Index, vectors_ND: np.ndarray, nprobe: int, seed: int) -> float:
    """Measure recall@10 of an IVF against exact search with up to 200 of its own rows as queries; each row's own hit is left out."""
    generator = np.random.default_rng(seed)
    count = min(RECALL_QUERIES, len(vectors_ND))
    k = min(RECALL_K + 1, len(vectors_ND))
    queries = vectors_ND[np.sort(generator.choice(len(vectors_ND), size=count, replace=False))].astype(np.float32)
    exact = faiss.IndexFlatIP(vectors_ND.shape[1])
    scores, rows = [], []
    for start in range(0, len(vectors_ND), 65536):
        exact.reset()
        exact.add(vectors_ND[start : start + 65536].astype(np.float32))
        part_scores, part_rows = exact.search(queries, k)
        scores.append(part_scores)
        rows.append(np.where(part_rows >= 0, part_rows + start, -1))
    all_scores, all_rows = np.concatenate(scores, 1), np.concatenate(rows, 1)
    truth = np.take_along_axis(all_rows, np.argsort(-all_scores, axis=1, kind="stable")[:, :k], axis=1)[:, 1:]
    _, found = approximate.search(queries, k, params=faiss.SearchParametersIVF(nprobe=nprobe))
    shared = [len(set(map(int, t)) & set(map(int, f))) for t, f in zip(truth, found, strict=True)]
    return float(sum(shared) / max(truth.size, 1))
