"""Gold passages. In: examples, a snapshot. Out: for each example the passages of the snapshot that answer it, found or not."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ragray.index.store.live import live_batches
from ragray.index.store.snapshot import Snapshot
from ragray.text.holds import holds
from ragray.types import Example, Passage


def gold_passages(examples: Sequence[Example], index: Path, snapshot: Snapshot) -> Mapping[str, tuple[Passage, ...]]:
    """Return by example id the passages that its gold ids name, by their own id or their document's; () where there are none.

    Of several, those that hold an accepted answer; all of them where none does. Their texts are kept in memory.

    Raises:
        NotAnArtifactError, CorruptArtifactError: a segment is not whole.
    """
    named = _named({name for example in examples for name in example.gold_ids}, index, snapshot)
    found = {}
    for example in examples:
        passages = {passage.id: passage for name in example.gold_ids for passage in named.get(name, ())}
        answering = [passage for passage in passages.values() if answers(passage, example)]
        found[example.id] = tuple(answering or passages.values())
    return found


def is_gold(passage: Passage, example: Example) -> bool:
    """Return whether a gold id of an example names a passage or its document."""
    return passage.id in example.gold_ids or passage.document_id in example.gold_ids


def answers(passage: Passage, example: Example) -> bool:
    """Return whether a passage holds an accepted answer of an example."""
    return holds(f"{passage.title}: {passage.text}", example.answers)


def _named(ids: set[str], index: Path, snapshot: Snapshot) -> dict[str, list[Passage]]:
    """Return the live passages that some ids name, by these ids."""
    named: defaultdict[str, list[Passage]] = defaultdict(list)
    wanted = pa.array(sorted(ids), pa.string())
    for batch in live_batches(index, snapshot) if ids else ():
        table = batch.passages
        held = pc.or_(pc.is_in(table["id"], wanted), pc.is_in(table["document_id"], wanted))
        for passage in batch.segment.read(batch.rows_B[np.asarray(held)].tolist()):
            for name in ids.intersection({passage.id, passage.document_id}):
                named[name].append(passage)
    return named
