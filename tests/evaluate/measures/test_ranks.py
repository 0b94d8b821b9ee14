"""Measures of retrieval: recall, MRR, nDCG by hand; whether an answer was there to read."""

import pytest

from ragray.evaluate.measures.ranks import answer_in_context, ranking_measures
from ragray.evaluate.ranking import ndcg, ranking_scores
from ragray.types import Passage
from tests.evaluate.measures.answered import answered

ANSWERED = [
    answered("a", "x", gold=["p1"], gold_ranks=(1,)),
    answered("b", "x", gold=["p2", "p3"], gold_ranks=(4, 2)),
    answered("c", "x", gold=["p4"], gold_ranks=(None,)),
    answered("d", "x"),
]


def test_recall_and_mrr_are_those_of_the_first_gold_passages() -> None:
    found = {one.name: one.figure for one in ranking_measures(ANSWERED, (1, 2, 5))}
    scores = ranking_scores([1, 2, None], (1, 2, 5))
    assert found["mrr"] == pytest.approx(scores.mrr)
    assert {k: found[f"recall@{k}"] for k in (1, 2, 5)} == pytest.approx(scores.recall)


def test_ndcg_counts_every_gold_passage_down_to_the_largest_k() -> None:
    found = {one.name: one for one in ranking_measures(ANSWERED, (1, 3))}
    by_hand = [1.0, ndcg(["", "p3", "", "p2"], {"p2": 1, "p3": 1}, 3), 0.0]
    assert found["ndcg@3"].figure == pytest.approx(100 * sum(by_hand) / 3)
    assert found["ndcg@3"].num_examples == 3


def test_an_answer_is_in_context_where_it_stands_in_title_or_text_of_what_was_read() -> None:
    passages = {"p1": Passage("p1", "It lies on the Seine.", "Paris"), "p2": Passage("p2", "Rome lies on the Tiber.")}
    some = [
        answered("a", "paris", sources=("p2", "p1")),
        answered("b", "the Tiber", "Po", sources=("p2",)),
        answered("c", "Tibe", sources=("p2",)),
        answered("d", "Rome"),
    ]
    found = answer_in_context(some, passages, "auto")
    assert found.values()[:3] == [100.0, 100.0, 0.0]
    assert found.num_examples == 3
