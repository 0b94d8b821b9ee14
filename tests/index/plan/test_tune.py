"""Tuning takes the cheapest setting that finds enough, counts as a slow loop would, and refuses what the budgets do not allow."""

import json
from collections.abc import Callable, Collection
from pathlib import Path

import numpy as np
import pytest

from ragray.config import IndexConfig, IndexType
from ragray.errors import IndexBudgetError
from ragray.index.plan.tune import (
    MAX_EF_SEARCH,
    Measure,
    TuningPoint,
    choose,
    curve_path,
    explore,
    held_out,
    measure_point,
    tuned_snapshot,
)
from ragray.index.search.reader import IndexReader
from ragray.index.store.search_params import SearchParams
from ragray.index.store.snapshot import Snapshot, read_snapshot
from ragray.types import Passage
from tests.helpers import index_of, some_passages

DIFFERENT = some_passages(300)
DELETED = {0, 7, 250, 299}
LISTS = IndexConfig(type="ivf", nlist=16, segment_rows=100)


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three segments of 16 lists."""
    return index_of(tmp_path_factory.mktemp("tune"), DIFFERENT, LISTS)


def all_vectors(reader: IndexReader) -> np.ndarray:
    return np.concatenate([opened.segment.vectors_ND for opened in reader.segments]).astype(np.float32)


def test_queries_are_live_rows_of_all_segments_and_the_same_every_time(tmp_path: Path) -> None:
    reader = IndexReader.open(index_of(tmp_path, DIFFERENT, LISTS, deleted=DELETED))
    held = held_out(reader, 3)
    assert len(set(held.rows_Q.tolist())) == 200
    assert not set(held.rows_Q.tolist()) & DELETED
    assert {int(row) // 100 for row in held.rows_Q} == {0, 1, 2}
    np.testing.assert_array_equal(held.rows_Q, held_out(reader, 3).rows_Q)
    vectors_ND = all_vectors(reader)
    np.testing.assert_array_equal(held.queries_QD, vectors_ND[held.rows_Q])
    for row, needed in zip(held.rows_Q.tolist(), held.needed_Q.tolist(), strict=True):
        assert needed == pytest.approx(np.sort(scores_of_others(vectors_ND, row, DELETED))[-10], abs=2e-5)


def scores_of_others(vectors_ND: np.ndarray, row: int, deleted: Collection[int] = ()) -> np.ndarray:
    scores: np.ndarray = vectors_ND @ vectors_ND[row]
    scores[[row, *deleted]] = -np.inf
    return scores


def test_recall_is_the_share_of_the_ten_nearest_other_rows_that_search_finds(index: Path) -> None:
    reader = IndexReader.open(index)
    held = held_out(reader, 0)
    params = SearchParams(nprobe=2)
    point = measure_point(reader, held, params)
    vectors_ND, near = all_vectors(reader), 0
    for row in held.rows_Q.tolist():
        scores = scores_of_others(vectors_ND, row)
        rows_NK, _ = reader.search_rows(vectors_ND[row][None], 11, params=params)
        near += min(
            10, sum(scores[found] >= np.sort(scores)[-10] - 1e-5 for found in rows_NK[0].tolist() if found >= 0)
        )
    assert point.recall_at_10 == near / 2000
    assert 0.1 < point.recall_at_10 < 0.95


@pytest.mark.parametrize("count", [1, 2, 5, 30])
def test_an_index_of_few_rows_that_searches_all_its_lists_misses_nothing(tmp_path: Path, count: int) -> None:
    folder = index_of(tmp_path, DIFFERENT[:count], IndexConfig(type="ivf", nlist=1))
    assert tuned_snapshot(folder, read_snapshot(folder), IndexConfig(min_recall=1)).recall_at_10 == 1


def test_which_of_equally_near_rows_is_found_does_not_count_against_recall(tmp_path: Path) -> None:
    same = [Passage(f"p{n}", DIFFERENT[n % 8].text) for n in range(240)]
    folder = index_of(tmp_path, same, IndexConfig(type="ivf", nlist=4))
    reader = IndexReader.open(folder)
    assert measure_point(reader, held_out(reader, 0), SearchParams(nprobe=1, over_retrieve=1)).recall_at_10 == 1


@pytest.mark.parametrize("type_", ["ivf", "ivf_sq", "ivf_rabitq", "ivf_pq", "hnsw"])
def test_a_snapshot_is_tuned_to_the_recall_asked_for_and_keeps_what_was_measured(
    tmp_path: Path, type_: IndexType
) -> None:
    folder = index_of(tmp_path, DIFFERENT[:120], IndexConfig(type=type_, nlist=0 if type_ == "hnsw" else 8))
    before = read_snapshot(folder)
    tuned = tuned_snapshot(folder, before, IndexConfig(min_recall=0.9))
    changed = {name for name in Snapshot.model_fields if getattr(tuned, name) != getattr(before, name)}
    assert changed <= {"search_params", "recall_at_10"}
    curve = json.loads(curve_path(folder, tuned.name).read_text())
    enough = [point for point in curve if point["recall_at_10"] >= 0.9]
    best = min(enough, key=lambda point: point["ms_per_query"])
    params = tuned.search_params
    assert (params.nprobe, params.over_retrieve, params.ef_search, tuned.recall_at_10) == tuple(
        best[name] for name in ("nprobe", "over_retrieve", "ef_search", "recall_at_10")
    )
    assert (params.nprobe == 0, params.ef_search == 0) == (type_ == "hnsw", type_ != "hnsw")
    reader = IndexReader.of(folder, before)
    again = measure_point(reader, held_out(reader, 0), params)
    assert again.recall_at_10 == tuned.recall_at_10


def test_exact_search_and_an_index_without_live_rows_have_nothing_to_tune(tmp_path: Path) -> None:
    exact = index_of(tmp_path / "exact", DIFFERENT[:20])
    empty = index_of(tmp_path / "empty", DIFFERENT[:20], IndexConfig(type="ivf", nlist=2), deleted=range(20))
    for folder in (exact, empty):
        assert tuned_snapshot(folder, read_snapshot(folder), IndexConfig()).recall_at_10 is None
        assert not curve_path(folder, "000001-test").exists()


def test_settings_of_the_user_are_measured_and_kept(index: Path) -> None:
    config = IndexConfig(nprobe=3, over_retrieve=5, min_recall=0)
    tuned = tuned_snapshot(index, read_snapshot(index), config)
    assert tuned.search_params == SearchParams(nprobe=3, over_retrieve=5)
    assert tuned.recall_at_10 is not None
    with pytest.raises(
        IndexBudgetError, match=r"nothing was published: raise index\.nprobe, or raise index\.over_retr"
    ):
        tuned_snapshot(index, read_snapshot(index), config.model_copy(update={"min_recall": 0.99}))


def test_too_small_a_latency_is_refused_with_the_one_that_suffices(index: Path) -> None:
    with pytest.raises(IndexBudgetError, match=r"nothing was published: raise index\.p95_ms to \d") as caught:
        tuned_snapshot(index, read_snapshot(index), IndexConfig(p95_ms=0.001))
    needed = float(str(caught.value).split("p95_ms to ")[1].split(",")[0])
    assert needed > 0.001


def fake(recall: Callable[[int, int], float], ms: Callable[[int, int], float]) -> tuple[list[tuple[int, int]], Measure]:
    calls: list[tuple[int, int]] = []

    def measure(params: SearchParams) -> TuningPoint:
        effort, over = params.effort, params.over_retrieve
        calls.append((effort, over))
        return TuningPoint(params, recall(effort, over), ms(effort, over), 2 * ms(effort, over))

    return calls, measure


@pytest.mark.parametrize("needed", [1, 2, 12, 13, 24, 37, 100, 999, 1000, 1024])
def test_exact_vectors_are_searched_in_little_more_lists_than_needed(needed: int) -> None:
    calls, measure = fake(lambda effort, over: float(effort >= needed), lambda effort, over: effort)
    curve = explore(measure, "IVF1024,Flat", IndexConfig())
    enough = [point.search_params.nprobe for point in curve if point.recall_at_10 == 1]
    assert needed <= min(enough) <= max(8, 1.3 * needed)
    assert len(calls) == len(set(calls)) <= 10
    assert {over for _, over in calls} == {2}


def test_coarse_codes_are_given_more_candidates_when_more_lists_no_longer_help() -> None:
    def recall(effort: int, over: int) -> float:
        return min(effort / 64, 1) * {4: 0.8, 10: 0.94, 20: 0.97, 50: 0.99, 100: 1.0}[over]

    calls, measure = fake(recall, lambda effort, over: effort / 10 + over)
    curve = explore(measure, "RR384,IVF1024,RaBitQ", IndexConfig())
    best = choose(curve, "RR384,IVF1024,RaBitQ", 1, IndexConfig())
    assert best.search_params.over_retrieve == 20
    assert 62 <= best.search_params.nprobe <= 80
    assert {over for _, over in calls} == {4, 10, 20, 50}
    assert max(effort for effort, _ in calls) <= 256
    assert len(calls) < 25


def test_what_cannot_be_reached_ends_at_all_lists_or_where_nothing_is_gained() -> None:
    for factory, ends in (("IVF64,Flat", 64), ("IVF64,SQ8", 4), ("HNSW32", MAX_EF_SEARCH)):
        calls, measure = fake(lambda effort, over: 0.5, lambda effort, over: effort)
        assert max(point.effort for point in explore(measure, factory, IndexConfig())) == ends
        assert len(calls) <= 40


POINTS = [
    TuningPoint(SearchParams(nprobe=1), 0.5, 1, 2),
    TuningPoint(SearchParams(nprobe=2), 0.9, 3, 6),
    TuningPoint(SearchParams(nprobe=4), 0.99, 9, 18),
]


def chosen(num_segments: int, **limits: float) -> TuningPoint:
    return choose(POINTS, "IVF8,Flat", num_segments, IndexConfig.model_validate(limits))


def test_the_cheapest_setting_that_keeps_all_budgets_is_chosen() -> None:
    assert chosen(1, min_recall=0.4) == POINTS[0]
    assert chosen(1, min_recall=0.6, p95_ms=6) == POINTS[1]


def test_segments_may_be_spread_over_threads_to_answer_in_time(caplog: pytest.LogCaptureFixture) -> None:
    assert chosen(3, min_recall=0.9, p95_ms=2) == POINTS[1]
    assert "set retrieve.num_shards=3" in caplog.text


@pytest.mark.parametrize(
    ("limits", "message"),
    [
        ({"min_recall": 0.995}, r"^IVF8,Flat reaches recall@10 0\.990 at best \(nprobe=4.*lower index\.min_recall$"),
        ({"p95_ms": 10}, r"^IVF8,Flat needs 18 ms .*raise index\.p95_ms to 21\.6, or lower index\.min_recall to 0\.9$"),
        ({"p95_ms": 0.1}, r"raise index\.p95_ms to 21\.6$"),
    ],
)
def test_a_refusal_names_the_best_figure_and_what_to_raise(limits: dict[str, float], message: str) -> None:
    with pytest.raises(IndexBudgetError, match=message):
        chosen(1, **limits)
