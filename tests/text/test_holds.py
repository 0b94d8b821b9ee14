"""Whether a text holds an answer."""

import pytest

from ragray.text.holds import holds


@pytest.mark.parametrize(
    ("text", "answers", "held"),
    [
        ("The well stands in Lower Marsh, near the mill.", ["lower marsh"], True),
        ("It opened in 1931.", ["1931"], True),
        ("It opened in 19310.", ["1931"], False),
        ("A marsh lies lower down.", ["lower marsh"], False),
        ("They were paid by the U.S. Treasury.", ["u.s. treasury"], True),
        ("Nobody knows.", ["somebody", "nobody"], True),
        ("水在零度结冰。", ["零度"], True),
        ("水在零度结冰。", ["度零"], False),
        ("Ｗｉｄｅ letters", ["wide"], True),
        ("Anything at all?", ["?"], False),
        ("Anything at all.", [], False),
    ],
)
def test_the_words_of_an_answer_stand_side_by_side(text: str, answers: list[str], held: bool) -> None:
    assert holds(text, answers) is held
