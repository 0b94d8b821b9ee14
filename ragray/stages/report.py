"""The report of the stage `evaluate`. In: answers, what they are scored by. Out: the report's files, published; the report, read back."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from pydantic import JsonValue

from ragray.artifact.digest import fingerprint
from ragray.artifact.files import atomic_path, write_json
from ragray.artifact.output import StageOutput
from ragray.config import Config, EvaluateConfig
from ragray.evaluate.answers import AnswerScores, score
from ragray.evaluate.measures.named import Context, needs_model
from ragray.evaluate.ranking import RankingScores, ranking_scores
from ragray.evaluate.records import Answered, answered_from, sources_of
from ragray.evaluate.report.assemble import DETAILS_FILE, REPORT_FILE, Beside, assemble
from ragray.evaluate.report.figures import Figure, figures_from
from ragray.evaluate.report.page import page
from ragray.jsontext import to_json
from ragray.models import resolve_model, weights_fingerprint

logger = logging.getLogger("ragray")

PREDICTIONS_FILE = "predictions.json"
PAGE_FILE = "report.html"

SCORING = 1
"""Counts up when figures or page of a report change, so that finished reports are scored again."""

SCORING_FACT = "scoring"
"""The fact of a report's manifest that holds its `scoring_key`."""


@dataclass(frozen=True, slots=True)
class EvaluationReport:
    """How good a system's answers and its retrieval are (``ranking`` is None for a closed book), and how many answers were cut.

    ``figures`` holds every figure with its interval, by the name of the measure; ``bounds`` those of other systems, by system.
    """

    answers: AnswerScores
    ranking: RankingScores | None
    num_cut: int
    seconds: float
    reused: bool
    figures: Mapping[str, Figure] = field(default_factory=dict)
    bounds: Mapping[str, Mapping[str, Figure]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Scored:
    """What answers are scored by: settings, and the snapshot that their passages stand in, if they were made from any."""

    config: Config
    index: Path | None
    snapshot: str
    retrieved: bool
    """Whether the passages were searched for, so that there is a ranking to score."""
    num_unknown_gold_ids: int = 0


def publish_report(
    output: StageOutput, key: str, lines: Sequence[Mapping[str, Any]], scored: Scored, beside: Beside
) -> None:
    """Score answers, write the files of the report, publish it."""
    out, settings, answered = output.folder, scored.config.evaluate, [answered_from(line) for line in lines]
    passages = sources_of(answered, scored.index, scored.snapshot) if scored.index else {}
    retrieved = scored.retrieved and bool(passages)
    answers, ranking, num_cut = _scores(answered, scored)
    left_out = {**beside.left_out, **_uncounted(answered, num_cut)}
    context = Context(passages, retrieved)
    scores = (answers, ranking if retrieved else None, num_cut)
    made = assemble(answered, settings, context, scores, replace(beside, left_out=left_out))
    output.withdraw()
    write_json(out / PREDICTIONS_FILE, {line["id"]: line["prediction"] for line in lines})
    _write(out / DETAILS_FILE, "".join(to_json(line, DETAILS_FILE) + "\n" for line in lines))
    write_json(out / REPORT_FILE, made.values)
    _write(out / PAGE_FILE, page(made.values, answered, made.found, passages))
    facts: dict[str, JsonValue] = {
        "num_examples": len(lines),
        "num_unknown_gold_ids": scored.num_unknown_gold_ids,
        SCORING_FACT: scoring_key(settings, beside),
    }
    output.publish(key, facts, [out / name for name in (REPORT_FILE, PREDICTIONS_FILE, DETAILS_FILE, PAGE_FILE)])
    if num_cut:
        message = "evaluate: %d of %d answers were cut at generate.max_new_tokens=%d"
        logger.warning(message, num_cut, len(lines), scored.config.generate.max_new_tokens)


def _write(path: Path, text: str) -> None:
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def scoring_key(settings: EvaluateConfig, beside: Beside) -> str:
    """Hash what decides the figures of given answers."""
    model = weights_fingerprint(resolve_model(settings.entailment)) if needs_model(settings) else ""
    baseline = beside.baseline.fingerprint if beside.baseline else ""
    return fingerprint([SCORING, settings.metric, list(settings.metrics), model, dict(beside.bounds), baseline])


def _scores(answered: Sequence[Answered], scored: Scored) -> tuple[AnswerScores, RankingScores, int]:
    """Score answers and retrieval, and count the answers that were cut."""
    predictions, settings = {one.example.id: one.prediction for one in answered}, scored.config.evaluate
    answers = score(predictions, [one.example for one in answered], metric=settings.metric)
    ranks = [one.gold_rank for one in answered if one.example.gold_ids]
    ranking = ranking_scores(ranks, settings.recall_at, num_unknown_gold_ids=scored.num_unknown_gold_ids)
    return answers, ranking, sum(one.finish_reason == "length" for one in answered)


def _uncounted(answered: Sequence[Answered], num_cut: int) -> dict[str, int]:
    return {
        "questions without gold ids": sum(not one.example.gold_ids for one in answered),
        "answers cut at generate.max_new_tokens": num_cut,
    }


def read_lines(out: Path) -> list[dict[str, Any]]:
    """Return the lines of a finished report's details."""
    return [json.loads(line) for line in (out / DETAILS_FILE).read_text(encoding="utf-8").rstrip("\n").split("\n")]


def read_report(out: Path, seconds: float, *, reused: bool) -> EvaluationReport:
    """Return a finished report; ``seconds`` is what it took now, ``reused`` whether its answers were there already."""
    raw = json.loads((out / REPORT_FILE).read_text(encoding="utf-8"))
    ranking = raw["retrieval"]
    if ranking:
        ranking = RankingScores(**{**ranking, "recall": {int(k): value for k, value in ranking["recall"].items()}})
    return EvaluationReport(
        AnswerScores(**raw["answers"]),
        ranking,
        raw["num_cut_answers"],
        seconds,
        reused,
        figures_from(raw["figures"]),
        {name: figures_from(bound["figures"]) for name, bound in raw["bounds"].items()},
    )
