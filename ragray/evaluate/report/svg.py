"""Plots of a report. In: figures. Out: inline SVG that takes its colours from the page. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ragray.evaluate.report.figures import Figure
from ragray.evaluate.report.markup import Markup, element

WIDTH = 480
LABEL, RIGHT, ROW, TOP = 150, 50, 26, 8
"""Room for the names on the left and the numbers on the right, height of a row, room above."""

BINS = 10
CURVE_HEIGHT = 220


def intervals_plot(rows: Mapping[str, Figure], title: str) -> Markup:
    """Draw a row for each figure: its interval as a line from 0 to 100 %, the figure as a dot."""
    height = TOP + ROW * len(rows) + 24
    marks = [
        mark for place, (name, one) in enumerate(rows.items()) for mark in _row(TOP + ROW * (place + 0.5), name, one)
    ]
    axis = [mark for percent in range(0, 101, 25) for mark in _tick(percent, TOP, height - 20)]
    return _figure(title, height, [*axis, *marks])


def _row(y: float, name: str, one: Figure) -> list[Markup]:
    low, high, middle = (_x(value) for value in (one.low, one.high, one.value))
    return [
        element("text", name, x=LABEL - 12, y=y + 4, text_anchor="end", class_="name"),
        element("line", x1=low, x2=max(high, low + 0.5), y1=y, y2=y, class_="interval"),
        element("circle", cx=middle, cy=y, r=4.5, class_="dot"),
        element("text", f"{one.value:.1f}", x=WIDTH - RIGHT + 10, y=y + 4, class_="number"),
    ]


def _x(percent: float) -> float:
    return LABEL + (WIDTH - LABEL - RIGHT) * min(max(percent, 0), 100) / 100


def _tick(percent: int, top: float, bottom: float) -> list[Markup]:
    x = _x(percent)
    return [
        element("line", x1=x, x2=x, y1=top, y2=bottom, class_="grid"),
        element("text", f"{percent} %", x=x, y=bottom + 15, text_anchor="middle", class_="axis"),
    ]


def histogram(values: Sequence[float], title: str) -> Markup:
    """Draw how many answers have a value in each tenth from 0 to 100 %."""
    counts = [0] * BINS
    for value in values:
        counts[min(int(value // (100 / BINS)), BINS - 1)] += 1
    tallest, wide = max(max(counts), 1), (WIDTH - 40) / BINS
    bars = [mark for place, count in enumerate(counts) for mark in _bar(20 + wide * place, wide, count, tallest)]
    edges = [
        element(
            "text", f"{100 * edge // BINS}", x=20 + wide * edge, y=CURVE_HEIGHT - 6, text_anchor="middle", class_="axis"
        )
        for edge in range(BINS + 1)
    ]
    return _figure(title, CURVE_HEIGHT, [*bars, *edges])


def _bar(x: float, wide: float, count: int, tallest: int) -> list[Markup]:
    tall = (CURVE_HEIGHT - 50) * count / tallest
    top = CURVE_HEIGHT - 22 - tall
    return [
        element("rect", x=x + 2, y=top, width=wide - 4, height=tall, class_="bar"),
        element("text", str(count), x=x + wide / 2, y=top - 5, text_anchor="middle", class_="number"),
    ]


def recall_curve(recall: Sequence[float], title: str) -> Markup:
    """Draw recall in percent at the ranks 1, 2, ..."""
    left, right, top, bottom = 46.0, WIDTH - 16.0, 12.0, CURVE_HEIGHT - 26.0
    step = (right - left) / max(len(recall) - 1, 1)
    points = [(left + step * place, bottom - (bottom - top) * value / 100) for place, value in enumerate(recall)]
    path = " ".join(f"{'L' if place else 'M'}{x:.1f} {y:.1f}" for place, (x, y) in enumerate(points))
    grid = [
        mark
        for percent in range(0, 101, 25)
        for mark in _level(percent, bottom - (bottom - top) * percent / 100, left, right)
    ]
    dots = [element("circle", cx=x, cy=y, r=3, class_="dot") for x, y in points]
    ranks = sorted({1, len(recall), *range(5, len(recall), 5)})
    names = [
        element("text", str(rank), x=points[rank - 1][0], y=CURVE_HEIGHT - 6, text_anchor="middle", class_="axis")
        for rank in ranks
    ]
    return _figure(title, CURVE_HEIGHT, [*grid, element("path", d=path, class_="curve"), *dots, *names])


def _level(percent: int, y: float, left: float, right: float) -> list[Markup]:
    return [
        element("line", x1=left, x2=right, y1=y, y2=y, class_="grid"),
        element("text", f"{percent} %", x=left - 6, y=y + 4, text_anchor="end", class_="axis"),
    ]


def _figure(title: str, height: float, marks: Sequence[Markup]) -> Markup:
    drawing = element(
        "svg", element("title", title), *marks, viewBox=f"0 0 {WIDTH} {height:.0f}", role="img", aria_label=title
    )
    return element("figure", drawing, element("figcaption", title))
