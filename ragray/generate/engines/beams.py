"""Beam search, the policy alone. In: log-probabilities of every beam's next token. Out: which beams go on with which tokens.

It searches as `transformers` does with its defaults: scores are divided by the length, and the search ends where the best beam
cannot become better than the worst finished answer at its present length (`early_stopping=False`, `length_penalty=1.0`).

N beams, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True)
class Beam:
    """A beginning of an answer, or a finished one: its tokens, the end token included, and log p of all of them."""

    token_ids: tuple[int, ...] = ()
    log_prob: float = 0.0

    @property
    def score(self) -> float:
        """Log p per token."""
        return self.log_prob / len(self.token_ids)


@dataclass(frozen=True, slots=True)
class Step:
    """What follows a step: for each beam that goes on, the number of the one that it continues; for each finished one, too."""

    parents: list[int]
    finished: list[tuple[int, Beam]]


@dataclass(slots=True)
class BeamSearch:
    """The search for the answer to one question; it begins with one beam, which is empty."""

    num_beams: int
    max_new_tokens: int
    stop: frozenset[int]
    running: list[Beam] = field(default_factory=lambda: [Beam()])
    finished: list[Beam] = field(default_factory=list)
    """The best finished answers so far, best first, as many as there are beams."""

    def step(self, logp_NV: Tensor) -> Step:
        """Take a token for every running beam; afterwards ``running`` is empty where the search is over."""
        before = logp_NV.new_tensor([beam.log_prob for beam in self.running])
        kept = min((1 + max(1, len(self.stop))) * self.num_beams, logp_NV.numel())
        scores, places = torch.topk((logp_NV + before[:, None]).flatten(), kept)
        parents, tokens = (places // logp_NV.shape[1]).tolist(), (places % logp_NV.shape[1]).tolist()
        grown = [
            (parent, Beam((*self.running[parent].token_ids, token), score))
            for parent, token, score in zip(parents, tokens, scores.tolist(), strict=True)
        ]
        going_on = [each for each in grown if not self._ends(each[1])][: self.num_beams]
        ended = [each for each in grown[: self.num_beams] if self._ends(each[1])]
        self.finished = self._best([*self.finished, *(beam for _, beam in ended)])
        self.running = [beam for _, beam in going_on] if self._may_improve(going_on) else []
        return Step([parent for parent, _ in going_on] if self.running else [], ended)

    def _ends(self, beam: Beam) -> bool:
        return beam.token_ids[-1] in self.stop or len(beam.token_ids) == self.max_new_tokens

    def _best(self, beams: Iterable[Beam]) -> list[Beam]:
        return sorted(beams, key=lambda beam: -beam.score)[: self.num_beams]

    def _may_improve(self, going_on: list[tuple[int, Beam]]) -> bool:
        if len(self.finished) < self.num_beams:
            return bool(going_on)
        return bool(going_on) and going_on[0][1].score > self.finished[-1].score
