"""A picture of training runs. In: their folders. Out: a PNG, SVG or PDF file of what they logged, step by step. Needs the extra `plots`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ragray.artifact.figure import write_figure
from ragray.errors import InputError
from ragray.train.curves import Curve, Panel, panels

FORMATS = (".png", ".svg", ".pdf")
PANEL_INCHES = (6.0, 3.4)
COLUMNS = 2
DASHES = ("-", "--", ":")


def plot_runs(runs: Sequence[Path], out: Path) -> Path:
    """Draw the curves of some runs into one file and return its path.

    Raises:
        InputError: the file's name ends in none of `FORMATS`; else as `ragray.train.curves.panels` does.
        MissingPackageError: matplotlib is not installed.
    """
    if out.suffix not in FORMATS:
        raise InputError(f"{out}: cannot be written as a picture; give --out a name that ends in {', '.join(FORMATS)}")
    found = panels(runs)
    rows = -(-len(found) // COLUMNS)
    colours = {name: f"C{number}" for number, name in enumerate(dict.fromkeys(c.run for p in found for c in p.curves))}

    def draw(figure: Any) -> None:
        for place, panel in enumerate(found, 1):
            _draw(figure.add_subplot(rows, COLUMNS, place), panel, colours)

    return write_figure(out, draw, (PANEL_INCHES[0] * COLUMNS, PANEL_INCHES[1] * rows))


def _draw(axes: Any, panel: Panel, colours: dict[str, str]) -> None:
    names = list(dict.fromkeys(curve.name for curve in panel.curves))
    for curve in panel.curves:
        axes.plot(
            curve.steps,
            curve.values,
            DASHES[names.index(curve.name) % len(DASHES)],
            color=colours[curve.run],
            marker="o" if curve.of_validation or len(curve.steps) == 1 else None,
            markersize=4,
            label=_label(curve, several_runs=len(colours) > 1, several_names=len(names) > 1),
        )
        if curve.best:
            step, value = curve.best
            axes.plot([step], [value], "o", markersize=12, fillstyle="none", color="black", label=f"kept: step {step}")
    axes.set_title(panel.title, fontsize=11)
    axes.set_xlabel("step")
    axes.grid(alpha=0.3)
    if len(panel.curves) > 1 or any(curve.best for curve in panel.curves):
        axes.legend(frameon=False, fontsize=8)


def _label(curve: Curve, *, several_runs: bool, several_names: bool) -> str:
    parts = [curve.run] * several_runs + [curve.name] * (several_names or not several_runs)
    return " ".join(parts)
