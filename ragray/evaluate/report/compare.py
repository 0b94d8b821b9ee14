"""Two systems compared. In: the answers of both to the same questions. Out: differences with intervals and p-values. Pure.

The interval is that of the paired bootstrap (Efron and Tibshirani 1993; Koehn 2004): questions are drawn, both systems' answers with
them. The p-value is that of the paired randomisation test (Noreen 1989; Smucker, Allan and Carterette 2007), two-sided: answers of the
two systems are exchanged at random, question by question, and p is the share of the trials whose difference is at least as large.

N questions both answered, S sums, T trials.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from ragray.errors import InputError
from ragray.evaluate.intervals import middle
from ragray.evaluate.measures.measured import Measured
from ragray.evaluate.records import Answered

logger = logging.getLogger("ragray")

TEST = "paired randomisation test, two-sided"
TRIALS = 10_000
TRIALS_AT_ONCE = 500


@dataclass(frozen=True, slots=True)
class Difference:
    """A figure of both systems, this one less the baseline with the 95% interval, and the p-value."""

    here: float
    baseline: float
    difference: float
    low: float
    high: float
    p_value: float


@dataclass(frozen=True, slots=True)
class Shared:
    """The answers of both systems to the questions that both have, and the ids that only one has."""

    here: list[Answered]
    baseline: list[Answered]
    only_here: tuple[str, ...]
    only_baseline: tuple[str, ...]
    num_other_references: int
    """Shared ids whose accepted answers differ; both are scored by those of this report."""


def shared(here: Sequence[Answered], baseline: Sequence[Answered], name: str) -> Shared:
    """Pair the answers by id; the log counts and names what has no partner. ``name`` is the baseline's, for messages.

    Raises:
        InputError: no id is shared.
    """
    mine = {one.example.id: one for one in here}
    others = {one.example.id: one for one in baseline}
    both = [key for key in mine if key in others]
    only_here, only_baseline = tuple(mine.keys() - others.keys()), tuple(others.keys() - mine.keys())
    if not both:
        raise InputError(
            f"--baseline {name}: none of its {len(others)} ids is one of these {len(mine)} examples (there '{next(iter(others))}', "
            f"here '{next(iter(mine))}'); give a report on the same examples"
        )
    if only_here or only_baseline:
        logger.warning(
            "evaluate: compared with %s on %d shared ids; %d are only here, %d only there (the first: '%s')",
            *(name, len(both), len(only_here), len(only_baseline), min(only_here or only_baseline)),
        )
    other = sum(set(mine[key].example.answers) != set(others[key].example.answers) for key in both)
    theirs = [
        replace(others[key], example=replace(others[key].example, answers=mine[key].example.answers)) for key in both
    ]
    return Shared([mine[key] for key in both], theirs, tuple(sorted(only_here)), tuple(sorted(only_baseline)), other)


def differences(here: Sequence[Measured], baseline: Sequence[Measured], *, seed: int = 0) -> dict[str, Difference]:
    """Compare the measures that both have, each on the same questions in the same order."""
    others = {one.name: one for one in baseline}
    pairs = [(one, others[one.name]) for one in here if one.name in others]
    return {
        one.name: _difference(one, other, seed)
        for one, other in pairs
        if not math.isnan(one.figure) and not math.isnan(other.figure)
    }


def _difference(here: Measured, baseline: Measured, seed: int) -> Difference:
    found = here.figure - baseline.figure
    low, high = middle(here.resampled() - baseline.resampled())  # the same samples: both have the same N
    return Difference(here.figure, baseline.figure, found, low, high, _p_value(here, baseline, abs(found), seed))


def _p_value(here: Measured, baseline: Measured, observed: float, seed: int) -> float:
    """Return the share of trials, the observed one among them, that differ at least as much."""
    rng = np.random.default_rng(seed)
    gap_NS = baseline.rows_NS - here.rows_NS
    moved_N = np.flatnonzero(gap_NS.any(axis=1))
    mine_S, theirs_S = here.rows_NS.sum(axis=0), baseline.rows_NS.sum(axis=0)
    extreme = 0
    for _ in range(0, TRIALS, TRIALS_AT_ONCE):
        swapped_TN = rng.integers(0, 2, (TRIALS_AT_ONCE, len(moved_N)), dtype=np.int8)
        change_TS = swapped_TN @ gap_NS[moved_N]
        trials_T = here.value(mine_S + change_TS) - here.value(theirs_S - change_TS)
        extreme += int((np.abs(trials_T) >= observed - 1e-9).sum())
    return (extreme + 1) / (TRIALS + 1)
