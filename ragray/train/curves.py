"""What runs have logged, as curves. In: their folders. Out: by panel the lines to draw, and which validation chose the weights."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ragray.artifact.kinds import MANIFEST_NAME
from ragray.artifact.manifest import read_manifest
from ragray.errors import CorruptArtifactError, InputError, NotAnArtifactError, first_line
from ragray.run import BestValidation
from ragray.train.metrics import METRICS_FILE
from ragray.train.validation.judge import PREFIX

Line = Mapping[str, Any]


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


WAITING = "waiting"
"""Key that is added to a line of metrics: which share of the step was spent waiting for retrieval."""

PANELS: Mapping[str, Mapping[str, tuple[str, float]]] = {
    "loss": {"loss": ("loss", 1), "dev loss": ("dev_loss", 1)},
    "dev examples, %": {"exact match": ("dev_exact_match", 1), "F1": ("dev_f1", 1), "recall": ("dev_recall", 1)},
    "training questions with gold found, %": {"recall": ("recall", 100)},
    "learning rate": {"learning rate": ("learning_rate", 1)},
    "part of a step spent waiting for retrieval, %": {"waiting": (WAITING, 100)},
    "age of the index, steps": {"age": ("index_age_steps", 1)},
}
"""By title, the curves by name: a key of the lines of metrics, and what its values are multiplied by."""


def panels(runs: Sequence[Path]) -> list[Panel]:
    """Return what there is to draw of some runs, which may still train.

    Raises:
        NotAnArtifactError: a folder is no run.
        InputError: a run has logged no step yet.
        CorruptArtifactError: a line of metrics cannot be read.
    """
    found = [(name, _best(run), _lines(run)) for name, run in zip(_names(runs), runs, strict=True)]
    drawn = [
        Panel(title, tuple(curve for one in found for curve in _curves(*one, figures)))
        for title, figures in PANELS.items()
    ]
    return [panel for panel in drawn if panel.curves]


def _names(runs: Sequence[Path]) -> list[str]:
    """Return the folders' own names, or the paths where two have the same."""
    names = [run.resolve().name for run in runs]
    return names if len(set(names)) == len(names) else [str(run) for run in runs]


def _curves(
    run: str, best: tuple[str, int, float], lines: Sequence[Line], figures: Mapping[str, tuple[str, float]]
) -> Iterator[Curve]:
    for name, (key, factor) in figures.items():
        points = {line["step"]: factor * line[key] for line in lines if key in line}
        if steps := tuple(sorted(points)):
            chosen = best[1:] if key == best[0] else None
            yield Curve(run, name, steps, tuple(points[step] for step in steps), key.startswith(PREFIX), chosen)


def _best(run: Path) -> tuple[str, int, float]:
    """Return by which key the weights of a finished run were chosen, at which step, with which figure; "" where by none."""
    best = read_manifest(run, "run").facts.get("best") if (run / MANIFEST_NAME).is_file() else None
    if best is None:
        return "", 0, 0.0
    found = BestValidation.model_validate(best)
    return PREFIX + found.metric, found.step, found.value


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
        seconds = found.get("step_seconds", 0)
        share = {WAITING: found["wait_seconds"] / seconds} if seconds else {}
        return {**found, **share, "step": int(found["step"])}
    except (ValueError, KeyError, TypeError) as err:
        raise CorruptArtifactError(
            f"{path}:{number}: is no line of metrics ({type(err).__name__}: {first_line(err)}); remove the line"
        ) from err
