"""Answered questions. In: the lines of a report's details. Out: checked records, with the passages that they name."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ragray.errors import CorruptArtifactError
from ragray.index.store.live import passages_of
from ragray.index.store.snapshot import read_snapshot
from ragray.types import Example, FinishReason, Passage


@dataclass(frozen=True, slots=True)
class Answered:
    """A question, its references, and what a system made of it.

    ``gold_ranks`` holds the rank of each gold id, from 1, None where it was not found. ``sources`` are the ids of the passages that
    were read, ``weights`` their shares in the answer. ``text`` is the answer as it was written: with ``numbered`` it cites by ``[n]``
    the n-th source, which ``prediction`` leaves out. ``missing``: the system gave no answer at all, which scores zero.
    """

    example: Example
    prediction: str
    finish_reason: FinishReason = "stop"
    gold_ranks: tuple[int | None, ...] = ()
    sources: tuple[str, ...] = ()
    weights: tuple[float, ...] = ()
    log_prob: float = 0.0
    text: str = ""
    numbered: bool = False
    missing: bool = False

    @property
    def gold_rank(self) -> int | None:
        """The rank of the first gold passage."""
        return min((rank for rank in self.gold_ranks if rank is not None), default=None)


def read_answered(path: Path) -> list[Answered]:
    """Read the details of a report.

    Raises:
        CorruptArtifactError: a line is none of this format; names file and line.
    """
    lines = path.read_text(encoding="utf-8").rstrip("\n").split("\n")
    return [_answered(f"{path}:{number}", line) for number, line in enumerate(lines, start=1)]


def _answered(where: str, line: str) -> Answered:
    try:
        return answered_from(json.loads(line))
    except (ValueError, KeyError, TypeError) as err:
        raise CorruptArtifactError(
            f"{where}: is no line of a present report ({type(err).__name__}: {err}); evaluate again"
        ) from err


def answered_from(line: Mapping[str, Any]) -> Answered:
    """Return the record of a line; of reports made before format 3 the rank of the first gold id alone is known."""
    gold = tuple(line["gold_ids"])
    ranks = line["gold_ranks"] if "gold_ranks" in line else [line["gold_rank"], *[None] * (len(gold) - 1)][: len(gold)]
    return Answered(
        Example(line["id"], line["question"], tuple(line["answers"]), gold),
        line["prediction"],
        line["finish_reason"],
        tuple(ranks),
        tuple(line["sources"]),
        tuple(line["weights"]),
        line["log_prob"],
        line.get("text", line["prediction"]),
        line.get("numbered", False),
    )


def predicted(texts: Mapping[str, str], examples: Iterable[Example]) -> list[Answered]:
    """Return the predictions of any system for some examples, by id."""
    return [Answered(example, texts.get(example.id, ""), missing=example.id not in texts) for example in examples]


def sources_of(answered: Iterable[Answered], index: Path, snapshot: str) -> dict[str, Passage]:
    """Return the passages that some answers were made from, by id.

    Raises:
        NotAnArtifactError, CorruptArtifactError: a segment of the snapshot is not whole.
    """
    wanted = {name for one in answered for name in one.sources}
    found = passages_of(index, read_snapshot(index, snapshot), wanted)
    return {passage.id: passage for passage in found}
