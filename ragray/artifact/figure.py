"""Figures of matplotlib as files. In: what draws one. Out: the file, whole. Needs the extra `plots`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from ragray.artifact.files import atomic_path
from ragray.errors import MissingPackageError

DPI = 120


def write_figure(path: Path, draw: Callable[[Any], None], inches: tuple[float, float]) -> Path:
    """Let ``draw`` fill an empty figure, write it in the format that the file's name ends in, and return the path.

    Raises:
        MissingPackageError: matplotlib is not installed.
    """
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError as err:
        raise MissingPackageError("plots need matplotlib; run: pip install 'ragray[plots]'") from err
    figure = Figure(figsize=inches, dpi=DPI, layout="constrained")
    FigureCanvasAgg(figure)
    draw(figure)
    for axes in figure.axes:
        axes.spines[["top", "right"]].set_visible(False)
    with atomic_path(path) as temporary:
        figure.savefig(temporary, format=path.suffix.removeprefix("."))
    return path
