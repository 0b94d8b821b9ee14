"""Figures with intervals. In: what measures found. Out: plain values for `report.json`. Pure."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from ragray.evaluate.measures.measured import Measured


@dataclass(frozen=True, slots=True)
class Figure:
    """A figure in percent, the ends of its 95% bootstrap interval, the answers that it is made of, and how it was computed."""

    value: float
    low: float
    high: float
    num_examples: int
    how: str = ""

    def to_json(self) -> dict[str, Any]:
        """Return it as plain values."""
        return asdict(self)


Figures = Mapping[str, Figure]
"""By the name of the measure."""


def figures(found: Iterable[Measured]) -> dict[str, Figure]:
    """Return the figure of each measure; those that apply to no answer are left out."""
    return {one.name: _figure(one) for one in found if not math.isnan(one.figure)}


def _figure(one: Measured) -> Figure:
    low, high = one.interval()
    return Figure(one.figure, low, high, one.num_examples, one.how)


def figures_from(raw: Mapping[str, Any]) -> dict[str, Figure]:
    """Return the figures that stand in a report."""
    return {name: Figure(**values) for name, values in raw.items()}
