"""The examples of validations. In: settings, an index, what is trained on. Out: a fixed sample, and by which figure the best is chosen."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from ragray.config import FROM_MINED, Config
from ragray.errors import ConfigError, InputError
from ragray.examples import read_examples
from ragray.generate.check import check_questions
from ragray.generate.load import load_template
from ragray.index.store.snapshot import Snapshot
from ragray.train.gold import answering_passages
from ragray.train.mined import MinedQuestions
from ragray.train.validation.judge import Metric, ValidationPlan
from ragray.types import Example, Passage

APART = "dev/"
"""Before the ids of dev examples, which may be those of training examples."""

logger = logging.getLogger("ragray")


@dataclass(frozen=True, slots=True)
class DevSet:
    """What a validation measures, and the plan of all.

    ``gold``: for the strategy `together`, the passages that gold ids name, by example id. A retriever is measured in a snapshot of
    ``index``, or with ``pool`` among the passages of these questions, where the passage encoder trains too.
    """

    examples: tuple[Example, ...]
    plan: ValidationPlan
    index: str
    snapshot: str
    gold: Mapping[str, Sequence[Passage]] = field(default_factory=dict)
    pool: MinedQuestions | None = None

    @property
    def key(self) -> list[Any]:
        """What decides which weights become the best; a run that goes on must keep it."""
        plan = self.plan
        return [[one.content for one in self.examples], plan.every, plan.metric, plan.patience]


def dev_set(
    config: Config,
    index: Path,
    snapshot: Snapshot,
    learnt: Sequence[Example],
    held_out: MinedQuestions | None = None,
) -> DevSet | None:
    """Return what the settings want to be validated, None where they want nothing.

    ``held_out`` are the questions that a retriever is not trained on; they stand in for ``train.dev_examples``.

    Raises:
        InputError: a dev example is wrong, or there is none.
        ConfigError: the examples or the objective do not give the figure of ``train.best_metric``.
    """
    train = config.train
    if not train.validation_steps:
        return None
    of_retriever = train.objective in FROM_MINED
    if train.dev_examples and train.passage_encoder and of_retriever:
        raise ConfigError(
            "train.dev_examples: the index does not fit a passage encoder that trains; leave it out and set train.validate_steps: "
            "the questions of train.dev_share are searched among their own passages"
        )
    chosen = _chosen(config, held_out)
    plan = ValidationPlan(train.validation_steps, _metric(config, chosen), train.patience, train.keep_checkpoints)
    if train.dev_examples:
        _warn_of_known(chosen, learnt)
    if not of_retriever and (prompts := load_template(config.generate)):
        check_questions(chosen, prompts)
    named = [replace(example, id=APART + example.id) for example in chosen]
    together = config.generate.strategy == "together" and not of_retriever
    gold = answering_passages(named, index, snapshot) if together else {}
    pool = held_out if train.passage_encoder and of_retriever else None
    return DevSet(tuple(named), plan, str(index.resolve()), snapshot.name, gold, pool)


def sample(examples: Sequence[Example], number: int, seed: int) -> list[Example]:
    """Return so many examples, drawn by ``seed``, in the order of the file; all of them with 0."""
    if not number or number >= len(examples):
        return list(examples)
    drawn = np.random.default_rng([seed, len(examples)]).choice(len(examples), number, replace=False)
    return [examples[row] for row in sorted(drawn.tolist())]


def _chosen(config: Config, held_out: MinedQuestions | None) -> list[Example]:
    train = config.train
    if train.dev_examples:
        return sample(read_examples(train.dev_examples, config.examples), train.num_dev_examples, train.seed)
    if held_out is None:
        raise InputError(
            "train.validate_steps: no question is held out to validate with; raise train.dev_share, or give train.dev_examples"
        )
    return list(held_out.examples)  # all: they are few, and the verdict of the run is over the same


def _metric(config: Config, examples: Sequence[Example]) -> Metric:
    """Return the figure that ``train.best_metric`` names, which these examples must give."""
    train = config.train
    of_retriever = train.objective in FROM_MINED
    metric: Metric = train.best_metric if train.best_metric != "auto" else "recall" if of_retriever else "exact_match"
    if of_retriever and metric != "recall":
        raise ConfigError(
            f"train.best_metric={metric}: train.objective={train.objective} trains no generator; use recall or auto"
        )
    if metric == "recall" and not any(example.gold_ids for example in examples):
        raise ConfigError(
            f"train.best_metric={train.best_metric} is recall here, and no example of train.dev_examples={train.dev_examples} has "
            "gold ids; name their column with examples.gold_field, or choose another figure"
        )
    return metric


def _warn_of_known(examples: Sequence[Example], learnt: Sequence[Example]) -> None:
    questions = {example.question for example in learnt}
    if known := sum(example.question in questions for example in examples):
        logger.warning(
            "train: %d of %d questions of train.dev_examples are also trained on: their figures will be too good",
            known,
            len(examples),
        )
