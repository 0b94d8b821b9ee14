"""A report as plain values. In: answered questions, what they are measured by, other systems beside them. Out: what `report.json` holds."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from ragray.artifact.manifest import open_artifact
from ragray.config import EvaluateConfig
from ragray.evaluate.answers import AnswerScores
from ragray.evaluate.measures.measured import Measured
from ragray.evaluate.measures.named import Context, measures
from ragray.evaluate.ranking import RankingScores
from ragray.evaluate.records import Answered, read_answered
from ragray.evaluate.report.compare import TEST, TRIALS, differences, shared
from ragray.evaluate.report.figures import figures
from ragray.evaluate.report.slices import slices

DETAILS_FILE = "details.jsonl"
REPORT_FILE = "report.json"
NEEDS_PASSAGES = ("answer_in_context", "citation_recall", "citation_precision")
"""Measures that no baseline is compared by: the passages of its answers may be gone."""


@dataclass(frozen=True, slots=True)
class Baseline:
    """The answers of an earlier report, and where it lies."""

    name: str
    fingerprint: str
    answered: list[Answered]


def read_baseline(folder: Path) -> Baseline:
    """Open a report to compare with.

    Raises:
        NotAnArtifactError, CorruptArtifactError: the folder holds no whole report.
    """
    manifest = open_artifact(folder, "report")
    return Baseline(str(folder), manifest.fingerprint, read_answered(folder / DETAILS_FILE))


BOUNDS: Mapping[str, str] = {
    "closed_book": "the same generator without passages",
    "zero_shot": "the generator and the question encoder before training, with retrieval",
    "gold_passage": "the same generator with the passages that the gold ids name, on the questions that have one in the index",
}
"""Systems that a report may show beside its own, and what they are."""


def read_bound(name: str, folder: Path) -> dict[str, Any]:
    """Return what a report shows of another system: what it is, and the figures of that system's report.

    Raises:
        NotAnArtifactError, CorruptArtifactError: the folder holds no whole report.
    """
    open_artifact(folder, "report")
    raw = json.loads((folder / REPORT_FILE).read_text(encoding="utf-8"))
    return {"what": BOUNDS[name], "figures": raw["figures"]}


@dataclass(frozen=True, slots=True)
class Beside:
    """What stands in a report beside the figures of its own answers.

    ``system`` says what answered, ``left_out`` counts what is in no figure, ``bounds`` holds the figures of other systems on the same
    questions by name, as their reports have them.
    """

    system: Mapping[str, Any] = field(default_factory=dict)
    left_out: dict[str, int] = field(default_factory=dict)
    bounds: Mapping[str, Any] = field(default_factory=dict)
    baseline: Baseline | None = None


@dataclass(frozen=True, slots=True)
class Assembled:
    """The values of a report, and the measures that they were made from."""

    values: dict[str, Any]
    found: list[Measured]


def assemble(
    answered: Sequence[Answered],
    settings: EvaluateConfig,
    context: Context,
    scores: tuple[AnswerScores, RankingScores | None, int],
    beside: Beside,
) -> Assembled:
    """Measure some answers and return the report; ``scores`` are those of `ragray.evaluate.answers` and `ragray.evaluate.ranking`.

    Raises:
        InputError: the baseline shares no id with these answers.
    """
    found = measures(answered, settings, context)
    answers, ranking, num_cut = scores
    values = {
        "answers": asdict(answers),
        "retrieval": asdict(ranking) if ranking else None,
        "num_cut_answers": num_cut,
        "figures": {name: one.to_json() for name, one in figures(found).items()},
        "bounds": dict(beside.bounds),
        "baseline": _compared(answered, settings, context, beside.baseline) if beside.baseline else None,
        "slices": {
            kind: {name: {measure: one.to_json() for measure, one in inside.items()} for name, inside in parts.items()}
            for kind, parts in slices(answered, found, settings.metric, with_retrieval=context.with_retrieval).items()
        },
        "left_out": dict(beside.left_out),
        "system": dict(beside.system),
    }
    return Assembled(values, found)


def _compared(
    answered: Sequence[Answered], settings: EvaluateConfig, context: Context, baseline: Baseline
) -> dict[str, Any]:
    """Compare with a baseline by all measures that need no passages."""
    pair = shared(answered, baseline.answered, baseline.name)
    names = tuple(name for name in settings.metrics if name not in NEEDS_PASSAGES)
    retrieved = context.with_retrieval and any(one.sources for one in pair.baseline)
    comparable = settings.model_copy(update={"metrics": names})
    here, there = (
        [one for one in measures(side, comparable, Context({}, retrieved)) if one.name not in NEEDS_PASSAGES]
        for side in (pair.here, pair.baseline)
    )
    return {
        "report": baseline.name,
        "test": TEST,
        "trials": TRIALS,
        "num_shared": len(pair.here),
        "only_here": list(pair.only_here),
        "only_baseline": list(pair.only_baseline),
        "num_other_references": pair.num_other_references,
        "figures": {name: asdict(one) for name, one in differences(here, there).items()},
    }
