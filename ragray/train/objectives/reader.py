"""Each passage alone. In: questions, the passages retrieved for them, answers. Out: the loss of answers from gold passages, of silence.

A gold passage is to give the answer; a wrong one is to give none, that is the end token at once. So p(answer | passage), which
`marginal` decoding weighs passages by, tells them apart: what a wrong passage would say has little probability. This is reading with
a no-answer option (Clark and Gardner 2018, arXiv:1710.10723, section 3.3), for a generator.

The loss of a question is -log p(answer | gold) - sum over wrong passages of log p(end | wrong).

R rows (a question with one passage each), L answer tokens.
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
from ragray.train.objectives.draw import draw_apart
from ragray.train.objectives.objective import TOKENS, Loss, Searcher, SearchFuture
from ragray.types import Example, Passage


@dataclass(frozen=True, slots=True)
class ReaderBatch:
    """A micro-batch: prompts with answers (R rows), of how many examples, and what the log tells of them."""

    rows: dict[str, Tensor]
    num_examples: int
    num_gold: int
    num_found: int


class ReaderObjective:
    """Trains the generator to answer from the right passage alone; prompts are those of the strategy `marginal`."""

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
        """Draw wrong passages from the best ``k``; ``gold`` holds those that gold ids name, by example id.

        Raises:
            TrainingError: the components lack a generator.
            ModelError, ConfigError: prompts cannot be made for the generator.
        """
        if components.generator is None:
            raise TrainingError("train.objective=reader trains a generator; the components have none")
        self._generator = components.generator
        self._encoder = encoder
        self._searcher = searcher
        self._k, self._train, self._max_new_tokens = k, train, generate.max_new_tokens
        self._prompts = self._generator.prompt_template(generate)
        self._gold = gold

    def retrieve(self, examples: Sequence[Example]) -> SearchFuture:
        """Begin the search for the nearest passages of every question."""
        return self._searcher.submit(self._encoder.encode_questions([each.question for each in examples]), self._k)

    def collate(self, examples: Sequence[Example], found: SearchResult, *, epoch: int) -> ReaderBatch:
        """Make a micro-batch; an epoch draws other wrong passages than the one before."""
        prompts, targets, num_gold, num_found = [], [], 0, 0
        for example, hits in zip(examples, found.hits, strict=True):
            passages = [hit.passage for hit in hits]
            right, wrong = draw_apart(
                example, passages, self._gold.get(example.id, ()), config=self._train, epoch=epoch
            )
            read: list[tuple[Passage | None, str]] = [(right, example.answers[0])] if right else []
            read += [(passage, "") for passage in wrong]
            for passage, answer in read or [(None, "")]:
                prompts.append(self._prompts.ids(example.question, passage))
                targets.append(self._prompts.answer_ids(answer, self._max_new_tokens) if answer else self._silence)
            num_gold += right is not None
            num_found += any(is_gold(p, example) or answers(p, example) for p in passages)
        return ReaderBatch(self._generator.answer_batch(prompts, targets), len(examples), num_gold, num_found)

    def loss(self, batch: ReaderBatch) -> Loss:
        """Return the loss of a micro-batch, a mean over its questions; logged are the shares that have gold, whose gold is found."""
        logp: Tensor = self._generator(batch.rows).sum()
        shares = {"gold": batch.num_gold, "recall": batch.num_found}
        metrics = {name: torch.tensor(number / batch.num_examples) for name, number in shares.items()}
        return Loss(-logp / batch.num_examples, {**metrics, TOKENS: self._generator.num_tokens(batch.rows)})

    def not_finite(self, batch: ReaderBatch) -> str:
        """Return that the generator's output for a micro-batch is not finite, or ""."""
        finite = bool(self._generator(batch.rows).isfinite().all())
        return "" if finite else "the generator's log-probabilities are not finite"

    @property
    def _silence(self) -> list[int]:
        """The target of a wrong passage."""
        return [int(self._prompts.tokenizer.eos_token_id)]
