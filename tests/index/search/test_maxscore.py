"""The best rows of a segment are, to the last bit, those that scoring every posting gives; what is left out shows in nothing."""

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from ragray.index.search.maxscore import FEW_POSTINGS, K1, B, SegmentScorer
from ragray.index.store.postings import Postings

ROWS = 16_000
SHARES = (0.9, 0.6, 0.4, 0.3, 0.2, 0.1, 0.05, 0.02, 0.01, 0.002, 0.0005, 0.0001)
"""Of the rows, how many hold each term: term t is the number t."""
MEAN_LENGTH = 17.3


def postings_of(seed: int, *, lengths: int = 40, counts: int = 5) -> Postings:
    """Random postings of `SHARES`; few lengths and counts give many ties."""
    chance = np.random.default_rng(seed)
    rows = [np.flatnonzero(chance.random(ROWS) < share).astype(np.int32) for share in SHARES]
    rows_P = np.concatenate(rows)
    counts_P = np.minimum(chance.geometric(0.6, len(rows_P)), counts).astype(np.uint16)
    lengths_N = chance.integers(10, 11 + lengths, ROWS).astype(np.int32)
    starts = np.cumsum([0, *map(len, rows)])
    return Postings(np.arange(len(SHARES), dtype=np.uint64), starts, rows_P, counts_P, lengths_N)


def weights_of(*terms: int) -> dict[np.uint64, float]:
    return {np.uint64(term): float(np.log(1 / SHARES[term] + 0.5)) for term in terms}


QUERIES = {
    "rare and common": weights_of(10, 0, 5, 1, 8),
    "all": weights_of(*range(len(SHARES))),
    "common alone": weights_of(2, 0, 1),
    "one": weights_of(0),
    "one named often": weights_of(0, 1, 2, 7) | {np.uint64(0): 9.0},
    "one of no row": weights_of(11, 0, 1) | {np.uint64(99): 4.0},
    "hardly any weight": {term: 1e-7 * weight for term, weight in weights_of(9, 0, 1, 2).items()},
}


def reference(
    postings: Postings, weights: Mapping[np.uint64, float], k: int, allowed_N: np.ndarray
) -> tuple[list[int], list[float]]:
    """Score every posting; best first, ties to the lower row."""
    scores_N = np.zeros(ROWS)
    for term, weight in weights.items():
        where = postings.of(term)
        rows, counts = postings.rows_P[where], postings.counts_P[where].astype(np.float64)
        scores_N[rows] += weight * counts / (counts + K1 * (1 - B + B * postings.lengths_N[rows] / MEAN_LENGTH))
    rows = np.flatnonzero((scores_N > 0) & allowed_N)
    return ordered(rows, scores_N[rows].astype(np.float32), k)


def ordered(rows: np.ndarray, scores: np.ndarray, k: int) -> tuple[list[int], list[float]]:
    best = np.lexsort((rows, -scores))[:k]
    return rows[best].tolist(), scores[best].tolist()


def masks() -> dict[str, np.ndarray]:
    chance = np.random.default_rng(7)
    shares = {"all": 1.0, "half": 0.5, "few": 0.003, "none": 0.0}
    return {name: chance.random(ROWS) < share for name, share in shares.items()}


def test_the_queries_have_enough_postings_to_leave_some_out() -> None:
    postings = postings_of(0)
    totals = {name: sum(len(postings.rows_P[postings.of(term)]) for term in query) for name, query in QUERIES.items()}
    assert [name for name, total in totals.items() if total <= FEW_POSTINGS] == ["one"]


@pytest.mark.parametrize(
    "shape", [{}, {"lengths": 1, "counts": 1}, {"lengths": 3, "counts": 2}], ids=["", "ties", "more"]
)
@pytest.mark.parametrize("name", QUERIES)
def test_rows_and_scores_are_those_of_scoring_every_posting(name: str, shape: dict[str, int]) -> None:
    postings = postings_of(0, **shape)
    scorer = SegmentScorer(postings, MEAN_LENGTH)
    for _ in range(2):  # the second time it knows what each term adds at most
        for allowed_N in masks().values():
            for k in (1, 10, 90, 5_000, 2 * ROWS):
                found = ordered(*scorer.best(QUERIES[name], k, allowed_N), k)
                assert found == reference(postings, QUERIES[name], k, allowed_N)


def test_queries_at_random_after_one_another() -> None:
    chance, postings, allowed = np.random.default_rng(3), postings_of(3), list(masks().values())
    scorer = SegmentScorer(postings, MEAN_LENGTH)
    for _ in range(150):
        terms = chance.permutation(len(SHARES))[: chance.integers(2, len(SHARES))]
        weights = {np.uint64(term): float(chance.exponential(3.0)) for term in terms}
        allowed_N, k = allowed[chance.integers(2)], int(chance.integers(1, 80))
        assert ordered(*scorer.best(weights, k, allowed_N), k) == reference(postings, weights, k, allowed_N)


def test_rows_that_no_search_may_find_do_not_hide_others() -> None:
    postings = postings_of(1)
    scorer, query = SegmentScorer(postings, MEAN_LENGTH), QUERIES["all"]
    everything = np.ones(ROWS, dtype=bool)
    best, _ = ordered(*scorer.best(query, 50, everything), 50)
    everything[best] = False
    assert ordered(*scorer.best(query, 50, everything), 50) == reference(postings, query, 50, everything)


def test_threads_that_share_a_scorer_find_what_one_finds() -> None:
    postings, allowed_N = postings_of(2), np.ones(ROWS, dtype=bool)
    scorer = SegmentScorer(postings, MEAN_LENGTH)
    with ThreadPoolExecutor(4) as threads:
        found = threads.map(lambda query: ordered(*scorer.best(query, 10, allowed_N), 10), list(QUERIES.values()) * 10)
    assert list(found) == [reference(postings, query, 10, allowed_N) for query in QUERIES.values()] * 10
