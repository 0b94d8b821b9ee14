"""The training loop; knows no Ray. In: a model, examples, a searcher. Out: steps, reported as they happen, resumable at any checkpoint.

The passages of step t+1 are retrieved while step t computes; so the question vectors that retrieve them are one update old.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import isfinite
from pathlib import Path
from time import monotonic
from typing import Any, Protocol

import torch
from torch import nn

from ragray.config import GenerateConfig, TrainConfig
from ragray.embed.encoder import Encoder, Vectors
from ragray.errors import TrainingError
from ragray.index.search.reader import IndexReader
from ragray.index.search.result import SearchResult
from ragray.train.batch import Collator, Schedule
from ragray.train.checkpoint import Progress, load_model, load_pending, save_model, save_pending
from ragray.train.model import RagModel, TrainBatch
from ragray.types import Example


class Pending(Protocol):
    """A search under way."""

    def result(self) -> SearchResult:
        """Wait for it."""


class Searcher(Protocol):
    """Whatever searches for the loop: an index in this process, or a pool of retriever actors."""

    def submit(self, vectors_ND: Vectors, k: int) -> Pending:
        """Begin a search whose result holds the passages' vectors, and return at once."""


@dataclass(frozen=True, slots=True)
class Done:
    """A search that is over; what a local searcher and a restored checkpoint hand out."""

    found: SearchResult

    def result(self) -> SearchResult:
        """Return it."""
        return self.found


@dataclass(frozen=True, slots=True)
class LocalSearcher:
    """Searches an index in this process."""

    reader: IndexReader

    def submit(self, vectors_ND: Vectors, k: int) -> Pending:
        """Search at once."""
        return Done(self.reader.search(vectors_ND, k, with_vectors=True))


@dataclass(frozen=True, slots=True)
class StepMetrics:
    """One finished optimizer step, as this worker saw it (``loss``: mean over its own examples)."""

    step: int
    epoch: float
    loss: float
    learning_rate: float
    grad_norm: float
    seconds: float
    wait_seconds: float
    """Time spent waiting for passages; near zero while retrieval keeps up with the steps."""


@dataclass(frozen=True, slots=True)
class Worker:
    """Which part of the run this process computes."""

    rank: int = 0
    world_size: int = 1


class TrainLoop:
    """Runs the optimizer steps of one worker."""

    def __init__(
        self,
        model: RagModel,
        encoder: Encoder,
        searcher: Searcher,
        examples: Sequence[Example],
        *,
        train: TrainConfig,
        generate: GenerateConfig,
        k: int,
        worker: Worker | None = None,
        parallel: nn.Module | None = None,
    ) -> None:
        """Take ``k`` passages per example; ``parallel`` is the model wrapped for data-parallel gradients, else the model itself."""
        self.model = model
        self.worker = worker or Worker()
        self.schedule = Schedule(len(examples), self.worker.world_size, train)
        self.optimizer = torch.optim.AdamW(model.parameter_groups(train))
        self._parallel: Any = parallel if parallel is not None else model
        self._encoder = encoder
        self._searcher = searcher
        self._examples = examples
        self._train = train
        self._k = k
        self._collator = Collator(model, train, generate)
        self._restored: SearchResult | None = None
        self._saved_step: int | None = None
        self._pending: Pending | None = None
        self.step = 0

    def restore(self, folder: Path) -> None:
        """Go on from a checkpoint; with as many workers as it was written by, exactly as if nothing had happened."""
        progress = load_model(folder, self.model, self.optimizer)
        self.step = self._saved_step = progress.step
        if progress.world_size == self.worker.world_size:
            self._restored = load_pending(folder, self.worker.rank)

    def save(self, folder: Path) -> None:
        """Write this worker's part of a checkpoint: the weights from rank 0, the retrieval in flight from everyone.

        Raises:
            TrainingError: a weight is not finite; nothing was written.
        """
        self._require_finite_weights()
        if self.worker.rank == 0:
            save_model(folder, self.model, self.optimizer, Progress(self.step, self.worker.world_size))
        self._saved_step = self.step
        if self._pending is not None:
            save_pending(folder, self.worker.rank, self._pending.result())

    def run(self, on_step: Callable[[StepMetrics], None]) -> None:
        """Compute all remaining steps; ``on_step`` is called after each and may `save`.

        Raises:
            TrainingError: a weight, a loss or a gradient is not finite, or the weights of the last step give such a loss.
        """
        self._require_finite_weights()
        self._parallel.train()
        self._pending = Done(self._restored) if self._restored else self._retrieve(self.step)
        while self.step < self.schedule.num_steps:
            started = monotonic()
            assert self._pending is not None
            found = self._pending.result()
            waited = monotonic() - started
            self._pending = self._retrieve(self.step + 1)
            rate = self._set_rate()
            loss, norm = self._update(found)
            self.step += 1
            epoch = self.step / self.schedule.steps_per_epoch
            on_step(StepMetrics(self.step, epoch, loss, rate, norm, monotonic() - started, waited))
        self._require_finite_weights()

    def _retrieve(self, step: int) -> Pending | None:
        if step >= self.schedule.num_steps:
            return None
        questions = [self._examples[number].question for number in self.schedule.examples(step, self.worker.rank)]
        return self._searcher.submit(self._encoder.encode_questions(questions), self._k)

    def _update(self, found: SearchResult) -> tuple[float, float]:
        """Take one optimizer step on this worker's examples; return its loss and the length of the gradient."""
        torch.manual_seed(hash((self._train.seed, self.step, self.worker.rank)))
        numbers = self.schedule.examples(self.step, self.worker.rank)
        batches = list(self._collator.micro_batches([self._examples[n] for n in numbers], found))
        total = 0.0
        for number, batch in enumerate(batches):
            last = number == len(batches) - 1
            quiet = getattr(self._parallel, "no_sync", contextlib.nullcontext)
            with contextlib.nullcontext() if last else quiet():
                with torch.autocast("cuda", torch.bfloat16, enabled=self.model.generator.device.type == "cuda"):
                    loss = self._parallel(batch) / len(batches)
                loss.backward()
            total += loss.item()
        parameters = [parameter for _, parameter in self.model.trainable()]
        length = nn.utils.get_total_norm([p.grad for p in parameters if p.grad is not None])
        norm = float(length)
        # Gradients are means over all workers, so that after a loss that is not finite on one of them all workers stop here.
        if not (isfinite(total) and isfinite(norm)):
            raise self._stopped(f"the loss is {total:g}, the gradient's length {norm:g}", batches)
        nn.utils.clip_grads_with_norm_(parameters, self._train.max_grad_norm, length)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        if self.step + 1 == self.schedule.num_steps:
            self._require_finite_loss(batches[-1])
        return total, norm

    def _require_finite_loss(self, batch: TrainBatch) -> None:
        """Raise `TrainingError` where the weights of the last step cannot be used: no later step would notice."""
        with torch.no_grad():
            loss = float(self.model(batch))
        if not isfinite(loss):
            raise self._stopped(f"the loss after the last update is {loss:g}", [batch])

    def _require_finite_weights(self) -> None:
        if found := self.model.weight_not_finite():
            raise self._stopped(found, [])

    def _stopped(self, found: str, batches: Sequence[TrainBatch]) -> TrainingError:
        """Describe what is not finite: the step, the component, the last good checkpoint."""
        causes = (self.model.not_finite(batch) for batch in batches)
        cause = next(filter(None, causes), "")
        kept = (
            f"the last good checkpoint is that of step {self._saved_step}"
            if self._saved_step
            else "no checkpoint was written yet"
        )
        return TrainingError(
            f"training stopped at step {self.step + 1} of {self.schedule.num_steps}: {found}{f' ({cause})' if cause else ''}; {kept}. "
            "Lower train.generator_lr or train.encoder_lr, or use undamaged weights, and begin again with --restart"
        )

    def _set_rate(self) -> float:
        """Set every group's learning rate for this step; return the largest."""
        for group in self.optimizer.param_groups:
            group["lr"] = group["peak_lr"] * self.schedule.rate(self.step)
        return max(float(group["lr"]) for group in self.optimizer.param_groups)
