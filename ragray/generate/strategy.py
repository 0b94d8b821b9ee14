"""Answer strategies. In: a question with its passages. Out: the prompts that an engine reads for it, and the weight of each. Pure.

`Marginal` gives each passage a prompt of its own, and the engine mixes their next-token probabilities. A strategy that puts all
passages into one prompt is the same request with a single prompt of weight 1, which an engine without logits can answer too.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from ragray.generate.engine import GenerationRequest
from ragray.generate.prior import log_prior
from ragray.generate.template import PromptTemplate
from ragray.types import Passage


@dataclass(frozen=True, slots=True)
class WeightedPrompts:
    """The token ids of the K prompts of one question, and log p(prompt | question), (K,)."""

    prompts: Sequence[Sequence[int]]
    log_prior_K: Sequence[float]


class AnswerStrategy(Protocol):
    """How an answer is made from several passages."""

    needs_logits: bool
    """Whether the engine must give the probabilities of the next token."""

    def prompts(self, request: GenerationRequest) -> WeightedPrompts:
        """Make the prompts of a request; raises `InputError` where the question is too long."""


class Marginal:
    """One prompt per passage, decoded jointly; the weights are the passages' prior (see `ragray.generate.prior`)."""

    needs_logits = True

    def __init__(self, template: PromptTemplate, *, temperature: float) -> None:
        self._template = template
        self._temperature = temperature

    def prompts(self, request: GenerationRequest) -> WeightedPrompts:
        """Make the prompts of a request; raises as `PromptTemplate.ids` does."""
        question, instruction = request.question, request.instruction
        history = self._template.condensed(request.history, question, instruction)
        passages: list[Passage | None] = [hit.passage for hit in request.hits]
        rows = [
            self._template.ids(question, passage, history=history, instruction=instruction)
            for passage in passages or [None]
        ]
        return WeightedPrompts(rows, log_prior(request.hits, self._temperature))
