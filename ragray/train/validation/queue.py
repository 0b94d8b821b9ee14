"""The validations of a run. In: weights of its steps, a validator. Out: lines of metrics, the weights of the best; a killed run goes on.

Everything that has to survive is on disk: the weights to validate lie in the run's state folder until they have a line of metrics.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Protocol

from ragray.errors import RagrayError, first_line
from ragray.train.components import Components
from ragray.train.metrics import PLACES, MetricsLog
from ragray.train.validation.judge import Judgement, Validation, ValidationPlan, best_first, judge
from ragray.train.validation.weights import load_weights, save_weights

FOLDER = "validated"
"""Below a run's state folder: the weights that are to be validated, and those of the best."""

MOST_WAITING = 4
"""So many validations wait at most; with one more training waits for the first of them, so that the disk does not fill up."""


class ValidationFuture(Protocol):
    """A validation that is under way."""

    def done(self) -> bool:
        """Return whether `result` returns at once."""

    def result(self) -> Mapping[str, float]:
        """Wait for the figures; raises whatever went wrong."""


class Validator(Protocol):
    """Measures weights: in this process between two steps, or elsewhere beside them; one after the other."""

    def submit(self, weights: Path) -> ValidationFuture:
        """Begin to measure the weights of a file."""


class Validations:
    """Which weights of a run are validated, and what came of it; for one rank, which writes the metrics."""

    def __init__(
        self, folder: Path, plan: ValidationPlan, validator: Validator, log: MetricsLog, earlier: Iterable[Validation]
    ) -> None:
        """``folder`` keeps the weights, ``log`` takes the figures; ``earlier`` are those that the run has from before a crash."""
        self._folder = folder
        self.plan = plan
        self._validator = validator
        self._log = log
        self._known = list(earlier)
        self._waiting: deque[tuple[int, ValidationFuture]] = deque()
        self._saved = self._safe = 0

    @property
    def judgement(self) -> Judgement:
        """What the validations come to that have ended."""
        return judge(self._known, self.plan.metric, self.plan.patience)

    def resume(self, step: int) -> None:
        """Go on at a step: forget the weights of later ones, which will be computed again, and validate those that have no figures."""
        self.saved(step)
        known = {one.step for one in self._known}
        for path in sorted(self._folder.glob("*.safetensors")):
            if int(path.stem) > step:
                path.unlink()
            elif int(path.stem) not in known:
                self._waiting.append((int(path.stem), self._validator.submit(path)))

    def saved(self, step: int) -> None:
        """Take note of a checkpoint of a step, after which the one before it is certain; remove the weights that nobody needs.

        Weights that are no longer among the best go only then: a run that is killed may go on from the last checkpoint but one, and
        need not compute the same again as before (on a GPU).
        """
        self._safe, self._saved = self._saved, step
        past = [one for one in self._known if one.step <= self._safe]
        best = best_first(past, self.plan.metric)[: self.plan.keep]
        wanted = {self._path(step) for step, _ in self._waiting} | {self._path(one.step) for one in best}
        for path in set(self._folder.glob("*.safetensors")) - wanted:
            if int(path.stem) <= self._safe:
                path.unlink()

    def submit(self, step: int, components: Components) -> None:
        """Validate the weights that the components have now, as those of a step."""
        if found := components.weight_not_finite():
            self._record(Validation(step, failure=found))
            return
        save_weights(self._path(step), components)
        self._waiting.append((step, self._validator.submit(self._path(step))))
        self.collect(leave=MOST_WAITING)

    def collect(self, *, leave: int | None = None) -> None:
        """Record the validations that have ended, up to the one that ends training; wait until only ``leave`` are under way."""
        while self._waiting and not self.judgement.ended:
            if not (self._waiting[0][1].done() or (leave is not None and len(self._waiting) > leave)):
                return
            step, future = self._waiting.popleft()
            self._record(_ended(step, future))

    def finish(self, components: Components) -> Judgement:
        """Wait for what may still be the best, put its weights into the components, and return the judgement."""
        self.collect(leave=0)
        judgement = self.judgement
        if judgement.best is not None:
            load_weights(self._path(judgement.best.step), components)
        return judgement

    def _record(self, validation: Validation) -> None:
        self._known.append(validation)
        self._log.write(validation.step, **validation.to_line())

    def _path(self, step: int) -> Path:
        return self._folder / f"{step:08}.safetensors"


def _ended(step: int, future: ValidationFuture) -> Validation:
    try:
        # As the line of metrics has them: a run that goes on reads them there, and must come to the same judgement.
        return Validation(step, {name: round(value, PLACES) for name, value in future.result().items()})
    except Exception as err:  # no figure is better than no run
        reason = str(err) if isinstance(err, RagrayError) else f"{type(err).__name__}: {first_line(err)}"
        return Validation(step, failure=" ".join(reason.split()))
