"""Explanation of a plan. In: a layout and the ones tried before. Out: every choice with its reason in one sentence. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ragray.index.plan import cost
from ragray.index.plan.cost import IndexLayout


@dataclass(frozen=True, slots=True)
class Choice:
    """One line of a plan: what was chosen, and why."""

    name: str
    value: str
    reason: str


def why_type(layout: IndexLayout, tried: Sequence[IndexLayout], memory_gib: float) -> str:
    """Return why a type was chosen, given the finer ones that were tried before it."""
    if layout.type == "flat":
        return f"{layout.segment_rows:,} rows per segment: exact search is fast enough"
    finer = tried[: list(tried).index(layout)]
    large = [f"{one.factory} needs {gib(cost.memory_bytes(one))}" for one in finer if not cost.fits(one, memory_gib)]
    slow = [one.factory for one in finer if cost.fits(one, memory_gib)]
    reasons = [f"finer codes do not fit the memory: {', '.join(large)}"] if large else []
    reasons += [f"estimated to be too slow: {', '.join(slow)}"] if slow else []
    return (
        "; ".join(reasons)
        or f"{layout.segment_rows:,} rows per segment: too many to look at all, and exact vectors fit"
    )


def choices(layout: IndexLayout, num_shards: int, why: str) -> tuple[Choice, ...]:
    """Return everything that was chosen, each with its reason."""
    segments = f"{layout.num_segments:,} of {layout.segment_rows:,} rows"
    return (
        Choice("type", layout.factory, why),
        Choice("segments", segments, _why_segments(layout)),
        *_parameters(layout),
        *_costs(layout),
        Choice("shards", f"{num_shards}", _why_shards(layout, num_shards)),
        Choice(
            "p95",
            f"{_digits(cost.p95_ms(layout, num_shards))} ms",
            "estimated for ten results with everything in memory; measured when built",
        ),
    )


def _parameters(layout: IndexLayout) -> list[Choice]:
    found = []
    if layout.nlist:
        share = layout.train_rows / layout.nlist
        found = [
            Choice("nlist", f"{layout.nlist:,}", "about 4 sqrt(rows of a segment), a power of two"),
            Choice(
                "nprobe",
                f"{layout.search_params.nprobe:,}",
                "lists searched where tuning begins; grows with the recall asked for",
            ),
            Choice("training", f"{layout.train_rows:,} rows", f"{share:.0f} rows per list; FAISS asks for 39"),
        ]
    if layout.search_params.ef_search:
        found = [Choice("efSearch", f"{layout.search_params.ef_search}", "nodes kept where tuning begins")]
    exact = cost.OVER_RETRIEVE[layout.type] == cost.OVER_RETRIEVE["flat"]
    why = "they only settle ties" if exact else "coarse codes find candidates, exact scores decide"
    reason = f"candidates per result, re-scored from the fp16 vectors: {why}"
    return [*found, Choice("over_retrieve", f"{layout.search_params.over_retrieve}", reason)]


def _costs(layout: IndexLayout) -> list[Choice]:
    memory, dim = cost.memory_bytes(layout), layout.dim
    each = memory / layout.rows
    parts = f"a code of {cost.code_bytes(layout.type, dim):,}"
    parts += ", an id of 8, a share of the centroids" if layout.nlist else ""
    disk = f"{each + 2 * dim:,.1f} bytes per vector: those in memory and {2 * dim:,} of fp16; texts come on top"
    build = "estimated for the vectors alone; segments are built in parallel"
    return [
        Choice("memory", gib(memory), f"{each:,.1f} bytes per vector: {parts}"),
        Choice("disk", gib(memory + 2 * dim * layout.rows), disk),
        Choice("build", f"{_duration(cost.build_seconds(layout))} of one core", build),
    ]


def _why_segments(layout: IndexLayout) -> str:
    if layout.num_segments == 1:
        return "few enough rows for one task to build"
    return f"{layout.num_segments:,} tasks, each with what fits its memory; every further one has centroids to search"


def _why_shards(layout: IndexLayout, num_shards: int) -> str:
    if num_shards == 1:
        return "one thread searches all segments in time"
    alone = _digits(cost.p95_ms(layout, 1))
    return f"one thread would take {alone} ms, so retrieve.num_shards={num_shards} actors share the segments"


def gib(size: float) -> str:
    """Write bytes as MiB or GiB."""
    return f"{_digits(size / 2**30)} GiB" if size >= 2**30 / 10 else f"{_digits(size / 2**20)} MiB"


def _digits(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.2g}" if value < 1 else f"{value:.1f}"


def _duration(seconds: float) -> str:
    for unit, size in (("days", 86400), ("hours", 3600), ("minutes", 60)):
        if seconds >= 2 * size:
            return f"{_digits(seconds / size)} {unit}"
    return f"{_digits(seconds)} s"
