"""Pairs of neighbouring terms, counted by hand."""

import pytest

from ragray.index.search.result import nothing
from ragray.retrieve.pairs import with_pairs
from ragray.types import Hit, Passage


def test_terms_kept_together_and_in_order_add_their_saturated_count() -> None:
    texts = ["harbour old pilot", "the old harbour, an old harbour", "old harbour pilot", "harbour pilot"]
    found = nothing(1, 5)
    for row, text in enumerate(texts):
        found.rows_NK[0, row], found.scores_NK[0, row] = row, 1.0
        found.hits[0].append(Hit(Passage(f"p{row}", text), 1.0))
    paired = with_pairs(found, ["old harbours pilot"], "english.2", 2.0)
    once, twice = 2 * 1 / 1.9, 2 * 2 / 2.9
    assert paired.rows_NK.tolist() == [[2, 1, 3, 0, -1]]
    assert paired.scores_NK[0, :4].tolist() == pytest.approx([1 + 2 * once, 1 + twice, 1 + once, 1])
    assert [hit.passage.id for hit in paired.hits[0]] == ["p2", "p1", "p3", "p0"]
