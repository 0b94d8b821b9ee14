"""Normal forms: Python's own for all that is written, in linear time for what is not."""

import random
import unicodedata

import pytest

from ragray.text.normal import MAX_MARKS, SHORT, normalized


@pytest.mark.parametrize("form", ["NFC", "NFKC"])
def test_a_text_with_up_to_thirty_marks_per_character_has_the_form_that_python_gives_it(form: str) -> None:
    chance = random.Random(1)
    letters, marks = ["e", "ﬁ", "가", "ㄱ", "ก", "क", "港", " "], "\u0301\u0316\u0327\u093c\u0e48\u3099"
    for _ in range(3):
        text = "".join(
            chance.choice(letters) + "".join(chance.choices(marks, k=chance.choice((0, 0, 1, 2, MAX_MARKS - 1))))
            for _ in range(SHORT)
        )
        assert normalized(form, text) == unicodedata.normalize(form, text)  # type: ignore[arg-type] # one of two literals


def test_a_longer_run_of_marks_keeps_them_all() -> None:
    text = "e" + "\u0301\u0316" * SHORT
    assert sorted(unicodedata.normalize("NFD", normalized("NFC", text))) == sorted(text)
