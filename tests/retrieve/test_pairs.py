"""Pairs of neighbouring terms, counted by hand, and the order that they make."""

from collections.abc import Sequence

import numpy as np
import pytest

from ragray.index.search.result import SearchResult, nothing
from ragray.retrieve.pairs import PAIRED, lifted, pair_shares, with_pairs
from ragray.types import Hit, Passage


def hits_of(texts: Sequence[str]) -> list[Hit]:
    return [Hit(Passage(f"p{row}", text), 0.0) for row, text in enumerate(texts)]


def found(texts: Sequence[str], scores: Sequence[float]) -> SearchResult:
    """Rows 0, 1, ... with these texts and scores, and one place that nothing was found for."""
    result = nothing(1, len(texts) + 1)
    result.rows_NK[0, : len(texts)], result.scores_NK[0, : len(texts)] = range(len(texts)), scores
    result.hits[0].extend(hits_of(texts))
    return result


@pytest.mark.parametrize(
    ("text", "share"),
    [
        ("old harbour pilot", 1),
        ("the pilot of the old harbour", 1 / 2),
        ("pilots in harbours, old ones", 1),
        ("harbour, old harbour, old harbour", 1 / 2),
        ("old and new harbour, the pilot", 1 / 2),
        ("harbour of an old pilot", 1 / 2),
        ("pilot, old ship, harbour", 0),
        ("", 0),
    ],
)
def test_a_passage_has_the_share_of_the_pairs_that_it_keeps_together_stop_words_and_endings_aside(
    text: str, share: float
) -> None:
    assert pair_shares("the old harbour's pilots", hits_of([text]), "english.3") == [share]


def test_a_pair_that_the_query_names_twice_counts_twice_and_one_term_makes_none() -> None:
    assert pair_shares("new york, new york", hits_of(["new york", "york york"]), "plain.3") == [1, 0]
    assert pair_shares("b a b c", hits_of(["a b", "c b"]), "plain.3") == pytest.approx([2 / 3, 1 / 3])
    assert pair_shares("harbour", hits_of(["harbour harbour"]), "plain.3") == [0]


def test_neighbouring_characters_count_where_a_script_has_no_spaces() -> None:
    same, turned = pair_shares("港口领航", hits_of(["老港口领航员", "领航员和港口"]), "plain.3")
    assert same > turned > 0


def test_shares_lift_scores_and_change_the_order() -> None:
    texts = ["harbour pilot", "harbour pilot", "old harbour and pilot", "old harbour pilot"]
    paired = with_pairs(found(texts, [0.9, 0.8, 0.7, 0.6]), ["old harbours pilot"], "english.3", 0.5, 4)
    assert paired.rows_NK.tolist() == [[2, 0, 3, 1]]
    assert paired.scores_NK[0] == pytest.approx([1.2, 1.15, 1.1, 1.05])
    assert [(hit.passage.id, hit.score) for hit in paired.hits[0]] == [
        (f"p{row}", score) for row, score in zip(paired.rows_NK[0], paired.scores_NK[0].tolist(), strict=True)
    ]


def test_only_the_first_are_looked_at_no_more_than_k_are_kept_and_ties_go_to_the_lower_row() -> None:
    texts = ["nothing"] * PAIRED + ["old harbour"]
    result = found(texts, [-float(row) for row in range(PAIRED + 1)])
    assert with_pairs(result, ["old harbour"], "plain.3", 100.0, 3).rows_NK.tolist() == [[0, 1, 2]]
    assert lifted(result, [{0: 0.0, 1: 0.5, 2: 1.0}], 2.0, 2).rows_NK.tolist() == [[0, 1]]
    assert len(with_pairs(result, ["old harbour"], "plain.3", 1.0, 3).hits[0]) == 3


def test_where_nothing_was_found_nothing_is_returned() -> None:
    empty = with_pairs(nothing(2, 3), ["old harbour", "pilot"], "plain.3", 0.5, 2)
    assert empty.rows_NK.tolist() == [[-1, -1]] * 2 and empty.hits == [[], []]
    assert np.isneginf(empty.scores_NK).all()
