"""Which examples a step sees, and how they become tensors. In: examples, retrieved passages. Out: micro-batches.

B questions, K passages.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from ragray.config import GenerateConfig, TrainConfig
from ragray.index.search.result import SearchResult
from ragray.train.model import RagModel, TrainBatch
from ragray.types import Example, Passage


@dataclass(frozen=True, slots=True)
class Schedule:
    """The plan of a run: which examples belong to which step, and the learning rate there. Pure arithmetic.

    A step takes ``batch_size * gradient_accumulation`` examples for every worker. The last batch of an epoch is filled up
    with the beginning of the same epoch, so that every worker always has equally many.
    """

    num_examples: int
    num_workers: int
    config: TrainConfig

    @property
    def step_size(self) -> int:
        """Examples an optimizer step, over all workers."""
        return self.config.batch_size * self.config.gradient_accumulation * self.num_workers

    @property
    def steps_per_epoch(self) -> int:
        """Optimizer steps an epoch."""
        return math.ceil(self.num_examples / self.step_size)

    @property
    def num_steps(self) -> int:
        """Optimizer steps of the whole run."""
        by_epochs = max(1, round(self.steps_per_epoch * self.config.epochs))
        return min(by_epochs, self.config.max_steps) if self.config.max_steps else by_epochs

    def examples(self, step: int, rank: int) -> list[int]:
        """Return the numbers of the examples that a worker sees in a step, in micro-batch order."""
        epoch, within = divmod(step, self.steps_per_epoch)
        order = np.random.default_rng([self.config.seed, epoch]).permutation(self.num_examples)
        whole = np.resize(order, self.steps_per_epoch * self.step_size)
        mine = self.step_size // self.num_workers
        start = within * self.step_size + rank * mine
        return [int(number) for number in whole[start : start + mine]]

    def rate(self, step: int) -> float:
        """Return the factor of the peak learning rate: linear warm-up, then linear decay to zero."""
        warmup = max(1, round(self.num_steps * self.config.warmup_ratio))
        if step < warmup:
            return (step + 1) / warmup
        return max(0.0, (self.num_steps - step) / max(1, self.num_steps - warmup))


class Collator:
    """Turns examples and what was retrieved for them into the micro-batches of a step."""

    def __init__(self, model: RagModel, train: TrainConfig, generate: GenerateConfig) -> None:
        self._model = model
        self._config = train
        self._prompts = model.generator.prompt_template(generate)
        self._max_answer_tokens = generate.max_new_tokens

    def micro_batches(self, examples: Sequence[Example], found: SearchResult) -> Iterator[TrainBatch]:
        """Yield micro-batches of ``batch_size`` examples; the first accepted answer is the target."""
        size = self._config.batch_size
        for start in range(0, len(examples), size):
            part = slice(start, start + size)
            yield self._collate(
                examples[part],
                found.vectors_NKD[part],
                [self._passages(n, found) for n in range(start, start + len(examples[part]))],
            )

    def _passages(self, number: int, found: SearchResult) -> list[Passage | None]:
        """Return exactly K passages; where the index holds fewer, the rest is closed-book."""
        passages: list[Passage | None] = [hit.passage for hit in found.hits[number]]
        return passages + [None] * (found.rows_NK.shape[1] - len(passages))

    def _collate(
        self, examples: Sequence[Example], vectors_BKD: np.ndarray, passages: Sequence[Sequence[Passage | None]]
    ) -> TrainBatch:
        prompts, answers = [], []
        for example, row in zip(examples, passages, strict=True):
            answer = self._prompts.answer_ids(example.answers[0], self._max_answer_tokens)
            for passage in row:
                prompts.append(self._prompts.ids(example.question, passage))
                answers.append(answer)
        device = self._model.generator.device
        empty = torch.zeros((len(examples), 0), dtype=torch.long, device=device)
        encoder = self._model.encoder
        ids, mask = encoder.question_tensors([e.question for e in examples]) if encoder else (empty, empty)
        vectors = torch.from_numpy(vectors_BKD.copy()).to(device)
        return TrainBatch(ids, mask, vectors, self._model.generator.answer_batch(prompts, answers))
