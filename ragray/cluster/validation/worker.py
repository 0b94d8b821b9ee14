"""Validations as a training worker sees them. In: its loop, its log. Out: what is validated when, who stops, the best weights."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from ragray.cluster.fit import STATE_FOLDER
from ragray.config import TrainConfig
from ragray.run import BestValidation
from ragray.train.metrics import MetricsLog, read_metrics
from ragray.train.validation.judge import Validation

if TYPE_CHECKING:
    from ragray.cluster.train_worker import WorkerSetup
    from ragray.train.loop import TrainLoop
    from ragray.train.validation.queue import Validations


class WorkerValidations:
    """What validations mean to one training worker: the first one keeps their account, all stop together."""

    def __init__(self, setup: WorkerSetup, loop: TrainLoop[Any], log: MetricsLog | None) -> None:
        """``loop`` stands where training is to go on; without ``log`` this is not the first worker."""
        self._loop = loop
        self._train: TrainConfig = setup.config.train
        self._kept = self._open(setup, loop, log) if setup.validation and log else None
        self._wanted = setup.validation is not None
        if self._wanted:
            self._stop_together()

    def _open(self, setup: WorkerSetup, loop: TrainLoop[Any], log: MetricsLog) -> Validations:
        from ragray.stages.validation.measure import LocalValidator
        from ragray.train.validation.queue import FOLDER, Validations

        assert setup.validation is not None
        out, dev = Path(setup.out), setup.validation.dev
        validator = setup.validation.validator or LocalValidator(loop.components, loop.objective, dev, setup.config)
        earlier = [one for line in read_metrics(out) if (one := Validation.of_line(line))]
        kept = Validations(out / STATE_FOLDER / FOLDER, dev.plan, validator, log, earlier)
        kept.resume(loop.progress.step)
        return kept

    def after(self, step: int, *, final: bool) -> None:
        """Validate the weights of a step where its turn has come; end the loop where validations bring no more gain."""
        if not self._wanted:
            return
        due = final or step % self._train.validation_steps == 0
        if self._kept:
            self._kept.collect()
            if due:
                self._kept.submit(step, self._loop.components)
                self._kept.collect()
        # Every rank comes to the same decision here: the others wait for what the first one knows.
        if due or step % self._train.logging_steps == 0:
            self._stop_together()

    def saved(self, step: int) -> None:
        """Take note of a checkpoint that was written."""
        if self._kept:
            self._kept.saved(step)

    def finish(self) -> BestValidation | None:
        """Put the weights of the best validation into the components of the first worker; return which it is, if there is any."""
        if not self._kept:
            return None
        judged = self._kept.finish(self._loop.components)
        if judged.best is None:
            return None
        metric = self._kept.plan.metric
        return BestValidation(
            step=judged.best.step, metric=metric, value=judged.best.figures[metric], num_scored=judged.num_scored,
            num_failed=judged.num_failed,
        )  # fmt: skip

    def _stop_together(self) -> None:
        from ragray.cluster.train_worker import mean_over_ranks

        if not self._train.patience:
            return
        ended = self._kept is not None and self._kept.judgement.ended
        if mean_over_ranks(float(ended), self._loop.rank.world_size) > 0:
            self._loop.stop()
