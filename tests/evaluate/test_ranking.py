"""Retrieval scores: the rank of the first gold passage, and what is averaged over it."""

import random
from math import log2

import pytest

from ragray.evaluate.ranking import RankingScores, gold_ranks, ndcg, ranking_scores, recall, reciprocal_rank
from ragray.types import Hit, Passage

HITS = [Hit(Passage(f"p{n}", "text", document_id=f"d{n}"), -float(n)) for n in range(1, 5)]


@pytest.mark.parametrize(
    ("gold_ids", "ranks"),
    [
        (("p1",), [1]),
        (("p3",), [3]),
        (("d2",), [2]),
        (("p4", "d2", "p3"), [4, 2, 3]),
        (("p9", "p4"), [None, 4]),
        (("p9",), [None]),
        (("p",), [None]),
        ((), []),
    ],
)
def test_a_gold_id_has_the_rank_of_the_first_hit_that_it_names(
    gold_ids: tuple[str, ...], ranks: list[int | None]
) -> None:
    assert gold_ranks(HITS, gold_ids) == ranks


def test_a_document_has_the_rank_of_its_best_passage() -> None:
    hits = [Hit(Passage(f"p{n}", "text", document_id="d"), -float(n)) for n in range(3)]
    assert gold_ranks(hits, ["d", "p2"]) == [1, 3]


def test_without_hits_there_is_no_rank() -> None:
    assert gold_ranks([], ["p1"]) == [None]


def test_recall_and_mrr_of_four_questions_computed_by_hand() -> None:
    scores = ranking_scores([1, 2, None, 4], (1, 2, 3, 20))
    assert scores == RankingScores(
        {1: 25, 2: 50, 3: 50, 20: 75}, pytest.approx(100 * (1 + 1 / 2 + 0 + 1 / 4) / 4), num_questions=4
    )


def test_all_found_first_is_a_hundred_percent_and_none_found_is_zero() -> None:
    assert ranking_scores([1, 1], (1, 5)) == RankingScores({1: 100, 5: 100}, 100, 2)
    assert ranking_scores([None, None], (1, 5)) == RankingScores({1: 0, 5: 0}, 0, 2)


def test_no_questions_score_zero() -> None:
    assert ranking_scores([], (1,)) == RankingScores({1: None}, None, 0)


def test_recall_grows_with_k_and_mrr_lies_between_recall_at_one_and_recall_at_all() -> None:
    chance = random.Random(0)
    for _ in range(50):
        ranks = [chance.choice([None, *range(1, 30)]) for _ in range(chance.randint(1, 20))]
        scores = ranking_scores(ranks, range(1, 30))
        shares = list(scores.recall.values())
        assert shares == sorted(shares)
        assert shares[0] - 1e-9 <= scores.mrr <= shares[-1] + 1e-9


def test_the_order_of_the_questions_does_not_matter() -> None:
    assert ranking_scores([3, None, 1], (1, 3)) == ranking_scores([1, 3, None], (1, 3))


RANKED = ["a", "b", "c", "d"]


def test_ndcg_computed_by_hand() -> None:
    relevance = {"b": 3, "d": 1, "e": 2, "a": 0, "c": -1}
    best = 3 + 2 / log2(3) + 1 / 2
    assert ndcg(RANKED, relevance, 10) == pytest.approx((3 / log2(3) + 1 / log2(5)) / best)
    assert ndcg(RANKED, relevance, 2) == pytest.approx(3 / log2(3) / (3 + 2 / log2(3)))
    assert ndcg(["b", "e", "d"], relevance, 10) == pytest.approx(1)
    assert ndcg(RANKED, {}, 10) == ndcg([], relevance, 10) == ndcg(RANKED, {"a": 0}, 10) == 0


def test_recall_is_the_share_of_the_relevant_that_is_found() -> None:
    relevance = {"b": 1, "d": 2, "e": 1, "a": 0}
    assert [recall(RANKED, relevance, k) for k in (1, 2, 3, 4, 100)] == pytest.approx([0, 1 / 3, 1 / 3, 2 / 3, 2 / 3])
    assert recall(RANKED, {"a": 0}, 10) == 0


def test_the_reciprocal_rank_is_that_of_the_first_relevant_one_among_the_first_k() -> None:
    assert reciprocal_rank(RANKED, {"a": 0, "c": 1, "d": 1}, 10) == pytest.approx(1 / 3)
    assert reciprocal_rank(RANKED, {"c": 1}, 2) == reciprocal_rank(RANKED, {}, 10) == 0


# By pytrec_eval-terrier 0.5.11, the measures of trec_eval: nDCG at 5 and 10, recall at 5, reciprocal rank.
OF_TREC_EVAL = [
    (0.180931, 0.461086, 0.200000, 0.250000),
    (0.000000, 0.377595, 0.000000, 0.166667),
    (0.201515, 0.414444, 0.333333, 0.500000),
    (0.121507, 0.499399, 0.250000, 0.500000),
    (0.793922, 0.896961, 0.750000, 1.000000),
    (0.085860, 0.412656, 0.250000, 0.333333),
    (0.309117, 0.506572, 0.250000, 0.500000),
    (0.228288, 0.476359, 0.400000, 0.333333),
    (0.336885, 0.680470, 0.333333, 0.500000),
    (0.557105, 0.625705, 0.500000, 0.500000),
    (0.081240, 0.420499, 0.333333, 0.200000),
    (0.112728, 0.392606, 0.200000, 0.250000),
]


def test_random_rankings_with_ties_and_grades_score_as_in_trec_eval() -> None:
    """Of equal scores trec_eval ranks the greater id first."""
    chance = random.Random(11)
    for expected in OF_TREC_EVAL:
        names = [f"d{n}" for n in range(14)]
        relevance = {name: chance.choice([-1, 0, 1, 2, 3]) for name in chance.sample(names, 7)}
        scores = {name: float(chance.randrange(5)) for name in chance.sample(names, 12)}
        ranked = sorted(scores, key=lambda name: (scores[name], name), reverse=True)
        found = ndcg(ranked, relevance, 5), ndcg(ranked, relevance, 10), recall(ranked, relevance, 5)
        assert (*found, reciprocal_rank(ranked, relevance, 14)) == pytest.approx(expected, abs=1e-6)
