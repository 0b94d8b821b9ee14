"""Few-shot prompts: the same examples for every question, and never the question itself."""

import pytest

from ragray.errors import InputError
from ragray.generate.exemplars import candidates, shown_for, with_exemplars
from ragray.types import Example


def some(count: int) -> list[Example]:
    return [Example(str(n), f"Question {n}?", (f"answer {n}", "other")) for n in range(count)]


def test_examples_are_spread_over_the_file_and_the_same_for_every_question() -> None:
    found = candidates(some(30), 2)
    assert [example.id for example in found] == ["0", "10", "20"]
    assert [example.id for example in shown_for("Another?", found, 2)] == ["0", "10"]


def test_a_question_is_never_shown_its_own_answer() -> None:
    found = candidates(some(30), 2)
    assert [example.id for example in shown_for("question  10?", found, 2)] == ["0", "20"]
    assert [example.id for example in shown_for("QUESTION 0?", found, 2)] == ["10", "20"]


def test_a_question_that_is_asked_twice_is_one_candidate() -> None:
    twice = [Example("a", "Who?", ("x",)), Example("b", "who?", ("y",)), Example("c", "When?", ("z",))]
    assert [example.id for example in candidates(twice, 1)] == ["a", "c"]
    with pytest.raises(InputError, match=r"evaluate\.exemplars: holds 2 different questions, and 3 are needed"):
        candidates(twice, 2)


def test_solved_examples_stand_before_the_instruction() -> None:
    assert with_exemplars("Answer.", some(2)) == (
        "Examples:\n\nQuestion: Question 0?\nAnswer: answer 0\n\nQuestion: Question 1?\nAnswer: answer 1\n\nAnswer."
    )
    assert with_exemplars("Answer.", []) == ""
