"""Fusion by scores and by ranks, computed by hand."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest

from ragray.index.search.result import BothScores, SearchResult, nothing
from ragray.retrieve.fuse import fuse_ranks, fuse_scores
from ragray.types import Hit, Passage


def ranked(*queries: Sequence[int], k: int = 4) -> SearchResult:
    """A result that holds these rows for each query; row r has the inner product r and a score that fusion must not mind."""
    rows_NK = np.array([[*rows, *[-1] * (k - len(rows))] for rows in queries], dtype=np.int64)
    scores_NK = np.where(rows_NK >= 0, -np.arange(k, dtype=np.float32) - 7, -np.inf).astype(np.float32)
    hits = [[Hit(Passage(f"p{row}", "text"), -7.0 - rank, row) for rank, row in enumerate(rows)] for rows in queries]
    return SearchResult(rows_NK, scores_NK, np.zeros((*rows_NK.shape, 0), dtype=np.float16), hits)


def test_scores_are_the_sums_of_inverse_ranks_over_the_largest_there_can_be() -> None:
    found = fuse_ranks([ranked([10, 20, 30]), ranked([20, 40])], 4, rrf_k=60)
    largest = 2 / 61
    expected = {20: (1 / 62 + 1 / 61) / largest, 10: 1 / 61 / largest, 40: 1 / 62 / largest, 30: 1 / 63 / largest}
    assert found.rows_NK.tolist() == [list(expected)]
    assert found.scores_NK[0] == pytest.approx(list(expected.values()))
    assert [hit.passage.id for hit in found.hits[0]] == ["p20", "p10", "p40", "p30"]
    assert [hit.score for hit in found.hits[0]] == found.scores_NK[0].tolist()
    assert [hit.dense for hit in found.hits[0]] == [20, 10, 40, 30]


@pytest.mark.parametrize("lists", [1, 2, 3])
def test_the_first_of_every_list_has_the_score_one(lists: int) -> None:
    found = fuse_ranks([ranked([3, 1])] * lists, 2, rrf_k=10)
    assert found.scores_NK[0].tolist() == pytest.approx([1, 11 / 12])
    assert found.scores_NK[0, 0] == 1


def test_ties_go_to_the_lower_row() -> None:
    assert fuse_ranks([ranked([9, 5, 7]), ranked([5, 9, 7])], 3, rrf_k=60).rows_NK.tolist() == [[5, 9, 7]]
    in_any_order = [ranked([1, 2, 3]), ranked([3, 1, 2]), ranked([2, 3, 1])]
    found = fuse_ranks(in_any_order, 3, rrf_k=60)
    assert found.rows_NK.tolist() == [[1, 2, 3]]
    assert len(set(found.scores_NK[0].tolist())) == 1


def test_a_small_constant_favours_the_first_of_one_list_and_a_large_one_what_stands_in_both() -> None:
    parts = [ranked([1, 8, 9, 2]), ranked([3, 7, 6, 2])]
    assert fuse_ranks(parts, 1, rrf_k=1).rows_NK.tolist() == [[1]]
    assert fuse_ranks(parts, 1, rrf_k=60).rows_NK.tolist() == [[2]]


def test_queries_do_not_mix_and_the_rest_is_empty() -> None:
    found = fuse_ranks([ranked([1, 2], []), ranked([1], [])], 3, rrf_k=60)
    assert found.rows_NK.tolist() == [[1, 2, -1], [-1, -1, -1]]
    assert np.isneginf(found.scores_NK[1]).all() and found.hits[1] == []


def test_no_more_than_k_are_kept_and_lists_may_differ_in_length() -> None:
    found = fuse_ranks([ranked([1, 2, 3], k=9), ranked([4], k=2)], 2, rrf_k=60)
    assert found.rows_NK.tolist() == [[1, 4]] and found.rows_NK.shape == (1, 2)


def scored(*queries: Sequence[tuple[int, float, float]], limits: Sequence[float], k: int = 3) -> SearchResult:
    """A result that holds these rows, each with an inner product and a BM25 score, for each query; no BM25 score exceeds the limit."""
    found = nothing(len(queries), k)
    both = BothScores(found.scores_NK.copy(), np.zeros_like(found.scores_NK), np.array(limits, np.float32))
    for number, rows in enumerate(queries):
        for rank, (row, dense, lexical) in enumerate(rows):
            found.rows_NK[number, rank], found.scores_NK[number, rank] = row, -rank
            both.dense_NK[number, rank], both.lexical_NK[number, rank] = dense, lexical
            found.hits[number].append(Hit(Passage(f"p{row}", "text"), -rank, dense))
    return replace(found, both=both)


def test_a_row_scores_the_same_whichever_search_found_it() -> None:
    dense = scored([(1, 0.9, 2.0), (2, 0.7, 8.0)], [(7, 0.4, 0.0)], limits=[20, 4])
    lexical = scored([(3, 0.1, 15.0), (2, 0.7, 8.0)], [(8, 0.2, 3.0)], limits=[20, 4])
    found = fuse_scores([dense, lexical], 0.4, 0.1, 4)
    assert found.rows_NK.tolist() == [[2, 3, 1, -1], [8, 7, -1, -1]]
    expected = [0.4 * 0.7 + 0.6 * 8 / 20, 0.4 * 0.1 + 0.6 * 15 / 20, 0.4 * 0.9 + 0.6 * 2 / 20]
    assert found.scores_NK[0, :3] == pytest.approx(expected)
    assert found.scores_NK[1, :2] == pytest.approx([0.4 * 0.2 + 0.6 * 3 / 4, 0.4 * 0.4])
    assert [hit.score for hit in found.hits[0]] == found.scores_NK[0, :3].tolist()
    assert [hit.dense for hit in found.hits[0]] == [0.7, 0.1, 0.9]


def test_inner_products_count_in_units_of_ten_times_the_spread_of_the_vectors() -> None:
    parts = [scored([(1, 0.8, 0.0), (2, 0.7, 1.0)], limits=[4])] * 2
    assert fuse_scores(parts, 0.5, 0.02, 2).scores_NK[0] == pytest.approx([0.5 * 4.0, 0.5 * 3.5 + 0.5 / 4])
    assert fuse_scores(parts, 0.5, 0.02, 2).rows_NK.tolist() == [[1, 2]]
    assert fuse_scores(parts, 0.5, 0.2, 2).rows_NK.tolist() == [[2, 1]]


def test_ties_of_convex_scores_go_to_the_lower_row() -> None:
    parts = [scored([(5, 0.3, 1.0), (4, 0.3, 1.0)], limits=[2]), scored([(6, 0.3, 1.0)], limits=[2])]
    assert fuse_scores(parts, 0.5, 0.1, 3).rows_NK.tolist() == [[4, 5, 6]]


def test_a_search_that_finds_nothing_leaves_the_order_of_the_other() -> None:
    dense, empty = scored([(9, 0.5, 0), (3, 0.4, 0), (1, 0.1, 0)], limits=[0]), scored([], limits=[0])
    assert fuse_scores([dense, empty], 0.4, 0.1, 3).rows_NK.tolist() == [[9, 3, 1]]
    assert fuse_scores([empty, empty], 0.4, 0.1, 2).rows_NK.tolist() == [[-1, -1]]


def test_weight_one_gives_the_order_of_that_search_alone() -> None:
    parts = [scored([(1, 0.9, 7), (2, 0.7, 8), (3, 0.5, 9)], limits=[10])] * 2
    assert fuse_scores(parts, 1.0, 0.1, 3).rows_NK.tolist() == [[1, 2, 3]]
    assert fuse_scores(parts, 0.0, 0.1, 3).rows_NK.tolist() == [[3, 2, 1]]


def test_results_of_searches_without_both_scores_are_refused() -> None:
    with pytest.raises(ValueError, match="search with texts and their vectors"):
        fuse_scores([ranked([1, 2])], 0.5, 0.1, 2)
