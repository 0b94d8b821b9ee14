"""Building segments. In: embeddings with their corpus. Out: segment folders, and an approximate index's recall against exact search."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
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
from ragray.index.search import ROUNDING
from ragray.index.segment import write_segment

RECALL_QUERIES = 200
RECALL_K = 10
RECALL_ROWS = 65536
"""Rows compared with the queries at a time."""


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
    for number, (start, stop) in enumerate(pairwise(bounds)):
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
        self._folder = corpus.folder
        self._first = 0
        while shards and self._first + shards[0][1] <= start:
            self._first += shards.pop(0)[1]
        self._tables = replace(corpus, shards=tuple(shards)).iter_tables()
        self._table: pa.Table | None = None

    def slice(self, start: int, stop: int) -> pa.Table:
        """Return rows ``start`` to ``stop``; raises `CorruptArtifactError` if the corpus ends before."""
        parts = []
        while start < stop:
            while self._table is None or self._first + len(self._table) <= start:
                self._first += len(self._table) if self._table is not None else 0
                self._table = next(self._tables, None)
                if self._table is None:
                    raise CorruptArtifactError(
                        f"{self._folder}: ends at row {self._first}, its embeddings go on; embed this corpus again"
                    )
            part = self._table.slice(start - self._first, stop - start)
            parts.append(part)
            start += len(part)
        return pa.concat_tables(parts)


def measure_recall(approximate: faiss.Index, vectors_ND: np.ndarray, nprobe: int, seed: int) -> float:
    """Measure recall@10 of an IVF against exact search, with up to 200 of its own rows as queries.

    A query's own row is left out, and every row as near as the tenth counts: which of several equal ones is found says
    nothing about the index.
    """
    generator = np.random.default_rng(seed)
    count = min(RECALL_QUERIES, len(vectors_ND))
    k = min(RECALL_K, len(vectors_ND) - 1)
    if not k:
        return 1.0
    own_Q = np.sort(generator.choice(len(vectors_ND), size=count, replace=False))
    queries_QD = vectors_ND[own_Q].astype(np.float32)
    tenth_Q = _kth_scores(vectors_ND, own_Q, queries_QD, k)
    _, found_QK = approximate.search(queries_QD, k + 1, params=faiss.SearchParametersIVF(nprobe=nprobe))
    scores_QK = np.einsum("qkd,qd->qk", vectors_ND[found_QK].astype(np.float32), queries_QD)
    as_near = scores_QK >= (tenth_Q - ROUNDING * np.square(queries_QD).sum(1))[:, None]
    near = as_near & (found_QK >= 0) & (found_QK != own_Q[:, None])
    return float(np.minimum(near.sum(axis=1), k).mean() / k)


def _kth_scores(vectors_ND: np.ndarray, own_Q: np.ndarray, queries_QD: np.ndarray, k: int) -> np.ndarray:
    """Return every query's k-th largest score over all rows but its own, read a piece at a time."""
    exact = faiss.IndexFlatIP(vectors_ND.shape[1])
    best = np.empty((len(own_Q), 0), dtype=np.float32)
    for start in range(0, len(vectors_ND), RECALL_ROWS):
        exact.reset()
        exact.add(vectors_ND[start : start + RECALL_ROWS].astype(np.float32))
        scores, rows = exact.search(queries_QD, min(k + 1, exact.ntotal))
        scores[rows + start == own_Q[:, None]] = -np.inf
        best = np.sort(np.concatenate([best, scores], axis=1), axis=1)[:, -k:]
    return best[:, 0]
