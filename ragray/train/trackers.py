"""Trackers of experiments. In: numbers of a step. Out: TensorBoard files where it is installed; MLflow and Weights & Biases where named.

Where MLflow and Weights & Biases write, their own environment variables say (MLFLOW_TRACKING_URI, WANDB_MODE and so on), as the first
training worker has them. A run that goes on after a crash goes on there as well: `TRACKED_FILE` keeps its ids.
"""

from __future__ import annotations

import importlib.util
import json
import logging
import os
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from ragray.artifact.files import write_json
from ragray.errors import MissingPackageError, TrainingError, first_line
from ragray.train.validation.judge import PREFIX

TENSORBOARD_FOLDER = "tensorboard"
TRACKED_FILE = "trackers.json"
PROJECT = "ragray"
"""Experiment of MLflow, project of Weights & Biases, unless their environment variables name another."""

logger = logging.getLogger("ragray")


class Tracker(Protocol):
    """Takes the numbers of a run, step by step; those of a validation come after the step that they belong to."""

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Take the numbers of a step."""

    def close(self) -> None:
        """End the run there, whether or not it has trained to its end."""


def require_trackers(names: Sequence[str]) -> None:
    """Raise `MissingPackageError`, which holds the command that installs it, where a named tracker is not installed."""
    for name in names:
        if importlib.util.find_spec(name) is None:
            raise MissingPackageError(f"train.trackers={name} needs a package; run: pip install {name}")


def open_trackers(folder: Path, start_step: int, names: Sequence[str]) -> list[Tracker]:
    """Open those that are named for a run that goes on after ``start_step``, and TensorBoard where it is installed.

    Raises:
        MissingPackageError: a named one is not installed here.
        TrainingError: it cannot be reached.
    """
    require_trackers(names)
    opened: list[Tracker] = []
    if importlib.util.find_spec("tensorboard") is not None:
        opened.append(TensorBoard(folder, start_step))
    return opened + [Guarded(name, _opened(name, folder)) for name in names]


def _opened(name: str, folder: Path) -> Tracker:
    kinds: dict[str, Callable[[Path], Tracker]] = {"mlflow": Mlflow, "wandb": WeightsAndBiases}
    try:
        return kinds[name](folder)
    except Exception as err:
        raise TrainingError(
            f"train.trackers={name}: no run can be begun there ({first_line(err).strip()}); mend that, or leave {name} out"
        ) from err


def grouped(name: str) -> str:
    """Return a number's name with its group: `train/loss`, `dev/f1`."""
    return f"dev/{name.removeprefix(PREFIX)}" if name.startswith(PREFIX) else f"train/{name}"


class TensorBoard:
    """Event files below the run; those of steps that are computed again are purged."""

    def __init__(self, folder: Path, start_step: int) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self._board = SummaryWriter(str(folder / TENSORBOARD_FOLDER), purge_step=start_step + 1)

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Write the numbers of a step."""
        for name, value in values.items():
            self._board.add_scalar(grouped(name), value, step)

    def close(self) -> None:
        """Write what is left."""
        self._board.close()


class Mlflow:
    """A run of MLflow; where MLFLOW_TRACKING_URI names no server, in `mlflow.db` of the run's folder."""

    def __init__(self, folder: Path) -> None:
        from mlflow.tracking import MlflowClient

        uri = os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{folder.resolve() / 'mlflow.db'}"
        self._client: Any = MlflowClient(tracking_uri=uri)
        self._run = _tracked(folder, "mlflow", lambda: self._created(folder.name))
        self._client.update_run(self._run, status="RUNNING")

    def _created(self, name: str) -> str:
        experiment = os.environ.get("MLFLOW_EXPERIMENT_NAME") or PROJECT
        found = self._client.get_experiment_by_name(experiment)
        number = found.experiment_id if found else self._client.create_experiment(experiment)
        return str(self._client.create_run(number, run_name=name).info.run_id)

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Send the numbers of a step."""
        from mlflow.entities import Metric

        now = int(time.time() * 1000)
        metrics = [Metric(grouped(name), value, now, step) for name, value in values.items()]
        self._client.log_batch(self._run, metrics=metrics)

    def close(self) -> None:
        """End the run there."""
        self._client.set_terminated(self._run)


class WeightsAndBiases:
    """A run of Weights & Biases; what it writes on this machine lies in the run's folder."""

    def __init__(self, folder: Path) -> None:
        import wandb

        project = os.environ.get("WANDB_PROJECT") or PROJECT
        name = _tracked(folder, "wandb", lambda: uuid.uuid4().hex[:8])
        self._run: Any = wandb.init(project=project, name=folder.name, id=name, resume="allow", dir=str(folder))
        # Its own steps only grow, and the figures of a validation come later than their step.
        self._run.define_metric("step")
        self._run.define_metric("*", step_metric="step")

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Send the numbers of a step."""
        self._run.log({"step": step, **{grouped(name): value for name, value in values.items()}})

    def close(self) -> None:
        """End the run there."""
        self._run.finish()


class Guarded:
    """A tracker that may fail, as a server may be away: it is said once, and training goes on without it."""

    def __init__(self, name: str, tracker: Tracker) -> None:
        self._name = name
        self._tracker: Tracker | None = tracker

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Pass the numbers of a step on."""
        if self._tracker is not None:
            try:
                self._tracker.log(step, values)
            except Exception as err:
                self._given_up(err, f"step {step}")

    def close(self) -> None:
        """End the run there, if it has not failed."""
        if self._tracker is not None:
            try:
                self._tracker.close()
            except Exception as err:
                self._given_up(err, "its end")

    def _given_up(self, error: Exception, when: str) -> None:
        self._tracker = None
        logger.warning("train: %s took nothing more from %s on (%s)", self._name, when, first_line(error))


def _tracked(folder: Path, name: str, new: Callable[[], str]) -> str:
    """Return the id that a run has with a tracker; a new one is written down."""
    path = folder / TRACKED_FILE
    known: dict[str, str] = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    if name not in known:
        known[name] = new()
        write_json(path, known)
    return known[name]
