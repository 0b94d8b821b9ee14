"""Judgements held against an index. In: gold ids, a snapshot. Out: how many of them no search can find; a warning."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

from ragray.evaluate.judged import JudgedQueries
from ragray.index.store.live import missing_ids
from ragray.index.store.snapshot import read_snapshot
from ragray.types import Example

logger = logging.getLogger("ragray")


def warn_of_missing_documents(stage: str, index: Path, snapshot: str, judged: JudgedQueries) -> int:
    """Return how many relevant documents a snapshot does not hold; the log names the first."""
    wanted = judged.documents
    unknown = missing_ids(index, read_snapshot(index, snapshot), wanted)
    if unknown:
        logger.warning(
            "%s: %d of %d relevant documents are not in snapshot %s, so that no search finds them (the first by name: '%s')",
            *(stage, len(unknown), len(wanted), snapshot, min(unknown)),
        )
    return len(unknown)


def warn_of_unknown_gold_ids(questions: Sequence[Example], index: Path, snapshot: str, stage: str = "evaluate") -> int:
    """Return how many gold ids a snapshot does not hold; the log names the first, as its question can only be missed."""
    gold = {name for question in questions for name in question.gold_ids}
    unknown = missing_ids(index, read_snapshot(index, snapshot), gold) if gold else set()
    if unknown:
        of = next(question for question in questions if unknown.intersection(question.gold_ids))
        first = next(name for name in of.gold_ids if name in unknown)
        logger.warning(
            "%s: %d of %d gold ids are not in snapshot %s, so that no search finds them (the first: '%s' of example '%s')",
            *(stage, len(unknown), len(gold), snapshot, first, of.id),
        )
    return len(unknown)
