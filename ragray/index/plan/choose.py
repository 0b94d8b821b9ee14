"""Choice of a FAISS type. In: rows, dimensions, budgets. Out: a FAISS type and its parameters, with reasons; pure arithmetic."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

from ragray.config import IndexConfig, IndexType
from ragray.errors import ConfigError, IndexBudgetError
from ragray.index.plan import cost
from ragray.index.plan.cost import IndexLayout
from ragray.index.plan.explain import Choice, choices, why_type
from ragray.index.store.search_params import SearchParams

LADDER: tuple[IndexType, ...] = ("ivf", "ivf_sq", "ivf_rabitq", "ivf_pq")
"""What `auto` tries above `exact_up_to_rows`, finest codes first; an HNSW cannot be deleted from and is only taken when asked for."""

MIN_POINTS_PER_LIST = 39
"""FAISS warns below this many training points per list (`ClusteringParameters.min_points_per_centroid`)."""

PQ_VALUES = 16
"""Values of a four-bit code, each trained."""

SEGMENTS = 16
"""A plan that is free to choose makes about this many segments of a large corpus: tasks enough, and few lists of centroids to search."""

SEGMENT_BYTES = 8 << 30
"""A segment's FAISS index is built in the memory of one task."""

MAX_DIM = 65_536
"""Dimensions of an embedding, at most: no model makes so many."""

EF_SEARCH = 64

_ROWS = {"": 1, "k": 10**3, "m": 10**6, "b": 10**9}
_BYTES = {"kib": 2**10, "mib": 2**20, "gib": 2**30, "tib": 2**40, "kb": 10**3, "mb": 10**6, "gb": 10**9, "tb": 10**12}
_MILLISECONDS = {"ms": 1, "s": 1000}


@dataclass(frozen=True, slots=True)
class Budget:
    """What an index may cost and must find; 0 is no limit."""

    rows: int
    dim: int
    memory_bytes: int = 0
    p95_ms: float = 0.0
    min_recall: float = 0.95


@dataclass(frozen=True, slots=True)
class IndexPlan:
    """A FAISS type with its parameters, and what they are estimated to cost; parameters that the type does not have are 0.

    ``num_shards`` retriever actors, a thread each, share the segments so as to answer in ``p95_ms``. ``settings`` are the
    overrides with which `ragray index build` builds exactly this.
    """

    type: IndexType
    factory: str
    num_segments: int
    segment_rows: int
    nlist: int
    search_params: SearchParams
    train_rows: int
    bytes_per_vector: float
    disk_bytes_per_vector: float
    memory_bytes: int
    num_shards: int
    p95_ms: float
    build_s_per_core: float
    choices: tuple[Choice, ...]
    settings: tuple[str, ...]

    @property
    def exact(self) -> bool:
        """True where every row is looked at."""
        return self.type == "flat"

    @property
    def reason(self) -> str:
        """Why this type."""
        return self.choices[0].reason

    def lines(self) -> list[str]:
        """Return the plan as a table, and how to build it."""
        names = max(len(choice.name) for choice in self.choices)
        values = max(len(choice.value) for choice in self.choices)
        table = [f"{choice.name:<{names}}  {choice.value:<{values}}  {choice.reason}" for choice in self.choices]
        return [*table, f"build it with: {' '.join(self.settings)}"]


def parse_budget(rows: str, dim: int, *, memory: str = "", p95: str = "", recall: float = 0.95) -> Budget:
    """Read a budget as it is written on the command line: `100M` rows, `64GiB`, `20ms`; empty is no limit.

    Raises:
        ConfigError: names the value that cannot be read, and examples of what can.
    """
    return Budget(
        int(_number("rows", rows, _ROWS, "1000, 100k, 10M or 1B")),
        dim,
        int(_number("memory", memory, _BYTES, "512MiB, 64GiB or 1.5TB")) if memory else 0,
        _number("p95", p95, _MILLISECONDS, "20ms or 1.5s") if p95 else 0.0,
        recall,
    )


def _number(name: str, text: str, units: dict[str, int], examples: str) -> float:
    match = re.fullmatch(r"(\d[\d_]*(?:\.\d+)?)\s*([a-z]*)", text.strip().lower(), re.ASCII)
    if not match or match[2] not in units or len(match[1]) > 20:
        raise ConfigError(f"{name} {text!r}: expected a number with its unit, such as {examples}")
    value = float(match[1].replace("_", "")) * units[match[2]]
    if not value or (name != "p95" and value < 1):
        raise ConfigError(f"{name} {text!r}: expected more than nothing, such as {examples}")
    return value


def plan(budget: Budget) -> IndexPlan:
    """Choose type, segments and parameters for a budget.

    Raises:
        IndexBudgetError: nothing fits; says which budget to raise and to what.
        ConfigError: a budget has no possible value.
    """
    if not 0 <= budget.min_recall <= 1:
        raise ConfigError(f"recall {budget.min_recall}: expected a share between 0 and 1, such as 0.95")
    if budget.dim < 1 or budget.rows < 1 or budget.memory_bytes < 0 or budget.p95_ms < 0:
        raise ConfigError(
            f"{budget.rows} rows of {budget.dim} dimensions in {budget.memory_bytes} bytes and {budget.p95_ms} ms: "
            "expected at least one row and one dimension, and no negative limit"
        )
    if budget.dim > MAX_DIM:
        raise ConfigError(f"{budget.dim} dimensions: expected those of an embedding, {MAX_DIM:,} at most")
    limits = {"memory_gib": budget.memory_bytes / 2**30, "p95_ms": budget.p95_ms, "min_recall": budget.min_recall}
    return _choose(budget.rows, budget.dim, IndexConfig.model_validate(limits), free=True)


def plan_index(rows: int, dim: int, config: IndexConfig) -> IndexPlan:
    """Choose as `plan` does, for ``rows`` vectors in all, but keep to the segments, lists and sample of the configuration.

    Raises:
        IndexBudgetError: nothing fits.
        ConfigError: more lists are asked for than there are rows to train them.
    """
    return _choose(rows, dim, config, free=False)


def _choose(rows: int, dim: int, config: IndexConfig, *, free: bool) -> IndexPlan:
    if config.type != "auto":
        layout = _layout(config.type, rows, dim, config, free=free)
        _in_memory([layout], config)
        return _plan(
            layout, cost.shards(layout, config.p95_ms) or layout.num_segments, "index.type asks for it", config
        )
    exact = -(-rows // -(-rows // config.segment_rows)) <= config.exact_up_to_rows
    types: list[IndexType] = ["flat"] if exact else []
    types += [type_ for type_ in LADDER if not exact or _why_untrainable(type_, rows, config) is None]
    layouts = [_layout(type_, rows, dim, config, free=free) for type_ in types]
    small = _in_memory(layouts, config)
    for most in (1, rows):
        for layout in small:
            if 0 < (shards := cost.shards(layout, config.p95_ms)) <= most:
                return _plan(layout, shards, why_type(layout, layouts, config.memory_gib), config)
    raise _too_slow(small, config)


def _layout(type_: IndexType, rows: int, dim: int, config: IndexConfig, *, free: bool) -> IndexLayout:
    """Give a type its segments and parameters."""
    wanted = config.segment_rows
    if free and rows > wanted:
        wanted = max(1, min(max(wanted, -(-rows // SEGMENTS)), SEGMENT_BYTES // (cost.code_bytes(type_, dim) + 8)))
    num_segments = -(-rows // wanted)
    segment_rows = -(-rows // num_segments)
    effort = _effort(config.min_recall)
    over = config.over_retrieve or min(100, round(cost.OVER_RETRIEVE[type_] * max(1, effort / 2)))
    nlist = nprobe = train_rows = 0
    if type_ not in ("flat", "hnsw"):
        if problem := _why_untrainable(type_, rows, config):
            raise ConfigError(problem)
        nlist = config.nlist or _lists(segment_rows, rows if free else min(rows, config.train_rows))
        train_rows = min(rows, max(config.train_rows, 64 * nlist) if free else config.train_rows)
        nprobe = min(nlist, config.nprobe or max(4, math.ceil(min(nlist, math.sqrt(nlist) * effort))))
    ef_search = EF_SEARCH if type_ == "hnsw" else 0
    params = SearchParams(nprobe=nprobe, ef_search=ef_search, over_retrieve=over)
    return IndexLayout(type_, rows, dim, num_segments, segment_rows, nlist, params, train_rows)


def _lists(segment_rows: int, most: int) -> int:
    """4 sqrt(n), the middle of FAISS's own advice, rounded down to a power of two that ``most`` rows can train."""
    nlist = 1 << max(2, round(4 * math.sqrt(segment_rows)).bit_length() - 1)
    while nlist > 1 and nlist * MIN_POINTS_PER_LIST > most:
        nlist //= 2
    return nlist


def _effort(min_recall: float) -> float:
    """How much harder than for recall 0.95 to look: of 20,000 real vectors sqrt(nlist) lists found 0.956, four times that 0.992."""
    return 0.05 / max(1 - min_recall, 1e-3)


def _why_untrainable(type_: IndexType, rows: int, config: IndexConfig) -> str | None:
    sample = min(rows, config.train_rows)
    if config.nlist > rows:
        return f"index.nlist={config.nlist} is more than the {rows} rows there are; lower it, or set index.type=flat"
    if config.nlist > sample:
        return f"index.nlist={config.nlist} is more than index.train_rows={config.train_rows}; raise the latter"
    if type_ == "ivf_pq" and sample < PQ_VALUES:
        return f"{sample} rows cannot train ivf_pq, it needs {PQ_VALUES}; set index.type=flat"
    return None


def _in_memory(layouts: list[IndexLayout], config: IndexConfig) -> list[IndexLayout]:
    """Return the layouts that fit the memory."""
    small = [layout for layout in layouts if cost.fits(layout, config.memory_gib)]
    if not small:
        least = min(layouts, key=cost.memory_bytes)
        raise IndexBudgetError(
            f"{least.rows:,} rows of {least.dim} dimensions do not fit index.memory_gib={config.memory_gib:g}: "
            f"{least.factory} needs {_round_up(cost.memory_bytes(least) / 2**30):g} GiB; raise the memory to that"
        )
    return small


def _too_slow(small: list[IndexLayout], config: IndexConfig) -> IndexBudgetError:
    """Return the error that names a p95 that suffices. More memory never does: coarser codes are searched faster."""
    fastest = min(small, key=lambda layout: cost.p95_ms(layout, layout.num_segments))
    needed = _round_up(cost.p95_ms(fastest, fastest.num_segments))
    return IndexBudgetError(
        f"{fastest.rows:,} rows of {fastest.dim} dimensions are not searched within index.p95_ms={config.p95_ms:g}: a segment "
        f"of {fastest.factory} alone takes one thread {needed:g} ms by estimate; raise p95 to {needed:g} ms"
    )


def _round_up(value: float) -> float:
    """Round up to three digits."""
    step = 10.0 ** (math.floor(math.log10(value)) - 2)
    return float(f"{math.ceil(value / step) * step:.6g}")


def _plan(layout: IndexLayout, num_shards: int, why: str, config: IndexConfig) -> IndexPlan:
    memory = cost.memory_bytes(layout)
    settings = {"type": layout.type, "segment_rows": layout.segment_rows}
    if layout.nlist:
        settings |= {"nlist": layout.nlist, "train_rows": layout.train_rows}
    limits = {"memory_gib": config.memory_gib, "p95_ms": config.p95_ms, "min_recall": config.min_recall}
    return IndexPlan(
        type=layout.type,
        factory=layout.factory,
        num_segments=layout.num_segments,
        segment_rows=layout.segment_rows,
        nlist=layout.nlist,
        search_params=layout.search_params,
        train_rows=layout.train_rows,
        bytes_per_vector=memory / layout.rows,
        disk_bytes_per_vector=memory / layout.rows + 2 * layout.dim,
        memory_bytes=memory,
        num_shards=num_shards,
        p95_ms=cost.p95_ms(layout, num_shards),
        build_s_per_core=cost.build_seconds(layout),
        choices=choices(layout, num_shards, why),
        settings=tuple(f"index.{key}={value}" for key, value in (settings | limits).items() if value),
    )
