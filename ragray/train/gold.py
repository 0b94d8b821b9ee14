"""Gold passages. In: examples, a snapshot. Out: for each example the passages of the snapshot that answer it, found or not."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from ragray.index.store.live import named_passages
from ragray.index.store.snapshot import Snapshot
from ragray.text.holds import holds
from ragray.types import Example, Passage


def answering_passages(
    examples: Sequence[Example], index: Path, snapshot: Snapshot
) -> Mapping[str, tuple[Passage, ...]]:
    """Return by example id the passages that its gold ids name, by their own id or their document's; () where there are none.

    Of several, those that hold an accepted answer; all of them where none does. Their texts are kept in memory.

    Raises:
        NotAnArtifactError, CorruptArtifactError: a segment is not whole.
    """
    named = named_passages([example.gold_ids for example in examples], index, snapshot)
    found = {}
    for example, passages in zip(examples, named, strict=True):
        found[example.id] = tuple(passage for passage in passages if answers(passage, example)) or passages
    return found


def is_gold(passage: Passage, example: Example) -> bool:
    """Return whether a gold id of an example names a passage or its document."""
    return passage.id in example.gold_ids or passage.document_id in example.gold_ids


def answers(passage: Passage, example: Example) -> bool:
    """Return whether a passage holds an accepted answer of an example."""
    return holds(f"{passage.title}: {passage.text}", example.answers)
