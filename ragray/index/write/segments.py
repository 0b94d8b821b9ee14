"""Segments of an index folder. In: passages with their vectors, in order. Out: new segments of equal size; which are there already."""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Iterator
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import Protocol

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ragray.corpus.table import PASSAGE_SCHEMA, Corpus
from ragray.embed.blocks import Embeddings
from ragray.errors import ArtifactError, CorruptArtifactError
from ragray.index.store.segment import Segment, write_segment
from ragray.index.store.snapshot import SEGMENTS, SegmentRef, Snapshot
from ragray.index.write.build import trained_like
from ragray.progress import Progress

ROW_BYTES = 1024
"""Memory that a row takes while its segment is built, beside its vector in float32: ids, postings, Arrow's buffers."""

PassageBlock = tuple[pa.Table, np.ndarray]
"""Passages with their vectors, (rows, D) float16."""


class PlannedSegment(Protocol):
    """A segment to write."""

    @property
    def name(self) -> str:
        """Its folder."""

    @property
    def num_rows(self) -> int:
        """Its rows."""


def is_written(index: Path, segment: PlannedSegment, dim: int) -> bool:
    """Return whether an earlier run wrote this very segment, and it is whole."""
    try:
        Segment.open(index / SEGMENTS / segment.name, num_rows=segment.num_rows, dim=dim)
    except ArtifactError:
        return False
    return True


def building_bytes(segment: PlannedSegment, dim: int) -> int:
    """Return the memory, in bytes, that building a segment takes."""
    return segment.num_rows * (4 * dim + ROW_BYTES)


def remove_half_written(index: Path) -> None:
    """Remove what writers of segments left unfinished that were killed."""
    for folder in (index / SEGMENTS).glob(".*.tmp"):
        shutil.rmtree(folder, ignore_errors=True)


def write_segments(
    index: Path, snapshot: Snapshot, blocks: Iterable[PassageBlock], *, num_rows: int, segment_rows: int
) -> list[SegmentRef]:
    """Write ``num_rows`` rows as new segments of equal size for a snapshot, trained as its first one is."""
    count = -(-num_rows // segment_rows)
    bounds = [num_rows * number // max(count, 1) for number in range(count + 1)]
    first = snapshot.segments[0]
    like = Segment.open(index / SEGMENTS / first.name, num_rows=first.num_rows, dim=snapshot.dim)
    refs = []
    with Progress("index", total=num_rows, unit="passages") as progress:
        for number, pieces in groupby(_cut(blocks, bounds), key=itemgetter(0)):
            ref = SegmentRef(name=f"{snapshot.name}-{number:05}", num_rows=bounds[number + 1] - bounds[number])
            write_segment(
                index / SEGMENTS / ref.name,
                (block for _, block in pieces),
                num_rows=ref.num_rows,
                empty_index=trained_like(like),
                lexical=snapshot.lexical,
            )
            refs.append(ref)
            progress.advance(ref.num_rows)
    return refs


def _cut(blocks: Iterable[PassageBlock], bounds: list[int]) -> Iterator[tuple[int, PassageBlock]]:
    """Yield the blocks, cut where a segment ends, with the number of their segment."""
    row = number = 0
    for passages, vectors in blocks:
        start = 0
        while start < len(passages):
            size = min(len(passages) - start, bounds[number + 1] - row)
            yield number, (passages.slice(start, size), vectors[start : start + size])
            start, row = start + size, row + size
            number += row == bounds[number + 1]


def embedded_blocks(corpus: Corpus, vectors: Embeddings) -> Iterator[PassageBlock]:
    """Yield the passages of a corpus that were embedded, with their vectors.

    Raises:
        CorruptArtifactError: a passage was embedded that the corpus does not have, or in another order.
    """
    tables = corpus.iter_tables()
    ahead = PASSAGE_SCHEMA.empty_table()
    for ids, block in vectors.iter_blocks():
        while ids and (last := pc.index(ahead["id"], ids[-1]).as_py()) < 0:
            table = next(tables, None)
            if table is None:
                raise CorruptArtifactError(
                    f"{vectors.folder}: embeds {ids[-1]!r}, not in {corpus.folder}; remove both and sync"
                )
            ahead = pa.concat_tables([ahead, table])
        if ids:
            passages = ahead.slice(0, last + 1)
            passages = passages.filter(pc.is_in(passages["id"], pa.array(ids)))
            if passages["id"].to_pylist() != ids:
                raise CorruptArtifactError(
                    f"{vectors.folder}: has the ids of {corpus.folder} in another order; remove both and sync"
                )
            ahead = ahead.slice(last + 1)
            yield passages, block
