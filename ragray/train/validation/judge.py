"""Which validation is the best. In: the validations of a run, in the order of their steps. Out: the best, and whether to go on. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

Metric = Literal["exact_match", "f1", "recall", "loss"]

PREFIX, FAILED = "dev_", "dev_failed"
"""Of a validation's figures in a line of metrics, and the key there of the reason why one has none."""


@dataclass(frozen=True, slots=True)
class ValidationPlan:
    """How often weights are validated, what makes the best, when there is nothing more to gain, how many of the best are kept."""

    every: int
    metric: Metric
    patience: int = 0
    keep: int = 1


@dataclass(frozen=True, slots=True)
class Validation:
    """What was measured with the weights of a step: figures by name, or the reason why there are none."""

    step: int
    figures: Mapping[str, float] = field(default_factory=dict)
    failure: str = ""

    @classmethod
    def of_line(cls, line: Mapping[str, Any]) -> Validation | None:
        """Return the validation that a line of metrics holds, None where it holds a training step."""
        found = {key.removeprefix(PREFIX): value for key, value in line.items() if key.startswith(PREFIX)}
        failure = str(found.pop(FAILED.removeprefix(PREFIX), ""))
        return cls(int(line["step"]), found, failure) if found or failure else None

    def to_line(self) -> dict[str, float | str]:
        """Return the values of its line of metrics."""
        return {FAILED: self.failure} if self.failure else {PREFIX + name: x for name, x in self.figures.items()}

    def score(self, metric: Metric) -> float | None:
        """Return what is to be as large as possible, None where it was not measured."""
        value = self.figures.get(metric)
        return -value if value is not None and metric == "loss" else value


@dataclass(frozen=True, slots=True)
class Judgement:
    """The best validation (None: none gave a figure), how many did and did not, and whether training is to end."""

    best: Validation | None = None
    num_scored: int = 0
    num_failed: int = 0
    ended: bool = False


def judge(validations: Iterable[Validation], metric: Metric, patience: int = 0) -> Judgement:
    """Return what the validations of a run come to.

    The best is the first of those with the best figure. Training ends once ``patience`` validations in a row have brought no gain
    (0: never); what was validated after that counts for nothing. A failed one is never the best, and is no validation without gain.
    """
    best, without_gain, scored, failed = None, 0, 0, 0
    for one in sorted(validations, key=lambda one: one.step):
        score = one.score(metric)
        if score is None:
            failed += 1
            continue
        highest = None if best is None else best.score(metric)
        gained = highest is None or score > highest
        best, without_gain, scored = one if gained else best, 0 if gained else without_gain + 1, scored + 1
        if patience and without_gain >= patience:
            return Judgement(best, scored, failed, ended=True)
    return Judgement(best, scored, failed)


def best_first(validations: Iterable[Validation], metric: Metric) -> list[Validation]:
    """Return those that have the figure, the best first, of equals the earlier."""
    scored = [(score, one) for one in validations if (score := one.score(metric)) is not None]
    return [one for _, one in sorted(scored, key=lambda pair: (-pair[0], pair[1].step))]


def in_words(line: Mapping[str, Any]) -> str:
    """Return what a line of metrics says of a validation; "" where it holds none."""
    found = Validation.of_line(line)
    if found is None:
        return ""
    figures = ", ".join(f"{name} {value:.4g}" for name, value in found.figures.items())
    return f"validation of step {found.step}: {f'no score ({found.failure})' if found.failure else figures}"
