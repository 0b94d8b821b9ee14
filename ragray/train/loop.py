"""The training loop; knows neither Ray nor the loss. In: components, an objective, examples. Out: steps, resumable at any checkpoint.

The retrieval for step t+1 runs while step t computes; so the question vectors that it searches with are one update old.
"""

from __future__ import annotations

import contextlib
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from math import isfinite
from pathlib import Path
from time import monotonic
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor, nn

from ragray.config import TrainConfig
from ragray.errors import TrainingError
from ragray.index.search.result import SearchResult
from ragray.train.checkpoint import load_model, load_pending, save_model, save_pending
from ragray.train.components import Components
from ragray.train.objectives.objective import CompletedSearch, Objective, SearchFuture
from ragray.train.schedule import Progress, Rank, Schedule
from ragray.types import Example

B = TypeVar("B")


@dataclass(frozen=True, slots=True)
class StepMetrics:
    """One finished optimizer step, as this rank saw it; ``loss`` and ``metrics`` are means over its own examples."""

    step: int
    epoch: float
    loss: float
    learning_rate: float
    grad_norm: float
    seconds: float
    wait_seconds: float
    """Time spent waiting for passages; near zero while retrieval keeps up with the steps."""
    metrics: Mapping[str, float] = field(default_factory=dict)
    """What the objective reports beside its loss."""


@dataclass(frozen=True, slots=True)
class _Update:
    """The outcome of an optimizer step."""

    loss: float
    grad_norm: float
    metrics: Mapping[str, float]


class TrainLoop(Generic[B]):
    """Runs the optimizer steps of one rank."""

    def __init__(
        self,
        components: Components,
        objective: Objective[B],
        examples: Sequence[Example],
        *,
        train: TrainConfig,
        rank: Rank | None = None,
        parallel: nn.Module | None = None,
        groups: tuple[int, ...] = (),
    ) -> None:
        """``parallel``: the components wrapped so that gradients are averaged over the ranks (DistributedDataParallel).

        ``groups``: of each example; those of one group stand apart in the order of every epoch.
        """
        self.components = components
        self.rank = rank or Rank()
        self.schedule = Schedule(len(examples), self.rank.world_size, train, groups)
        self.optimizer = torch.optim.AdamW(components.parameter_groups(), fused=True)
        self.progress = Progress()
        self.objective = objective
        self._parallel: Any = parallel if parallel is not None else components
        self._examples = examples
        self._train = train
        self._restored: SearchResult | None = None
        self._saved_step: int | None = None
        self._pending: SearchFuture | None = None
        self._ahead: list[B] = []
        self._waited = 0.0
        self._stop = False

    @property
    def num_steps(self) -> int:
        """Optimizer steps of the whole run, as far as this number of ranks computes the rest of it."""
        return self.schedule.num_steps(self.progress)

    def restore(self, folder: Path) -> None:
        """Go on from a checkpoint that any number of ranks wrote.

        With the same number of ranks the run goes on exactly as if nothing had happened. With another one the weights, the
        optimizer's state and the order of the examples go on. The retrieval for the next step is made anew, with vectors of
        the restored question encoder, and random numbers (dropout) differ. `Schedule` says what becomes of the steps.
        """
        saved = load_model(folder, self.components, self.optimizer)
        self.progress, self._saved_step = saved.progress, saved.step
        if saved.world_size == self.rank.world_size:
            self._restored = load_pending(folder, self.rank.rank)

    def save(self, folder: Path) -> None:
        """Write this rank's part of a checkpoint: the weights from rank 0, the retrieval in flight from every rank.

        Raises:
            TrainingError: a weight is not finite; nothing was written.
        """
        self._require_finite_weights()
        if self.rank.rank == 0:
            save_model(folder, self.components, self.optimizer, self.progress, self.rank.world_size)
        self._saved_step = self.progress.step
        if self._pending is not None:
            save_pending(folder, self.rank.rank, self._pending.result())

    def run(self, on_step: Callable[[StepMetrics], None]) -> None:
        """Compute all remaining steps; ``on_step`` is called after each and may `save`.

        Raises:
            TrainingError: a weight, a loss or a gradient is not finite, or the weights of the last step give such a loss.
        """
        self._require_finite_weights()
        self._parallel.train()
        self._ahead = []
        self._pending = CompletedSearch(self._restored) if self._restored else self._retrieve(self.progress)
        while self._pending is not None and not self._stop:
            on_step(self._step(self._pending))
        self._require_finite_weights()

    def stop(self) -> None:
        """End `run` after the step that ``on_step`` was called for, or before its first."""
        self._stop = True

    def _step(self, pending: SearchFuture) -> StepMetrics:
        started, self._waited = monotonic(), 0.0
        found = self._wait(pending)
        after = self.schedule.after(self.progress)
        self._pending = self._retrieve(after)
        rate = self._set_rate()
        update = self._update(found)
        self.progress = after
        seconds = monotonic() - started
        epoch = self.schedule.epoch(after)
        return StepMetrics(
            after.step, epoch, update.loss, rate, update.grad_norm, seconds, self._waited, update.metrics
        )

    def _wait(self, pending: SearchFuture) -> SearchResult:
        """Return what a search found; count the time until then as waiting."""
        started = monotonic()
        found = pending.result()
        self._waited += monotonic() - started
        return found

    def _retrieve(self, progress: Progress) -> SearchFuture | None:
        """Begin the retrieval for the step that follows ``progress``; None where the run ends there."""
        if progress.step >= self.schedule.num_steps(progress):
            return None
        return self.objective.retrieve(self._step_examples(progress))

    def _step_examples(self, progress: Progress) -> list[Example]:
        return [self._examples[number] for number in self.schedule.examples(progress, self.rank.rank)]

    def _update(self, found: SearchResult) -> _Update:
        """Take one optimizer step on this rank's examples."""
        # The hash of a tuple of integers is the same in every process, and mixes them: the ranks of a step, and the steps of
        # a rank, draw unrelated dropout masks, and a resumed run draws those that it would have drawn.
        torch.manual_seed(hash((self._train.seed, self.progress.step, self.rank.rank)))
        batches = self._ahead or list(self._micro_batches(found, self.progress))
        computed = self._backward(batches)
        self._collate_ahead()
        means = {name: sum(share.item() for share in shares) for name, shares in computed.items()}
        loss = means.pop("loss")
        parameters = [parameter for _, parameter in self.components.trainable()]
        length = nn.utils.get_total_norm([p.grad for p in parameters if p.grad is not None])
        norm = float(length)
        # Gradients are means over all ranks, so that after a loss that is not finite on one of them all ranks stop here: a
        # rank that went on alone would wait for the others in the next backward pass.
        if not (isfinite(loss) and isfinite(norm)):
            raise self._stopped(f"the loss is {loss:g}, the gradient's length {norm:g}", batches)
        nn.utils.clip_grads_with_norm_(parameters, self._train.max_grad_norm, length)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        if self._pending is None:
            self._require_finite_loss(batches[-1])
        return _Update(loss, norm, means)

    def _collate_ahead(self) -> None:
        """Make the micro-batches of the next step where a GPU computes meanwhile; reading a loss from it waits for all it has to do."""
        after = self.schedule.after(self.progress)
        ahead = self._pending if self.components.computes_aside else None
        self._ahead = list(self._micro_batches(self._wait(ahead), after)) if ahead else []

    def _micro_batches(self, found: SearchResult, progress: Progress) -> Iterator[B]:
        examples, epoch = self._step_examples(progress), self.schedule.epoch_number(progress)
        for start in range(0, len(examples), self._train.batch_size):
            part = slice(start, start + self._train.batch_size)
            yield self.objective.collate(examples[part], found.part(part), epoch=epoch)

    def _backward(self, batches: Sequence[B]) -> Mapping[str, Sequence[Tensor]]:
        """Compute the gradients of a step; return what each micro-batch adds to the mean loss and to other means."""
        added: defaultdict[str, list[Tensor]] = defaultdict(list)
        # Every rank reaches the last micro-batch, where the gradients are averaged over all of them; before it, each adds up
        # its own.
        quiet = getattr(self._parallel, "no_sync", contextlib.nullcontext)
        for number, batch in enumerate(batches, 1):
            with contextlib.nullcontext() if number == len(batches) else quiet():
                with self.components.autocast():
                    loss = self._parallel(self.objective.loss, batch)
                    means = {**loss.metrics, "loss": loss.value}
                    shares = {name: mean / len(batches) for name, mean in means.items()}
                shares["loss"].backward()
            for name, share in shares.items():
                added[name].append(share.detach())
        return added

    def _require_finite_loss(self, batch: B) -> None:
        """Raise `TrainingError` where the weights of the last step cannot be used: no later step would notice."""
        with torch.no_grad():
            loss = float(self.objective.loss(batch).value)
        if not isfinite(loss):
            raise self._stopped(f"the loss after the last update is {loss:g}", [batch])

    def _require_finite_weights(self) -> None:
        if found := self.components.weight_not_finite():
            raise self._stopped(found, [])

    def _stopped(self, found: str, batches: Sequence[B]) -> TrainingError:
        """Describe what is not finite: the step, the component, the last good checkpoint."""
        cause = next(filter(None, map(self._cause, batches)), "")
        kept = (
            f"the last good checkpoint is that of step {self._saved_step}"
            if self._saved_step
            else "no checkpoint was written yet"
        )
        return TrainingError(
            f"training stopped at step {self.progress.step + 1} of {self.num_steps}: {found}{f' ({cause})' if cause else ''}; "
            f"{kept}. Lower train.generator_lr or train.encoder_lr, or use undamaged weights, and begin again with --restart"
        )

    @torch.no_grad()
    def _cause(self, batch: B) -> str:
        components = self.components
        return components.weight_not_finite() or self.objective.not_finite(batch) or components.gradient_not_finite()

    def _set_rate(self) -> float:
        """Set every group's learning rate for this step; return the largest."""
        for group in self.optimizer.param_groups:
            group["lr"] = group["peak_lr"] * self.schedule.rate(self.progress)
        return max(float(group["lr"]) for group in self.optimizer.param_groups)
