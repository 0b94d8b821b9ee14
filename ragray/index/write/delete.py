"""Deleting passages. In: ids of passages or documents, or a filter. Out: a new snapshot whose searches never return them."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ragray.artifact.digest import fingerprint
from ragray.errors import InputError
from ragray.index.search.filter import parse_filter
from ragray.index.search.reader import IndexReader
from ragray.index.store.output import changed_index
from ragray.index.store.snapshot import Snapshot, successor
from ragray.index.store.tombstones import hide
from ragray.text.checks import require_utf8


@dataclass(frozen=True, slots=True)
class DeleteReport:
    """What was deleted: the snapshot that is now current, the rows it hides that were live, and the ids that none of them has."""

    snapshot: Snapshot
    num_deleted: int
    unknown_ids: tuple[str, ...]

    @property
    def message(self) -> str:
        """The report as one line."""
        unknown = (
            f"; {len(self.unknown_ids)} ids are not in the index, such as {self.unknown_ids[0]!r}"
            if self.unknown_ids
            else ""
        )
        if not self.num_deleted:
            return f"nothing to delete{unknown or ': no passage matches'}; snapshot {self.snapshot.name} stays current"
        return f"{self.num_deleted} passages deleted{unknown}; snapshot {self.snapshot.name} is current"


def delete_passages(index: Path, *, ids: Collection[str] = (), where: str = "") -> DeleteReport:
    """Hide every passage whose id or document id is among ``ids``, or whose metadata match ``where``.

    Their rows are gone for every way of searching; their bytes go with `compact_index` and `collect_garbage`. A later sync
    with a corpus that still holds them brings them back. Where nothing matches, nothing is published.

    Raises:
        InputError: neither or both of ``ids`` and ``where`` are given, an id cannot be written as UTF-8, ``where`` is no filter
            expression, or it names a field that no passage has.
        ArtifactBusyError: another process is writing to the index.
        SnapshotConflictError: another snapshot was made current meanwhile.
    """
    if bool(ids) == bool(where) or isinstance(ids, str):
        raise InputError(f"{index}: name what to delete by ids (a collection of them) or by a filter, one of the two")
    for identity in ids:
        require_utf8(identity, f"id {identity!r}")
    condition = parse_filter(where) if where else None
    with changed_index(index) as (output, base):
        reader = IndexReader.of(index, base)
        keys = {key for opened in reader.segments for key in opened.segment.metadata_keys} if condition else set()
        if condition and (misspelt := condition.unknown_field(keys)):
            raise InputError(f"{index}: {misspelt}; nothing was deleted")
        wanted = pa.array(sorted(set(ids)), pa.string())
        known: set[str] = set()
        dead = []
        for opened in reader.segments:
            passages, columns = opened.segment.passages, opened.segment.columns
            matching = condition.mask(passages, columns) if condition else _has_id(passages, wanted)
            dead_N = opened.live_N & matching
            known |= _ids_of(passages, dead_N) if ids else set()
            dead.append(np.flatnonzero(dead_N) + opened.offset)
        rows = np.concatenate(dead)
        unknown = tuple(sorted(set(ids) - known))
        if not len(rows):
            return DeleteReport(base, 0, unknown)
        refs = hide(index, base.segments, rows)
        source = fingerprint([base.source, [ref.model_dump() for ref in refs]])
        snapshot = successor(index, base, source, refs)
        output.publish(snapshot)
    return DeleteReport(snapshot, len(rows), unknown)


def _has_id(passages: pa.Table, wanted: pa.Array) -> np.ndarray:
    """Return for each row whether its passage id or its document id is wanted, (rows,) bool."""
    masks = [pc.is_in(passages[column], value_set=wanted).to_numpy() for column in ("id", "document_id")]
    return np.asarray(masks[0] | masks[1], dtype=bool)


def _ids_of(passages: pa.Table, rows_N: np.ndarray) -> set[str]:
    """Return the passage and document ids of some rows."""
    found: set[str] = set()
    for column in ("id", "document_id"):
        found.update(passages[column].filter(pa.array(rows_N)).to_pylist())
    return found
