"""Building segments. In: embeddings with their corpus. Out: a trained empty index, a plan of the segments, the segments' folders."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import faiss
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from ragray.artifact.manifest import Manifest
from ragray.config import IndexConfig
from ragray.corpus.table import Corpus
from ragray.embed.blocks import Embeddings, load_block, read_layout
from ragray.errors import CorruptArtifactError
from ragray.index.plan.choose import IndexPlan
from ragray.index.store.segment import FAISS_FILE, Segment, write_segment

SAMPLE_BLOCKS = 64
"""Blocks that a training sample is drawn from at least; of large corpora, eight times as many as its rows would fill."""


@dataclass(frozen=True, slots=True)
class BlockSpan:
    """A block of embeddings: vectors ``first`` to ``stop`` of all, made from passages ``first_passage`` to ``stop_passage``."""

    path: str
    first: int
    stop: int
    first_passage: int
    stop_passage: int


@dataclass(frozen=True, slots=True)
class SegmentPlan:
    """One segment to build: vectors ``start`` to ``stop``, the blocks and corpus shards (path, first passage) to read for them."""

    name: str
    start: int
    stop: int
    blocks: tuple[BlockSpan, ...]
    shards: tuple[tuple[str, int], ...]

    @property
    def num_rows(self) -> int:
        """Rows of the segment."""
        return self.stop - self.start


def plan_segments(embeddings: Embeddings, corpus: Corpus, segment_rows: int, key: str) -> list[SegmentPlan]:
    """Cut all vectors into segments of equal size, at most ``segment_rows`` each, in corpus order.

    Raises:
        CorruptArtifactError: the blocks cover another number of passages than the corpus has, or hold another number of vectors
            than their manifest says.
    """
    spans, total = _spans(embeddings, corpus), embeddings.num_rows
    firsts, stops = [span.first for span in spans], [span.stop for span in spans]
    starts = np.cumsum([0, *(rows for _, rows in corpus.shards)]).tolist()
    count = max(1, -(-total // segment_rows))
    plans = []
    for number in range(count):
        start, stop = total * number // count, total * (number + 1) // count
        inside = spans[bisect_right(stops, start) : bisect_left(firsts, stop)]
        blocks = tuple(span for span in inside if span.first < span.stop)
        shards = slice(bisect_right(starts, blocks[0].first_passage) - 1, bisect_left(starts, blocks[-1].stop_passage))
        paths = [str(path) for path, _ in corpus.shards[shards]]
        plans.append(
            SegmentPlan(f"{key}-{number:05}", start, stop, blocks, tuple(zip(paths, starts[shards], strict=False)))
        )
    return plans


def _spans(embeddings: Embeddings, corpus: Corpus) -> list[BlockSpan]:
    spans = []
    row = passage = 0
    for path in embeddings.blocks:
        layout = read_layout(path)
        spans.append(BlockSpan(str(path), row, row + layout.num_rows, passage, passage + layout.num_planned))
        row += layout.num_rows
        passage += layout.num_planned
    if (row, passage) != (embeddings.num_rows, corpus.num_passages):
        raise CorruptArtifactError(
            f"{embeddings.folder}: its blocks hold {row} vectors of {passage} passages, expected {embeddings.num_rows} of "
            f"{corpus.num_passages}, as many as {corpus.folder} has; embed this corpus again"
        )
    return spans


def sample_rows(embeddings: Embeddings, rows: int, seed: int) -> np.ndarray:
    """Draw at most ``rows`` vectors evenly from all blocks, or from evenly chosen ones where there are very many, (S, D) float32."""
    generator = np.random.default_rng(seed)
    blocks = embeddings.blocks
    share = min(1.0, rows / max(embeddings.num_rows, 1))
    count = min(len(blocks), max(SAMPLE_BLOCKS, int(np.ceil(8 * share * len(blocks)))))
    share = min(1.0, share * len(blocks) / max(count, 1))
    chosen = [np.empty((0, embeddings.encoder.dim), dtype=np.float16)]
    for number in np.sort(generator.choice(len(blocks), size=count, replace=False)):
        _, vectors = load_block(blocks[number])
        size = int(np.ceil(len(vectors) * share))
        chosen.append(vectors[np.sort(generator.permutation(len(vectors))[:size])])
    sample_SD = np.concatenate(chosen)
    keep = np.sort(generator.permutation(len(sample_SD))[:rows])
    return sample_SD[keep].astype(np.float32)


def train_empty_index(plan: IndexPlan, sample_SD: np.ndarray, config: IndexConfig) -> faiss.Index:
    """Make the empty index that every segment starts from; lists and codes are trained once, on a sample (unused for exact search)."""
    index = faiss.index_factory(sample_SD.shape[1], plan.factory, faiss.METRIC_INNER_PRODUCT)
    if plan.nlist:
        lists = faiss.downcast_index(faiss.extract_index_ivf(index))
        lists.cp.seed = config.seed + 1
        lists.cp.min_points_per_centroid = (
            1  # the plan has weighed lists against rows; FAISS would only warn on standard error
        )
        if hasattr(lists, "pq"):
            lists.pq.cp.min_points_per_centroid = 1
        index.train(np.ascontiguousarray(sample_SD, dtype=np.float32))
    return index


def trained_like(segment: Segment) -> faiss.Index:
    """Make an empty index with the lists and codes that a segment's index was trained with; the segment stays as it is."""
    path = str(segment.folder / FAISS_FILE)
    index = faiss.read_index(path, faiss.IO_FLAG_MMAP_IFC)
    if isinstance(index, faiss.IndexHNSWFlat):
        return faiss.IndexHNSWFlat(index.d, index.hnsw.nb_neighbors(1), faiss.METRIC_INNER_PRODUCT)
    lists = faiss.try_extract_index_ivf(index)
    if lists is None:
        return faiss.IndexFlatIP(index.d)
    if isinstance(faiss.downcast_index(lists), faiss.IndexIVFFastScan):
        # FAISS does not map these: what it reads is a copy in memory, which may be emptied.
        index = faiss.read_index(path)
        index.reset()
        return index
    empty = faiss.ArrayInvertedLists(lists.nlist, lists.code_size)  # FAISS only borrows it
    lists.replace_invlists(empty, False)
    lists.ntotal = index.ntotal = 0
    return faiss.deserialize_index(faiss.serialize_index(index))


def build_segment(plan: SegmentPlan, folder: Path, empty_index: faiss.Index, *, lexical: str = "none") -> Manifest:
    """Build one segment from its passages and their vectors.

    Raises:
        CorruptArtifactError: the ids of corpus and embeddings differ in some row.
    """
    blocks = _joined(plan)
    return write_segment(folder, blocks, num_rows=plan.num_rows, empty_index=empty_index, lexical=lexical)


def _joined(plan: SegmentPlan) -> Iterator[tuple[pa.Table, np.ndarray]]:
    passages = _PassageCursor(plan.shards)
    for span in plan.blocks:
        ids, vectors = load_block(Path(span.path))
        layout = read_layout(Path(span.path))
        kept = np.delete(np.arange(layout.num_planned), layout.refused_rows)
        inside = slice(max(plan.start - span.first, 0), min(plan.stop, span.stop) - span.first)
        rows = kept[inside]
        table = passages.read(span.first_passage + int(rows[0]), span.first_passage + int(rows[-1]) + 1)
        if len(table) > len(rows):
            table = table.take(rows - rows[0])
        _require_same(table["id"].to_pylist(), ids[inside], span, inside.start)
        yield table, vectors[inside]


def _require_same(found: Sequence[str], expected: Sequence[str], span: BlockSpan, first: int) -> None:
    if found != expected:
        wrong = next(number for number, pair in enumerate(zip(found, expected, strict=True)) if pair[0] != pair[1])
        raise CorruptArtifactError(
            f"{span.path}: row {first + wrong} embeds passage '{expected[wrong]}', the corpus has '{found[wrong]}' there; "
            "embed this corpus again"
        )


class _PassageCursor:
    """Reads ascending slices of a corpus, a row group in memory at a time; row groups before the first slice are not read."""

    def __init__(self, shards: Sequence[tuple[str, int]]) -> None:
        self._groups = _row_groups(shards)
        self._first = self._stop = 0
        self._table: pa.Table | None = None

    def read(self, start: int, stop: int) -> pa.Table:
        """Return passages ``start`` to ``stop``."""
        parts = []
        while start < stop:
            while self._stop <= start:
                self._advance(start)
            assert self._table is not None
            part = self._table.slice(start - self._first, stop - start)
            parts.append(part)
            start += len(part)
        return pa.concat_tables(parts)

    def _advance(self, start: int) -> None:
        file, group, self._first = next(self._groups, (None, 0, self._stop))
        if file is None:
            raise CorruptArtifactError(
                f"passage {start} of the corpus is missing from its shards; ingest and embed again"
            )
        self._stop = self._first + file.metadata.row_group(group).num_rows
        self._table = file.read_row_group(group) if self._stop > start else None


def _row_groups(shards: Sequence[tuple[str, int]]) -> Iterator[tuple[pq.ParquetFile | None, int, int]]:
    """Yield file, number and first passage of every row group, the file open until the next."""
    for path, first in shards:
        with pq.ParquetFile(path) as file:
            for group in range(file.metadata.num_row_groups):
                yield file, group, first
                first += file.metadata.row_group(group).num_rows
