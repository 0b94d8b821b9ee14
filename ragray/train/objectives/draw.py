"""What stands in a training prompt. In: an example, what was retrieved, its gold passages. Out: passages in order. Pure.

The recipe is RAFT's (Zhang et al. 2024, arXiv:2403.10131): a share of the prompts holds a gold passage among distractors, the
others distractors alone. The distractors are the best that the retriever found, whose order a reader will meet.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ragray.config import TrainConfig
from ragray.train.gold import answers, is_gold
from ragray.types import Example, Passage


@dataclass(frozen=True, slots=True)
class Drawn:
    """The passages of a prompt, and the place of the gold one among them, from 0; None where all are distractors."""

    passages: tuple[Passage, ...]
    gold: int | None

    def without_last_distractor(self) -> Drawn:
        """Return the same without the last passage that is not gold."""
        last = max(place for place in range(len(self.passages)) if place != self.gold)
        kept = self.passages[:last] + self.passages[last + 1 :]
        return Drawn(kept, self.gold - 1 if self.gold is not None and self.gold > last else self.gold)


def draw(
    example: Example, found: Sequence[Passage], gold: Sequence[Passage], *, k: int, config: TrainConfig, epoch: int
) -> Drawn:
    """Draw at most ``k`` passages for an example; the same in every process, for one seed, epoch and example.

    ``found`` is what was retrieved, best first. ``gold`` is what the gold ids name; where that is nothing, a retrieved passage
    that holds an accepted answer is gold. A distractor neither is gold nor holds an accepted answer.
    """
    dice = _dice(config.seed, epoch, example.id)
    number = int(dice.integers(min(config.min_k, k), k + 1))
    with_gold = bool(dice.random() < config.gold_share)
    chosen = _right(dice, example, found, gold) if with_gold else None
    others = _wrong(example, found)
    picked = others[: number - (chosen is not None)] + ([chosen] if chosen else [])
    ranks = {passage.id: rank for rank, passage in enumerate(found)}
    picked.sort(key=lambda passage: ranks.get(passage.id, len(ranks)))
    if config.shuffle:
        picked = [picked[place] for place in dice.permutation(len(picked))]
    return Drawn(tuple(picked), picked.index(chosen) if chosen else None)


def draw_apart(
    example: Example, found: Sequence[Passage], gold: Sequence[Passage], *, config: TrainConfig, epoch: int
) -> tuple[Passage | None, tuple[Passage, ...]]:
    """Draw the passage that an example is answered from, and ``train.distractors`` wrong ones, for reading each alone.

    What is gold and what is a distractor, and for whom the draw is the same, is as in `draw`; here any of ``found`` may be drawn. None
    where no passage holds the answer.
    """
    dice = _dice(config.seed, epoch, example.id)
    right, wrong = _right(dice, example, found, gold), _wrong(example, found)
    places = dice.permutation(len(wrong))[: config.distractors]
    return right, tuple(wrong[place] for place in places)


def _right(
    dice: np.random.Generator, example: Example, found: Sequence[Passage], gold: Sequence[Passage]
) -> Passage | None:
    candidates = list(gold) or [passage for passage in found if answers(passage, example)]
    return candidates[int(dice.integers(len(candidates)))] if candidates else None


def _wrong(example: Example, found: Sequence[Passage]) -> list[Passage]:
    return [passage for passage in found if not is_gold(passage, example) and not answers(passage, example)]


def _dice(seed: int, epoch: int, example_id: str) -> np.random.Generator:
    digest = hashlib.blake2b(f"{seed} {epoch} {example_id}".encode(), digest_size=16).digest()
    return np.random.default_rng(int.from_bytes(digest))
