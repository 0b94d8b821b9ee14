"""Numbers that cite: those of the passages in the prompt stay, all others are left out, however the answer is cut into pieces."""

import pytest

from ragray.generate.answer.markers import cited, numbers, with_known_numbers, without_begun_marker


@pytest.mark.parametrize(
    ("marker", "named"), [("[1]", [1]), ("[3, 1]", [3, 1]), ("[1-3]", [1, 2, 3]), ("[2-9]", [2, 3]), ("[0; 7]", [])]
)
def test_a_marker_names_numbers_and_ranges_of_the_passages_there_are(marker: str, named: list[int]) -> None:
    assert numbers(marker, 3) == named


@pytest.mark.parametrize(
    ("text", "left"),
    [
        ("The Rhine [1].", "The Rhine [1]."),
        ("The Rhine [4].", "The Rhine."),
        ("Both [1, 4] and [2-9]", "Both [1] and [2, 3]"),
        ("in [2019] or [note 1]", "in or [note 1]"),
    ],
)
def test_a_number_that_no_passage_has_is_left_out(text: str, left: str) -> None:
    assert with_known_numbers(text, 3) == left


def test_an_end_that_may_become_a_marker_is_held_back() -> None:
    assert [without_begun_marker(text) for text in ("so [1", "so [", "so ", "so [1]", "so [a")] == [
        "so",
        "so",
        "so",
        "so [1]",
        "so [a",
    ]


def test_a_citation_says_where_its_marker_stands() -> None:
    text = "Mars [2] and Io [1, 2]"
    found = list(cited(text, 2))
    assert [number for number, _, _ in found] == [2, 1, 2]
    assert [text[start:end] for _, start, end in found] == ["[2]", "[1, 2]", "[1, 2]"]
