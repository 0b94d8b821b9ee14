"""The stage `evaluate` with bounds. In: what `evaluate_rag` takes. Out: its report beside those of systems that bound it."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from ragray.artifact.output import stage_output
from ragray.config import Config
from ragray.examples import ExampleSource, read_examples
from ragray.execute.port import Executor
from ragray.run import Run
from ragray.stages.evaluate import PARTS_FOLDER, evaluate_rag
from ragray.stages.report import EvaluationReport

logger = logging.getLogger("ragray")

BOUNDS_FOLDER = "bounds"
"""Folder below a report that holds one report for each bound."""


@dataclass(frozen=True, slots=True)
class Bound:
    """A system that is measured beside another: what answers, from which passages."""

    config: Config
    run: Path | None
    closed_book: bool = False
    gold: bool = False


def evaluate_with_bounds(
    examples: ExampleSource,
    out: Path,
    config: Config,
    *,
    index: Path,
    run: Path | None = None,
    baseline: Path | None = None,
    executor: Executor,
) -> EvaluationReport:
    """Answer every example with the system and with its bounds (`bounds_of`), and report them side by side.

    Each bound is a report of its own below ``out``/bounds, kept and resumed as any other. Raises as `evaluate_rag` does.
    """
    read = read_examples(examples, config.examples)
    has_gold = any(example.gold_ids for example in read)
    with stage_output(out, kind="report", work=PARTS_FOLDER):  # it is ours before other reports are made below it
        pass
    made: dict[str, Path] = {}
    for name, bound in bounds_of(config, run, has_gold=has_gold).items():
        made[name] = out / BOUNDS_FOLDER / name
        evaluate_rag(
            read,
            made[name],
            bound.config,
            index=None if bound.closed_book else index,
            run=bound.run,
            closed_book=bound.closed_book,
            gold=bound.gold,
            executor=executor,
        )
    return evaluate_rag(read, out, config, index=index, run=run, bounds=made, baseline=baseline, executor=executor)


def bounds_of(config: Config, run: Path | None, *, has_gold: bool) -> Mapping[str, Bound]:
    """Return the bounds of a system: closed book, zero-shot where it was trained, gold passage where there are gold ids."""
    without_citations = tuple(name for name in config.evaluate.metrics if not name.startswith("citation"))
    evaluate = config.evaluate.model_copy(update={"metrics": without_citations})
    found = {"closed_book": Bound(config.model_copy(update={"evaluate": evaluate}), run, closed_book=True)}
    if run:
        found["zero_shot"] = Bound(Run.open(run).settings(config), None)
    if has_gold:
        found["gold_passage"] = Bound(config, run, gold=True)
    else:
        logger.warning("evaluate: no example has gold ids, so that there is no bound with gold passages")
    return found
