"""Exact scores depend on a vector and its query alone; ties that a search cut off are found again."""

import numpy as np
import pytest

from ragray.index.search.rescore import Candidates, among, best, inner_products, widened


def test_every_finite_half_is_widened_as_numpy_does() -> None:
    halves = np.arange(1 << 16, dtype=np.uint16).view(np.float16)
    halves = halves[np.isfinite(halves)]
    assert widened(halves).tobytes() == halves.astype(np.float32).tobytes()


@pytest.mark.parametrize("dim", [1, 7, 100, 384, 9000])
def test_equal_vectors_score_the_same_wherever_they_lie_and_whatever_is_scored_with_them(dim: int) -> None:
    generator = np.random.default_rng(0)
    vectors_ND = generator.standard_normal((50, dim)).astype(np.float16)
    queries_QD = generator.standard_normal((5, dim)).astype(np.float32)
    alone_QN = np.array(
        [
            [inner_products(vectors_ND[row, None], np.array([[0]]), query[None])[0, 0] for row in range(50)]
            for query in queries_QD
        ]
    )
    np.testing.assert_allclose(alone_QN, queries_QD @ vectors_ND.astype(np.float32).T, rtol=1e-4, atol=1e-3)
    for size in (1, 2, 3, 40, 257, 300):
        rows_QM = generator.integers(-1, 50, (5, size))
        expected = np.where(rows_QM < 0, np.float32(-np.inf), np.take_along_axis(alone_QN, rows_QM, axis=1))
        assert inner_products(vectors_ND, rows_QM, queries_QD).tobytes() == expected.tobytes()
        assert inner_products(vectors_ND, rows_QM[:1], queries_QD[:1]).tobytes() == expected[:1].tobytes()
        elsewhere = np.concatenate([vectors_ND[:1], vectors_ND])
        assert (
            inner_products(elsewhere, rows_QM + 1, queries_QD)[rows_QM >= 0].tobytes()
            == expected[rows_QM >= 0].tobytes()
        )


def test_rows_that_tie_with_the_kth_are_found_even_where_the_search_left_them_out() -> None:
    vectors_ND = np.ones((50, 8), dtype=np.float16)
    vectors_ND[30] = 2
    queries_QD = np.ones((1, 8), dtype=np.float32)
    cut = Candidates(
        np.array([[30, 44, 45, 46]]), np.array([[16, 8, 8, 8]], dtype=np.float32), lambda query, bound: np.arange(50)
    )
    assert best(vectors_ND, cut, queries_QD, 3)[0].tolist() == [[30, 0, 1]]
    for depth in (3, 20, 50):
        assert best(vectors_ND, among(vectors_ND, np.arange(5, 50), queries_QD, depth), queries_QD, 3)[0].tolist() == [
            [30, 5, 6]
        ]
