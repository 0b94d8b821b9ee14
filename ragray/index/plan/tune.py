"""Tuning. In: a snapshot that is not published yet. Out: the cheapest search parameters that find enough, and what was measured.

N rows, Q queries, K results, D dim.
"""

from __future__ import annotations

import logging
import math
import re
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from time import perf_counter

import numpy as np
from pydantic import JsonValue, TypeAdapter, ValidationError

from ragray.artifact.files import write_json
from ragray.config import IndexConfig
from ragray.errors import CorruptArtifactError, IndexBudgetError
from ragray.index.search.reader import IndexReader
from ragray.index.search.rescore import widened
from ragray.index.store.search_params import SearchParams, flattened, lifted
from ragray.index.store.snapshot import Snapshot

TUNING = "tuning"
QUERIES = 200
K = 10
ROUNDING = 1e-5
"""How far two float32 sums of one product may be apart, relative to the query's length squared."""

EXACT_ROWS = 65536
"""Rows compared with all queries at a time."""

OVER_RETRIEVE = (4, 10, 20, 50, 100)
"""Candidates tried for codes whose scores are estimates; exact vectors need but the two that settle ties."""

MAX_EF_SEARCH = 2048
SATURATED = 0.002
"""Recall that doubling the lists must gain with coarse codes; with less, only more candidates help."""

logger = logging.getLogger("ragray")


@dataclass(frozen=True, slots=True)
class TuningPoint:
    """One setting and what was measured with it, on one thread, a query at a time; ``ms_per_query`` is the mean."""

    search_params: SearchParams
    recall_at_10: float
    ms_per_query: float
    p95_ms: float

    @property
    def effort(self) -> int:
        """Lists searched, or nodes of a graph kept."""
        return self.search_params.effort


@dataclass(frozen=True, slots=True)
class HeldOutQueries:
    """Queries with their own global rows, and the score that the k nearest other rows reach."""

    rows_Q: np.ndarray
    queries_QD: np.ndarray
    needed_Q: np.ndarray
    k: int


Measure = Callable[[SearchParams], TuningPoint]


def curve_path(index: Path, snapshot: str) -> Path:
    """Return where the points measured for a snapshot are kept, a JSON list of `TuningPoint`; an exact index has none."""
    return index / TUNING / f"{snapshot}.json"


def write_curve(path: Path, curve: list[TuningPoint]) -> None:
    """Write points, each as a flat mapping."""
    write_json(path, [flattened(asdict(point)) for point in curve])


def read_curve(path: Path) -> tuple[TuningPoint, ...]:
    """Read what `write_curve` wrote; nothing where there is no file.

    Raises:
        CorruptArtifactError: the file holds something else.
    """
    try:
        raw = TypeAdapter(list[dict[str, JsonValue]]).validate_json(path.read_text(encoding="utf-8"))
        return TypeAdapter(tuple[TuningPoint, ...]).validate_python([lifted(point) for point in raw])
    except FileNotFoundError:
        return ()
    except ValidationError as err:
        raise CorruptArtifactError(f"{path}: is no list of measurements; remove it, it is only looked at") from err


def tuned_snapshot(index: Path, snapshot: Snapshot, config: IndexConfig) -> Snapshot:
    """Return the snapshot with the cheapest search parameters that reach the recall asked for, and that recall.

    `index.nprobe` and `index.over_retrieve` are kept where they are set. What was measured is written to `curve_path`. Exact
    search has nothing to tune.

    Raises:
        IndexBudgetError: the recall is not reached, or not in time; says what to raise.
    """
    if snapshot.factory == "Flat" or not snapshot.num_live:
        exhaustive = replace(snapshot.search_params, nprobe=0, ef_search=0)
        return snapshot.model_copy(update={"search_params": exhaustive, "recall_at_10": None})
    reader = IndexReader.of(index, snapshot)
    measure = partial(measure_point, reader, held_out(reader, config.seed))
    measure(_params(snapshot.factory, config.nprobe or 1, 2))  # brings the files into memory
    curve = explore(measure, snapshot.factory, config)
    best = choose(curve, snapshot.factory, len(snapshot.segments), config)
    write_curve(curve_path(index, snapshot.name), curve)
    return snapshot.model_copy(update={"search_params": best.search_params, "recall_at_10": best.recall_at_10})


def explore(measure: Measure, factory: str, config: IndexConfig) -> list[TuningPoint]:
    """Measure growing efforts until the recall is reached, for exact vectors or for several numbers of candidates."""
    lists = re.search(r"IVF(\d+)", factory)
    most = int(lists[1]) if lists else MAX_EF_SEARCH
    coarse = bool(lists) and not factory.endswith(",Flat")
    start = config.nprobe if lists and config.nprobe else max(1, round(math.sqrt(most) / 4))
    if lists and config.nprobe:
        most = start = min(start, most)
    curve: list[TuningPoint] = []
    for over in (config.over_retrieve,) if config.over_retrieve else OVER_RETRIEVE if coarse else (2,):

        def at(effort: int, over: int = over) -> TuningPoint:
            return measure(_params(factory, effort, over))

        points = _grow(at, start, most, coarse=coarse, min_recall=config.min_recall)
        curve += points
        reached = [point.ms_per_query for point in curve if point.recall_at_10 >= config.min_recall]
        if reached and points[0].ms_per_query >= min(reached):
            break
        if coarse and points[-1].recall_at_10 < config.min_recall:
            start = max(start, points[-1].effort // 4)
    return curve


def _params(factory: str, effort: int, over_retrieve: int) -> SearchParams:
    """Return the parameters of an effort, which is efSearch for a graph and nprobe for lists."""
    if factory.startswith("HNSW"):
        return SearchParams(ef_search=effort, over_retrieve=over_retrieve)
    return SearchParams(nprobe=effort, over_retrieve=over_retrieve)


def _grow(
    at: Callable[[int], TuningPoint], start: int, most: int, *, coarse: bool, min_recall: float
) -> list[TuningPoint]:
    """Double the effort until it suffices or cannot, then look between the last two."""
    points = [at(start)]
    while points[-1].recall_at_10 < min_recall and points[-1].effort < most:
        points.append(at(min(2 * points[-1].effort, most)))
        if coarse and points[-1].recall_at_10 - points[-2].recall_at_10 < SATURATED:
            return points
    if len(points) == 1 or points[-1].recall_at_10 < min_recall:
        return points
    low, high = points[-2].effort, points[-1].effort
    for _ in range(2):
        if high - low > max(1, low // 8):
            point = at((low + high) // 2)
            points.append(point)
            low, high = (low, point.effort) if point.recall_at_10 >= min_recall else (point.effort, high)
    return sorted(points, key=lambda point: point.effort)


def choose(curve: list[TuningPoint], factory: str, num_segments: int, config: IndexConfig) -> TuningPoint:
    """Return the cheapest point that keeps to the budgets.

    The segments of a snapshot may be spread over as many threads: the latency holds if it does then.

    Raises:
        IndexBudgetError: there is none; says what to raise.
    """
    limit = config.p95_ms or math.inf
    enough = [point for point in curve if point.recall_at_10 >= config.min_recall]
    in_time = [point for point in enough if point.p95_ms <= limit * num_segments]
    if not enough:
        raise _too_coarse(max(curve, key=lambda point: point.recall_at_10), factory, config)
    if not in_time:
        raise _too_slow(min(enough, key=lambda point: point.p95_ms), curve, factory, num_segments, config)
    best = min(in_time, key=lambda point: (point.p95_ms > limit, point.ms_per_query))
    if best.p95_ms > limit:
        shards = math.ceil(best.p95_ms / limit)
        logger.warning(
            "index: one thread needs %.3g ms; to keep to index.p95_ms=%g, set retrieve.num_shards=%d",
            best.p95_ms, config.p95_ms, shards,
        )  # fmt: skip
    return best


def _too_coarse(best: TuningPoint, factory: str, config: IndexConfig) -> IndexBudgetError:
    advice = [f"raise index.{key}" for key in ("nprobe", "over_retrieve") if getattr(config, key)]
    if not factory.endswith(",Flat"):
        advice.append("raise index.memory_gib and set a finer index.type")
    advice.append("lower index.min_recall")
    return IndexBudgetError(
        f"{factory} reaches recall@10 {best.recall_at_10:.3f} at best ({_setting(best)}, {best.p95_ms:.3g} ms), "
        f"index.min_recall={config.min_recall:g} is asked for; nothing was published: {', or '.join(advice)}"
    )


def _too_slow(
    best: TuningPoint, curve: list[TuningPoint], factory: str, share: int, config: IndexConfig
) -> IndexBudgetError:
    fast = [point.recall_at_10 for point in curve if point.p95_ms <= config.p95_ms * share]
    lower = f", or lower index.min_recall to {math.floor(max(fast) * 1000) / 1000:g}" if fast else ""
    return IndexBudgetError(
        f"{factory} needs {best.p95_ms / share:.3g} ms per segment for recall@10 {best.recall_at_10:.3f} ({_setting(best)}), "
        f"index.p95_ms={config.p95_ms:g} is asked for; nothing was published: raise index.p95_ms to "
        f"{math.ceil(best.p95_ms / share * 12) / 10:g}{lower}"
    )


def _setting(point: TuningPoint) -> str:
    params = point.search_params
    effort = f"nprobe={params.nprobe}" if params.nprobe else f"efSearch={params.ef_search}"
    return f"{effort}, over_retrieve={params.over_retrieve}"


def measure_point(reader: IndexReader, held: HeldOutQueries, params: SearchParams) -> TuningPoint:
    """Search with some parameters, a query at a time; every row as near as the tenth counts, the query's own row does not.

    Which of several equally near rows is found says nothing about the index. ``reader`` is to search with one thread.
    """
    near, times = 0, []
    for row, query_D, needed in zip(held.rows_Q, held.queries_QD, held.needed_Q, strict=True):
        started = perf_counter()
        rows_NK, scores_NK = reader.search_rows(query_D[None], held.k + 1, params=params)
        times.append(1000 * (perf_counter() - started))
        found = (rows_NK[0] >= 0) & (rows_NK[0] != row) & (scores_NK[0] >= needed)
        near += min(int(found.sum()), held.k)
    recall = near / (held.k * len(times)) if held.k else 1.0
    return TuningPoint(params, recall, float(np.mean(times)), float(np.quantile(times, 0.95)))


def held_out(reader: IndexReader, seed: int) -> HeldOutQueries:
    """Draw queries from the live rows of all segments, and find exactly how near their nearest others are, a piece at a time."""
    rows_Q = _sample(reader, seed)
    offsets = np.array([opened.offset for opened in reader.segments])
    places = np.searchsorted(offsets, rows_Q, side="right") - 1
    queries_QD = np.stack(
        [
            reader.segments[place].segment.vectors_ND[row - offsets[place]]
            for row, place in zip(rows_Q, places, strict=True)
        ]
    ).astype(np.float32)
    k = min(K, sum(int(opened.live_N.sum()) for opened in reader.segments) - 1)
    best_QK = np.full((len(rows_Q), k), -np.inf, dtype=np.float32)
    for opened in reader.segments:
        for start in range(0, len(opened.live_N), EXACT_ROWS):
            piece = slice(start, start + EXACT_ROWS)
            scores_QN = queries_QD @ widened(np.asarray(opened.segment.vectors_ND)[piece]).T
            scores_QN[:, ~opened.live_N[piece]] = -np.inf
            own = rows_Q - opened.offset - start
            here = np.flatnonzero((own >= 0) & (own < scores_QN.shape[1]))
            scores_QN[here, own[here]] = -np.inf
            if k:
                best_QK = np.partition(np.concatenate([best_QK, scores_QN], axis=1), -k, axis=1)[:, -k:]
    tolerance_Q = ROUNDING * np.square(queries_QD).sum(axis=1)
    return HeldOutQueries(rows_Q, queries_QD, best_QK.min(axis=1, initial=np.inf) - tolerance_Q, k)


def _sample(reader: IndexReader, seed: int) -> np.ndarray:
    """Draw global rows among the live ones of all segments, ascending."""
    counts = [int(opened.live_N.sum()) for opened in reader.segments]
    generator = np.random.default_rng(seed)
    chosen = np.sort(generator.choice(sum(counts), size=min(QUERIES, sum(counts)), replace=False))
    rows = []
    for opened, first, count in zip(reader.segments, np.cumsum([0, *counts]), counts, strict=False):
        inside = chosen[(chosen >= first) & (chosen < first + count)] - first
        rows.append(np.flatnonzero(opened.live_N)[inside] + opened.offset)
    return np.concatenate(rows)
