"""The live rows of a snapshot, in order. In: a snapshot, perhaps a range. Out: passages and vectors, a bounded number at a time.

B rows of a block, D dim.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ragray.corpus.table import passage_from_row
from ragray.index.store.segment import Segment
from ragray.index.store.snapshot import SEGMENTS, Snapshot
from ragray.index.store.tombstones import live_mask
from ragray.types import Passage

BATCH_ROWS = 4096


@dataclass(frozen=True, slots=True)
class LiveBatch:
    """Live rows of one segment, ascending; ``offset`` is the segment's first global row."""

    segment: Segment
    offset: int
    rows_B: np.ndarray

    @property
    def passages(self) -> pa.Table:
        """The passages; a filtered slice, as Arrow's `take` would first copy every row of the segment."""
        first, last = int(self.rows_B[0]), int(self.rows_B[-1])
        wanted = np.zeros(last - first + 1, dtype=bool)
        wanted[self.rows_B - first] = True
        return self.segment.passages.slice(first, len(wanted)).filter(pa.array(wanted))

    @property
    def vectors(self) -> np.ndarray:
        """The vectors, (B, D) float16."""
        return np.asarray(self.segment.vectors_ND[self.rows_B])


def live_batches(index: Path, snapshot: Snapshot, start: int = 0, stop: int | None = None) -> Iterator[LiveBatch]:
    """Yield the live rows number ``start`` to ``stop``; one segment is open at a time, and only where it has some of them.

    Raises:
        NotAnArtifactError, CorruptArtifactError: a segment, or its tombstones, is not whole.
    """
    stop = snapshot.num_live if stop is None else stop
    first = offset = 0
    for ref in snapshot.segments:
        num_live = ref.num_rows - ref.num_deleted
        if first < stop and first + num_live > start:
            segment = Segment.open(index / SEGMENTS / ref.name, num_rows=ref.num_rows, dim=snapshot.dim)
            rows = np.flatnonzero(live_mask(index, ref))[max(0, start - first) : stop - first]
            for first_row in range(0, len(rows), BATCH_ROWS):
                yield LiveBatch(segment, offset, rows[first_row : first_row + BATCH_ROWS])
        first += num_live
        offset += ref.num_rows


def rows_of_ids(
    index: Path, snapshot: Snapshot, ids: Collection[str], *, of_documents: bool = True
) -> dict[str, list[int]]:
    """Return the live global rows, ascending, of each of some ids: the passage that has it, and the passages of that document.

    Ids that no row has are left out; without ``of_documents`` ids are those of passages alone. Raises as `missing_ids` does.
    """
    wanted = pa.array(sorted(set(ids)), pa.string())
    found: dict[str, set[int]] = {}
    for block in live_batches(index, snapshot) if len(wanted) else ():
        passages = block.passages
        for column in ("id", "document_id") if of_documents else ("id",):
            places = np.flatnonzero(pc.is_in(passages[column], wanted).to_numpy())
            for name, row in zip(passages[column].take(places).to_pylist(), block.rows_B[places].tolist(), strict=True):
                found.setdefault(name, set()).add(block.offset + row)
    return {name: sorted(rows) for name, rows in found.items()}


def missing_ids(index: Path, snapshot: Snapshot, ids: Collection[str]) -> set[str]:
    """Return those of some ids that are neither the passage id nor the document id of a live row.

    Raises:
        NotAnArtifactError, CorruptArtifactError: a segment, or its tombstones, is not whole.
    """
    missing = set(ids)
    for block in live_batches(index, snapshot) if missing else ():
        passages = block.passages
        for column in ("id", "document_id"):
            held = pc.is_in(passages[column], pa.array(sorted(missing), pa.string()))
            missing.difference_update(passages[column].filter(held).to_pylist())
        if not missing:
            break
    return missing


def passages_of(index: Path, snapshot: Snapshot, ids: Collection[str]) -> list[Passage]:
    """Return the live passages whose passage id or document id is one of some ids, in the order of their rows.

    Raises:
        NotAnArtifactError, CorruptArtifactError: a segment, or its tombstones, is not whole.
    """
    wanted = pa.array(sorted(ids), pa.string())
    found: list[Passage] = []
    for block in live_batches(index, snapshot) if ids else ():
        passages = block.passages
        named = pc.or_(pc.is_in(passages["id"], wanted), pc.is_in(passages["document_id"], wanted))
        found += map(passage_from_row, passages.filter(named).to_pylist())
    return found


def named_passages(names: Sequence[Collection[str]], index: Path, snapshot: Snapshot) -> list[tuple[Passage, ...]]:
    """Return for each collection of ids the live passages that they name, by their own id or their document's, each once.

    Raises:
        NotAnArtifactError, CorruptArtifactError: a segment, or its tombstones, is not whole.
    """
    wanted = {name for some in names for name in some}
    by_name: dict[str, dict[str, Passage]] = {}
    for passage in passages_of(index, snapshot, wanted):
        for name in {passage.id, passage.document_id} & wanted:
            by_name.setdefault(name, {})[passage.id] = passage
    merged = [{key: passage for name in some for key, passage in by_name.get(name, {}).items()} for some in names]
    return [tuple(found.values()) for found in merged]
