"""Plots of an index. In: its inspection. Out: PNG files of list sizes and of recall against latency. Needs the extra `plots`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from ragray.artifact.figure import write_figure
from ragray.index.check.inspect import IndexInspection
from ragray.index.plan.tune import TuningPoint

SIZE_INCHES = (7.5, 4.5)
BINS = 40


def write_plots(inspection: IndexInspection, folder: Path) -> list[Path]:
    """Write what there is to plot: `list-sizes.png` for an IVF, `recall-latency.png` where the search was tuned; return the files.

    Raises:
        MissingPackageError: matplotlib is not installed.
    """
    draw = {"list-sizes.png": _list_sizes, "recall-latency.png": _recall_latency}
    wanted = {
        "list-sizes.png": any(segment.lists for segment in inspection.segments),
        "recall-latency.png": bool(inspection.tuning),
    }
    return [_write(folder / name, draw[name], inspection) for name in draw if wanted[name]]


def _write(path: Path, draw: Callable[[Any, IndexInspection], None], inspection: IndexInspection) -> Path:
    return write_figure(path, lambda figure: draw(figure.add_subplot(), inspection), SIZE_INCHES)


def _list_sizes(axes: Any, inspection: IndexInspection) -> None:
    sizes = [size for segment in inspection.segments if segment.lists for size in segment.lists.sizes]
    mean = sum(sizes) / len(sizes)
    axes.hist(sizes, bins=min(BINS, max(1, max(sizes) - min(sizes))), color="#4878a8", edgecolor="white", linewidth=0.5)
    axes.axvline(mean, color="#c44e52", linestyle="--", label=f"mean {mean:,.0f}")
    axes.set_xlim(left=0)
    axes.set_xlabel("rows per list")
    axes.set_ylabel(f"lists (of {len(sizes):,} in {len(inspection.segments)} segments)")
    axes.set_title(f"IVF list sizes: {inspection.factory}, {inspection.num_rows:,} rows", fontsize=11)
    axes.legend(frameon=False)


def _recall_latency(axes: Any, inspection: IndexInspection) -> None:
    """Draw a curve of nprobe (or ef_search) for every over_retrieve, and mark the setting that the snapshot searches with."""
    points = inspection.tuning
    for colour, factor in enumerate(sorted({point.search_params.over_retrieve for point in points})):
        curve = sorted((p for p in points if p.search_params.over_retrieve == factor), key=lambda p: p.ms_per_query)
        axes.plot(
            [p.ms_per_query for p in curve],
            [p.recall_at_10 for p in curve],
            marker="o",
            markersize=4,
            color=f"C{colour}",
            label=f"over_retrieve {factor}",
        )
        for p in curve:
            place = (p.ms_per_query, p.recall_at_10)
            axes.annotate(f"{p.effort}", place, textcoords="offset points", xytext=(4, -10), fontsize=7)
    for p in points:
        if p.search_params == inspection.search_params:
            axes.plot(
                [p.ms_per_query], [p.recall_at_10], "o", markersize=13, fillstyle="none", color="black", label="chosen"
            )
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
    axes.xaxis.set_minor_formatter(lambda value, _: f"{value:g}" if str(f"{value:g}").lstrip("0.")[:1] in "25" else "")
    axes.set_xlabel("latency, ms per query (one thread)")
    axes.set_ylabel("recall@10 against exact search")
    axes.set_title(f"Recall against latency: {inspection.factory}, labels are {_kind(points)}", fontsize=11)
    axes.grid(alpha=0.3)
    axes.legend(frameon=False)


def _kind(points: tuple[TuningPoint, ...]) -> str:
    return "ef_search" if any(point.search_params.ef_search for point in points) else "nprobe"
