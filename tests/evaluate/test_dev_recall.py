"""Whether an encoder gained: recall of two encoders over the same questions."""

import pytest

from ragray.embed.encoder import HashEncoder
from ragray.evaluate.dev_recall import dev_recall, ranks_in_pool


def test_recall_is_in_percent_with_the_interval_of_the_gain() -> None:
    found = dev_recall([1, None, None, 2] * 10, [1, 3, None, 2] * 10, 3)
    assert (found.before, found.after, found.num_questions) == (50, 75, 40)
    assert 0 < found.interval[0] < 25 < found.interval[1]
    assert found.gained


@pytest.mark.parametrize("after", [[1, None], [None, 2], [None, None]])
def test_an_encoder_that_finds_as_much_or_less_has_not_gained(after: list[int | None]) -> None:
    assert not dev_recall([1, None], after, 3).gained


def test_the_rank_among_some_passages_is_that_of_the_best_gold_passage() -> None:
    encoder = HashEncoder(64)
    passages = ["red apples", "red apples and green pears", "a blue sky", "green pears"]
    questions, gold = ["red apples", "green pears", "green pears"], [(1,), (0, 3), (0,)]
    ranks = ranks_in_pool((encoder, encoder), questions, passages, gold, 2)
    assert ranks == [2, 1, None]
