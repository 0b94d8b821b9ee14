"""What becomes the positive and the negatives of a question."""

import pytest

from ragray.config import MineConfig
from ragray.retrieve.mining.choose import ANSWER, GOLD, REPEATS, SCORE, Holds, choose_negatives, choose_positive
from ragray.types import Hit, Passage


def hit(name: str, dense: float, text: str = "") -> Hit:
    return Hit(Passage(name, text or f"{name} tells of wind and water in its own way"), 0.0, dense)


def holding(*names: str) -> Holds:
    return lambda found: found.passage.id in names


NONE = holding()
GOLD_HIT = hit("gold", 0.8, "The lighthouse of Arkona was built by Schinkel in the year 1826")


def chosen(candidates: list[Hit], holds: Holds = NONE, **settings: object) -> tuple[list[str], dict[str, int]]:
    mined = choose_negatives(GOLD_HIT, [GOLD_HIT], candidates, holds, MineConfig.model_validate(settings))
    return [one.passage.id for one in mined.negatives], dict(mined.refused)


def test_the_positive_is_the_gold_passage_that_holds_an_answer() -> None:
    gold = [hit("near", 0.9), hit("holds", 0.5), hit("holds-too", 0.6)]
    assert choose_positive(gold, [], holding("holds", "holds-too")) == gold[2]


def test_where_no_gold_passage_holds_an_answer_the_nearest_is_taken() -> None:
    gold = [hit("far", 0.1), hit("near", 0.9)]
    assert choose_positive(gold, [hit("other", 1.0)], holding("other")) == gold[1]


def test_without_gold_passages_it_is_the_first_candidate_that_holds_an_answer() -> None:
    candidates = [hit("a", 0.9), hit("b", 0.1), hit("c", 0.8)]
    assert choose_positive([], candidates, holding("b", "c")) == candidates[1]
    assert choose_positive([], candidates, NONE) is None


def test_candidates_become_negatives_in_their_order_but_for_those_that_may_answer() -> None:
    repeated = hit("again", 0.5, "the lighthouse of arkona was built by schinkel in the year 1826")
    candidates = [hit("a", 0.3), GOLD_HIT, hit("b", 0.79), hit("c", 0.4), repeated, hit("d", 0.7), hit("e", 0.2)]
    names, refused = chosen(candidates, holding("c"), negatives=2)
    assert names == ["a", "d"]
    assert refused == {GOLD: 1, SCORE: 1, ANSWER: 1, REPEATS: 1}


@pytest.mark.parametrize(
    ("settings", "names"),
    [
        ({"share": 1, "margin": 0}, ["0.79", "0.7", "0.39"]),
        ({"share": 0.9}, ["0.7", "0.39"]),
        ({"share": 1, "margin": 0.2}, ["0.39"]),
        ({"share": 0.9, "margin": 0.2}, ["0.39"]),
        ({"share": 0.4}, []),
    ],
)
def test_a_negative_scores_below_the_positive_by_share_and_by_margin(
    settings: dict[str, object], names: list[str]
) -> None:
    candidates = [hit(str(score), score) for score in (0.8, 0.79, 0.7, 0.39)]
    assert chosen(candidates, **settings)[0] == names


def test_a_positive_with_a_negative_inner_product_still_scores_above_its_negatives() -> None:
    far = hit("gold", -0.2)
    found = choose_negatives(far, [far], [hit("a", -0.2), hit("b", -0.3)], NONE, MineConfig())
    assert [one.passage.id for one in found.negatives] == ["b"]
