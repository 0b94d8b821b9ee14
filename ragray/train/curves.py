"""What runs have logged, as curves. In: their folders. Out: by panel the lines to draw, and which validation chose the weights."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ragray.artifact.kinds import MANIFEST_NAME
from ragray.artifact.manifest import read_manifest
from ragray.errors import CorruptArtifactError, InputError, NotAnArtifactError, first_line
from ragray.train.metrics import METRICS_FILE
from ragray.train.validation.judge import Metric

Line = Mapping[str, Any]
Value = Callable[[Line], float | None]
"""Of a line of metrics; None where it holds none."""


@dataclass(frozen=True, slots=True)
class Curve:
    """A figure of a run over its steps."""

    run: str
    name: str
    steps: tuple[int, ...]
    values: tuple[float, ...]
    of_validation: bool = False
    best: tuple[int, float] | None = None
    """The step whose weights the run has, and its figure, where this one chose it."""


@dataclass(frozen=True, slots=True)
class Panel:
    """Curves that share an axis."""

    title: str
    curves: tuple[Curve, ...]


def _key(name: str, factor: float = 1) -> Value:
    return lambda line: factor * line[name] if name in line else None


def _waiting(line: Line) -> float | None:
    return 100 * line["wait_seconds"] / line["step_seconds"] if line.get("step_seconds") else None


PANELS: Mapping[str, Mapping[str, Value]] = {
    "loss": {"loss": _key("loss"), "dev loss": _key("dev_loss")},
    "dev examples, %": {
        "exact match": _key("dev_exact_match"),
        "F1": _key("dev_f1"),
        "recall": _key("dev_recall"),
    },
    "training questions with gold found, %": {"recall": _key("recall", 100)},
    "learning rate": {"learning rate": _key("learning_rate")},
    "part of a step spent waiting for retrieval, %": {"waiting": _waiting},
    "age of the index, steps": {"age": _key("index_age_steps")},
}
CHOOSES: Mapping[Metric, str] = {"exact_match": "exact match", "f1": "F1", "recall": "recall", "loss": "dev loss"}


def panels(runs: Sequence[Path]) -> list[Panel]:
    """Return what there is to draw of some runs, which may still train.

    Raises:
        NotAnArtifactError: a folder is no run.
        InputError: a run has logged no step yet.
        CorruptArtifactError: a line of metrics cannot be read.
    """
    names = _names(runs)
    found = [(name, run, _lines(run)) for name, run in zip(names, runs, strict=True)]
    drawn = [
        Panel(title, tuple(curve for one in found for curve in _curves(*one, title, values)))
        for title, values in PANELS.items()
    ]
    return [panel for panel in drawn if panel.curves]


def _names(runs: Sequence[Path]) -> list[str]:
    """Return the folders' own names, or the paths where two have the same."""
    names = [run.resolve().name for run in runs]
    return names if len(set(names)) == len(names) else [str(run) for run in runs]


def _curves(name: str, run: Path, lines: Sequence[Line], title: str, values: Mapping[str, Value]) -> Iterator[Curve]:
    best_metric, best = _best(run)
    for label, value in values.items():
        points = {int(line["step"]): found for line in lines if (found := value(line)) is not None}
        steps = tuple(sorted(points))
        if steps:
            of_validation = label == "dev loss" or title.startswith("dev")
            chosen = best if of_validation and label == best_metric else None
            yield Curve(name, label, steps, tuple(points[step] for step in steps), of_validation, chosen)


def _best(run: Path) -> tuple[str, tuple[int, float] | None]:
    """Return the name of the curve that chose the weights of a finished run, and where; nothing where none did."""
    if not (run / MANIFEST_NAME).is_file():
        return "", None
    best = read_manifest(run, "run").facts.get("best")
    if not isinstance(best, dict):
        return "", None
    found: dict[str, Any] = dict(best)
    return CHOOSES[found["metric"]], (int(found["step"]), float(found["value"]))


def _lines(run: Path) -> list[Line]:
    path = run / METRICS_FILE
    if not path.is_file():
        raise NotAnArtifactError(
            f"{run}: no run here ({f'it has no {METRICS_FILE}' if run.is_dir() else 'the folder does not exist'}); give a folder "
            "that ragray train writes"
        )
    whole, _, _ = path.read_text(encoding="utf-8").rpartition(
        "\n"
    )  # of a run that trains the last line may be half there
    lines = [_line(path, number, text) for number, text in enumerate(whole.splitlines(), 1)]
    if not any("loss" in line for line in lines):
        raise InputError(f"{path}: no step was logged yet; plot once the run has done train.logging_steps steps")
    return lines


def _line(path: Path, number: int, text: str) -> Line:
    try:
        found = json.loads(text)
        return {**found, "step": int(found["step"])}
    except (ValueError, KeyError, TypeError) as err:
        raise CorruptArtifactError(
            f"{path}:{number}: is no line of metrics ({type(err).__name__}: {first_line(err)}); remove the line"
        ) from err
