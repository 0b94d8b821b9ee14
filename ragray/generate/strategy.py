"""Answer strategies. In: a question with its passages. Out: the prompts that an engine reads for it, and the passages' shares. Pure.

`Marginal` gives each passage a prompt of its own, and the engine mixes their next-token probabilities. `Together` numbers all
passages in one prompt of weight 1, which an engine without logits can answer too. `Fused` lets the decoder of an encoder-decoder
read all prompts at once.

K prompts, N passages.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Protocol

from ragray.config import GenerateConfig
from ragray.generate.answer.markers import cited
from ragray.generate.engine import GenerationRequest
from ragray.generate.prior import Scores, log_prior
from ragray.generate.template import PromptTemplate
from ragray.types import Passage


@dataclass(frozen=True, slots=True)
class WeightedPrompts:
    """The token ids of the K prompts of one question, and log p(prompt | question), (K,).

    ``log_prior_N``: log p(passage | question) of the passages that stand in the prompts, the first N of the request.
    ``fused``: the decoder reads all prompts at once; ``log_prior_K`` is then that of a single prompt.
    """

    prompts: Sequence[Sequence[int]]
    log_prior_K: Sequence[float]
    log_prior_N: Sequence[float] = ()
    fused: bool = False


class AnswerStrategy(Protocol):
    """How an answer is made from several passages."""

    needs_logits: bool
    """Whether the engine must give the probabilities of the next token."""

    numbered: bool
    """Whether passages are numbered in the prompt, so that `[n]` in an answer names one."""

    def prompts(self, request: GenerationRequest) -> WeightedPrompts:
        """Make the prompts of a request; raises `InputError` where the question is too long."""

    def shares(self, weighted: WeightedPrompts, text: str, posterior_K: Sequence[float]) -> tuple[float, ...]:
        """Return the share of each of the N passages in an answer, (N,), given p(prompt | question, answer)."""


class Marginal:
    """One prompt per passage, decoded jointly; the weights are the passages' prior (see `ragray.generate.prior`)."""

    needs_logits = True
    numbered = False

    def __init__(self, template: PromptTemplate, *, temperature: float, prior: Scores = "dense") -> None:
        self._template = template
        self._prior = partial(log_prior, temperature=temperature, of=prior)

    def prompts(self, request: GenerationRequest) -> WeightedPrompts:
        """Make the prompts of a request; raises as `PromptTemplate.ids` does."""
        question, instruction = request.question, request.instruction
        history = self._template.condensed(request.history, question, instruction)
        passages: list[Passage | None] = [hit.passage for hit in request.hits]
        rows = [
            self._template.ids(question, passage, history=history, instruction=instruction)
            for passage in passages or [None]
        ]
        prior_K = self._prior(request.hits)
        return WeightedPrompts(rows, prior_K, prior_K if request.hits else ())

    def shares(self, weighted: WeightedPrompts, text: str, posterior_K: Sequence[float]) -> tuple[float, ...]:
        """Return p(passage | question, answer), (N,)."""
        return tuple(posterior_K) if weighted.log_prior_N else ()


class Fused(Marginal):
    """One prompt per passage, each encoded alone; the decoder reads all of them (Fusion-in-Decoder, arXiv:2007.01282)."""

    def prompts(self, request: GenerationRequest) -> WeightedPrompts:
        """Make the prompts of a request; raises as `PromptTemplate.ids` does."""
        return replace(super().prompts(request), log_prior_K=[0.0], fused=True)

    def shares(self, weighted: WeightedPrompts, text: str, posterior_K: Sequence[float]) -> tuple[float, ...]:
        """Return each passage's prior, (N,): the decoder gives no probability to a passage."""
        return tuple(math.exp(logp) for logp in weighted.log_prior_N)


class Together:
    """All passages in one prompt, numbered from 1, best first; the answer cites them by ``[n]``."""

    needs_logits = False
    numbered = True

    def __init__(self, template: PromptTemplate, *, temperature: float, prior: Scores = "dense") -> None:
        self._template = template
        self._prior = partial(log_prior, temperature=temperature, of=prior)

    def prompts(self, request: GenerationRequest) -> WeightedPrompts:
        """Make the prompt of a request; raises as `PromptTemplate.numbered_ids` does."""
        citing = self._template.citing(request.instruction)
        history = self._template.condensed(request.history, request.question, citing)
        passages = [hit.passage for hit in request.hits]
        row, num_read = self._template.numbered_ids(
            request.question, passages, history=history, instruction=request.instruction
        )
        read = request.hits[:num_read]
        return WeightedPrompts([row], [0.0], self._prior(read) if read else ())

    def shares(self, weighted: WeightedPrompts, text: str, posterior_K: Sequence[float]) -> tuple[float, ...]:
        """Return equal shares of the passages that the text cites; where it cites none, each one's prior. One prompt has no posterior."""
        names = {number for number, _, _ in cited(text, len(weighted.log_prior_N))}
        if not names:
            return tuple(math.exp(logp) for logp in weighted.log_prior_N)
        return tuple((number in names) / len(names) for number in range(1, len(weighted.log_prior_N) + 1))


def make_strategy(template: PromptTemplate, config: GenerateConfig) -> AnswerStrategy:
    """Return the strategy that ``generate.strategy`` names."""
    kinds: dict[str, Callable[..., AnswerStrategy]] = {"marginal": Marginal, "together": Together, "fid": Fused}
    return kinds[config.strategy](template, temperature=config.passage_temperature, prior=config.prior)
