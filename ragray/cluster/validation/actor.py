"""Validations beside training. In: what a training worker needs, dev examples. Out: an actor that measures weights, where there is room.

Ray Train has validations of its own. They are not used, as a validation whose process dies ends the training there (Ray 2.60 catches what
it raises, not its death), and each loads the models anew.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ragray.cluster.failures import cause, is_death
from ragray.cluster.resources import Want, has_room, wanted
from ragray.config import TrainConfig
from ragray.errors import TrainingError, first_line
from ragray.stages.validation.dev import DevSet

if TYPE_CHECKING:
    from ragray.cluster.train_worker import WorkerSetup
    from ragray.stages.validation.measure import LocalValidator
    from ragray.train.validation.queue import Validator

READY_S = 60.0
"""An actor that has no place after so long gets none."""

logger = logging.getLogger("ragray")


@dataclass(frozen=True, slots=True)
class ValidationSetup:
    """What a run validates, and who measures it (None: the first worker, between two steps)."""

    dev: DevSet
    validator: Validator | None = None


class Measuring:
    """Measures weights; an actor that loads the models of a run once."""

    def __init__(self, setup: WorkerSetup, dev: DevSet) -> None:
        self._setup = setup
        self._dev = dev
        self._validator: LocalValidator | None = None

    def ready(self) -> None:
        """Return."""

    def measure(self, weights: str) -> dict[str, float]:
        """Return the figures of the weights of a file; raises as `LocalValidator.measure` does."""
        if self._validator is None:
            self._validator = self._load()
        return self._validator.measure(Path(weights))

    def _load(self) -> LocalValidator:
        import torch

        from ragray.cluster.train_worker import make_objective
        from ragray.stages.validation.measure import LocalValidator

        train = self._setup.config.train
        torch.set_num_threads(train.threads_per_worker or max(1, int(train.cpus_per_worker)))
        return LocalValidator(*make_objective(self._setup), self._dev, self._setup.config)


@contextmanager
def validating(setup: WorkerSetup, dev: DevSet | None, others: Sequence[Want]) -> Iterator[ValidationSetup | None]:
    """Start an actor for validations, if the cluster has room for it beside the ``others`` that are still to come; end it with the block.

    It reserves what one training worker does.
    """
    if dev is None:
        yield None
        return
    actor = _actor(setup, dev, others)
    try:
        yield ValidationSetup(dev, RemoteValidator(actor) if actor else None)
    finally:
        if actor is not None:
            import ray

            ray.kill(actor)


def _actor(setup: WorkerSetup, dev: DevSet, others: Sequence[Want]) -> Any:
    """Return a running actor, None where there is no room."""
    import ray

    train = setup.config.train
    want = validator_want(train)
    if has_room([*others, want]):
        options = {"num_cpus": want.cpus, "num_gpus": want.gpus, "max_restarts": -1, "max_task_retries": 1}
        actor = ray.remote(**options)(Measuring).remote(setup, dev)
        if ray.wait([actor.ready.remote()], timeout=READY_S)[0]:
            return actor
        ray.kill(actor)
    logger.info("train: no room for %s beside the workers: validations run between two steps", wanted([want]))
    return None


def validator_want(train: TrainConfig) -> Want:
    """Return what the actor for validations reserves."""
    return Want("validator", 1, (), train.cpus_per_worker, train.gpus_per_worker)


@dataclass(frozen=True, slots=True)
class RemoteValidator:
    """The port `Validator` over the actor."""

    actor: Any

    def submit(self, weights: Path) -> RemoteFuture:
        """Begin to measure the weights of a file."""
        return RemoteFuture(self.actor.measure.remote(str(weights)))


@dataclass(frozen=True, slots=True)
class RemoteFuture:
    """A validation that the actor does."""

    reference: Any

    def done(self) -> bool:
        """Return whether it has ended."""
        import ray

        return bool(ray.wait([self.reference], timeout=0)[0])

    def result(self) -> Mapping[str, float]:
        """Wait for the figures; raises what the actor raised.

        Raises:
            TrainingError: its process died twice.
        """
        import ray

        try:
            figures: Mapping[str, float] = ray.get(self.reference)
        except Exception as err:
            if is_death(err):
                raise TrainingError(f"the process of the validation died twice ({first_line(err)})") from None
            raise cause(err) from None
        return figures
