"""Pairs of neighbouring terms, counted by hand."""

from dataclasses import replace

import numpy as np
import pytest

from ragray.index.search.result import BothScores, nothing
from ragray.retrieve.pairs import with_pairs
from ragray.types import Hit, Passage


def test_terms_kept_together_and_in_order_add_their_saturated_count() -> None:
    texts = ["harbour old pilot", "the old harbour, an old harbour", "old harbour pilot", "harbour pilot"]
    found = nothing(1, 5)
    for row, text in enumerate(texts):
        found.rows_NK[0, row], found.scores_NK[0, row] = row, 1.0
        found.hits[0].append(Hit(Passage(f"p{row}", text), 1.0))
    found = replace(found, both=BothScores(np.zeros((1, 5)), np.ones((1, 5), np.float32), np.ones(1)))
    paired = with_pairs(found, ["old harbours pilot"], "english.2", 2.0)
    once, twice = 2 * 1 / 1.9, 2 * 2 / 2.9
    assert paired.both is not None
    assert paired.both.lexical_NK[0].tolist() == pytest.approx([1, 1 + twice, 1 + 2 * once, 1 + once, 1])
    assert paired.rows_NK.tolist() == found.rows_NK.tolist() and paired.hits == found.hits
