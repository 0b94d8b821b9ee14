"""All passages in one prompt. In: questions, the passages retrieved for them, answers. Out: the loss of the answers alone.

The loss of a question is -log p(answer | prompt), summed over the answer's tokens, its end token included: what RAG-Sequence is with
one prompt of probability 1. The passages of a prompt are drawn as `ragray.train.objectives.draw` says.

B questions, L answer tokens.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ragray.config import GenerateConfig, TrainConfig
from ragray.embed.encoder import Encoder
from ragray.errors import TrainingError
from ragray.index.search.result import SearchResult
from ragray.train.components import Components
from ragray.train.gold import answers, is_gold
from ragray.train.objectives.draw import Drawn, draw
from ragray.train.objectives.objective import Loss, Searcher, SearchFuture
from ragray.types import Example, Passage

SPARE = 3
"""Passages that are retrieved beyond k: gold ones, and others that hold an answer, are no distractors."""


@dataclass(frozen=True, slots=True)
class TogetherBatch:
    """A micro-batch: prompts with answers (B rows), and what the log tells of them."""

    rows: dict[str, Tensor]
    num_gold: int
    num_found: int


def target(example: Example, drawn: Drawn, config: TrainConfig) -> str:
    """Return what the generator is to write: the first accepted answer, cited; or that the passages do not hold it."""
    if drawn.gold is None:
        return config.unanswerable or example.answers[0]
    return f"{example.answers[0]} [{drawn.gold + 1}]" if config.cite else example.answers[0]


class TogetherObjective:
    """Trains the generator on prompts with numbered passages, as the strategy `together` makes them; the encoder stays as it is."""

    def __init__(
        self,
        components: Components,
        encoder: Encoder,
        searcher: Searcher,
        *,
        k: int,
        generate: GenerateConfig,
        train: TrainConfig,
        gold: Mapping[str, Sequence[Passage]],
    ) -> None:
        """Take at most ``k`` passages per example; ``gold`` holds those that gold ids name, by example id.

        Raises:
            TrainingError: the components lack a generator.
            ModelError, ConfigError: prompts cannot be made for the generator.
        """
        if components.generator is None:
            raise TrainingError("generate.strategy=together trains a generator; the components have none")
        self._generator = components.generator
        self._encoder = encoder
        self._searcher = searcher
        self._k, self._train, self._max_new_tokens = k, train, generate.max_new_tokens
        self._prompts = self._generator.prompt_template(generate)
        self._gold = gold

    def retrieve(self, examples: Sequence[Example]) -> SearchFuture:
        """Begin the search for the nearest passages of every question."""
        questions = [example.question for example in examples]
        return self._searcher.submit(self._encoder.encode_questions(questions), self._k + SPARE)

    def collate(self, examples: Sequence[Example], found: SearchResult, *, epoch: int) -> TogetherBatch:
        """Make a micro-batch; an epoch draws other passages than the one before."""
        prompts, targets, num_gold, num_found = [], [], 0, 0
        for example, hits in zip(examples, found.hits, strict=True):
            passages = [hit.passage for hit in hits]
            drawn = self._fitting(example, self._drawn(example, passages, epoch))
            prompts.append(self._prompts.numbered_ids(example.question, drawn.passages)[0])
            targets.append(self._prompts.answer_ids(target(example, drawn, self._train), self._max_new_tokens))
            num_gold += drawn.gold is not None
            num_found += any(is_gold(p, example) or answers(p, example) for p in passages[: self._k])
        return TogetherBatch(self._generator.answer_batch(prompts, targets), num_gold, num_found)

    def loss(self, batch: TogetherBatch) -> Loss:
        """Return the loss of a micro-batch, a mean over its questions; logged are the shares of prompts with gold, of gold found."""
        token_logp_BL: Tensor = self._generator(batch.rows)
        shares = {"gold": batch.num_gold, "recall": batch.num_found}
        metrics = {name: torch.tensor(number / len(token_logp_BL)) for name, number in shares.items()}
        return Loss(-token_logp_BL.sum(-1).mean(), metrics)

    def not_finite(self, batch: TogetherBatch) -> str:
        """Return that the generator's output for a micro-batch is not finite, or ""."""
        finite = bool(self._generator(batch.rows).isfinite().all())
        return "" if finite else "the generator's log-probabilities are not finite"

    def _drawn(self, example: Example, found: Sequence[Passage], epoch: int) -> Drawn:
        gold = self._gold.get(example.id, ())
        return draw(example, found, gold, k=self._k, config=self._train, epoch=epoch)

    def _fitting(self, example: Example, drawn: Drawn) -> Drawn:
        """Leave out distractors until the prompt cuts no passage: the answer might stand in what is cut."""
        while len(drawn.passages) > 1 and not self._prompts.fits(example.question, drawn.passages):
            drawn = drawn.without_last_distractor()
        return drawn
