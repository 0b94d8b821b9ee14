"""The plan of a run, pure arithmetic. In: a number of examples, ranks and settings. Out: the examples and learning rate of a step."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from ragray.config import TrainConfig
from ragray.train.groups import spread


@dataclass(frozen=True, slots=True)
class Rank:
    """Which of the data-parallel processes this is, counted from 0."""

    rank: int = 0
    world_size: int = 1


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a run is.

    ``examples_seen`` is ``num_examples`` per whole epoch, plus the place in the order of the epoch under way. It leaves out
    the examples that only fill up the last step of an epoch. It means the same whatever number of ranks computed the steps;
    ``step``, the number of optimizer steps, does not.
    """

    step: int = 0
    examples_seen: int = 0


@dataclass(frozen=True, slots=True)
class Schedule:
    """Which examples belong to which step, and the learning rate there.

    A step takes the next ``batch_size * gradient_accumulation`` examples for every rank. The last step of an epoch is filled
    up with the beginning of the same epoch, so that every rank always has equally many.

    A run may go on with another number of ranks. What stays the same: the order of the examples in every epoch, and the place
    in it, so that each example is seen as often as it should. What changes, unless ``gradient_accumulation`` makes up for it:
    the examples per step, and so the number of steps that are left. The learning rate goes on from where it was.
    """

    num_examples: int
    world_size: int
    config: TrainConfig
    groups: tuple[int, ...] = ()
    """Of each example; those of one group stand apart in every epoch (`ragray.train.groups`). Empty: as chance has it."""

    @property
    def step_size(self) -> int:
        """Examples per optimizer step, over all ranks."""
        return self.config.batch_size * self.config.gradient_accumulation * self.world_size

    @property
    def steps_per_epoch(self) -> int:
        """Optimizer steps per epoch."""
        return math.ceil(self.num_examples / self.step_size)

    def num_steps(self, progress: Progress | None = None) -> int:
        """Return the optimizer steps of the whole run, of which those up to ``progress`` are done."""
        done = progress or Progress()
        epochs, last_steps = divmod(self._steps_by_epochs, self.steps_per_epoch)
        epoch, place = divmod(done.examples_seen, self.num_examples)
        if epoch < epochs:  # each epoch ends with a step of its own, which may be partly filled up
            in_epoch = math.ceil((self.num_examples - place) / self.step_size)
            left = in_epoch + (epochs - epoch - 1) * self.steps_per_epoch + last_steps
        else:
            left = math.ceil((last_steps * self.step_size - place) / self.step_size)
        by_epochs = done.step + max(0, left)
        return min(by_epochs, self.config.max_steps) if self.config.max_steps else by_epochs

    def after(self, progress: Progress) -> Progress:
        """Return the progress after one further step."""
        epoch, place = divmod(progress.examples_seen, self.num_examples)
        place = min(place + self.step_size, self.num_examples)
        return Progress(progress.step + 1, epoch * self.num_examples + place)

    def examples(self, progress: Progress, rank: int) -> list[int]:
        """Return the numbers of the examples that a rank sees in the next step, in the order of its micro-batches."""
        epoch, place = divmod(progress.examples_seen, self.num_examples)
        share = self.step_size // self.world_size
        start = place + rank * share
        order = epoch_order(self.config.seed, epoch, self.num_examples, self.groups)
        return [int(order[number % self.num_examples]) for number in range(start, start + share)]

    def epoch_number(self, progress: Progress) -> int:
        """Return the number, from 0, of the epoch that the next step belongs to."""
        return progress.examples_seen // self.num_examples

    def epoch(self, progress: Progress) -> float:
        """Return the epochs that are done, the last one in part."""
        return self._steps_of_this_size(progress) / self.steps_per_epoch

    def rate(self, progress: Progress) -> float:
        """Return the factor of the peak learning rate in the next step: linear warm-up, then as ``train.lr_schedule`` says."""
        done, total = self._done_of_total(progress)
        warmup = max(1, self.config.warmup_steps or round(total * self.config.warmup_ratio))
        if done < warmup:
            return min(1.0, (done + 1) / warmup)
        left = max(0.0, (total - done) / max(1, total - warmup))
        return {"linear": left, "cosine": (1 - math.cos(math.pi * left)) / 2, "constant": 1.0}[self.config.lr_schedule]

    @property
    def _steps_by_epochs(self) -> int:
        return max(1, round(self.steps_per_epoch * self.config.epochs))

    def _steps_of_this_size(self, progress: Progress) -> float:
        """Return how many steps of this size get as far as ``progress``; steps of another size give a fraction."""
        epoch, place = divmod(progress.examples_seen, self.num_examples)
        return epoch * self.steps_per_epoch + place / self.step_size

    def _done_of_total(self, progress: Progress) -> tuple[float, int]:
        """Return steps done and steps in all, by whichever limit ends the run first."""
        by_epochs = (self._steps_of_this_size(progress), self._steps_by_epochs)
        by_steps = (float(progress.step), self.config.max_steps)
        limits = [by_epochs, by_steps] if self.config.max_steps else [by_epochs]
        return max(limits, key=lambda limit: (limit[0] / limit[1], -limit[1]))


@lru_cache(maxsize=2)  # the epoch that computes, and the next one where its first step is retrieved ahead
def epoch_order(seed: int, epoch: int, num_examples: int, groups: tuple[int, ...] = ()) -> np.ndarray:
    """Return the order of the examples in an epoch; with ``groups``, those of one group stand apart."""
    # numpy hashes the two numbers of a seed into one state: neighbouring epochs and seeds give unrelated orders.
    order = np.random.default_rng([seed, epoch]).permutation(num_examples)
    return np.array(spread(order.tolist(), groups)) if groups else order
