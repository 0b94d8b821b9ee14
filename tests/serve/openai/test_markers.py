"""Numbers in brackets that are no citations: none leaves, however the answer is cut into pieces."""

import pytest

from ragray.serve.openai.markers import WithoutMarkers, without_markers

CASES = [
    ("The Elbe [1].", "The Elbe."),
    ("[2] The Elbe[10, 3] is long [1-2] [4]", " The Elbe is long"),
    ("武汉在长江边[1]。", "武汉在长江边。"),
    ("see [note 1] and [12345] and [a]", "see [note 1] and [12345] and [a]"),
    ("open [1", "open [1"),
    ("", ""),
]


@pytest.mark.parametrize(("text", "shown"), CASES)
def test_a_number_in_brackets_is_left_out_and_nothing_else(text: str, shown: str) -> None:
    assert without_markers(text) == shown


@pytest.mark.parametrize(("text", "shown"), CASES)
@pytest.mark.parametrize("size", [1, 2, 3])
def test_the_pieces_of_an_answer_join_to_the_same(text: str, shown: str, size: int) -> None:
    answer = WithoutMarkers()
    pieces = [answer.push(text[start : start + size]) for start in range(0, len(text), size)]
    assert "".join([*pieces, answer.close()]) == answer.shown == shown
