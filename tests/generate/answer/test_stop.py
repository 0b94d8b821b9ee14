"""Texts that end an answer, whole and while it is written."""

import pytest

from ragray.generate.answer.stop import before_stop, without_begun_stop


@pytest.mark.parametrize(
    ("text", "stop", "expected"),
    [
        ("one\ntwo", ["\n"], ("one", True)), ("one two", ["\n"], ("one two", False)), ("a END b", ["b", " END"], ("a", True)),
        ("答案。其他", ["。"], ("答案", True)), ("", ["x"], ("", False)), ("text", [], ("text", False)),
    ],
)  # fmt: skip
def test_an_answer_ends_before_the_first_stop_text(text: str, stop: list[str], expected: tuple[str, bool]) -> None:
    assert before_stop(text, stop) == expected


@pytest.mark.parametrize("stop", [["END"], ["\n\n", "ENDE"], ["。。"]])
def test_what_is_shown_while_an_answer_grows_is_never_taken_back(stop: list[str]) -> None:
    text = "An EN, a\nline。 then END, ENDE\n\nand 。。 more"
    final = before_stop(text, stop)[0]
    shown = ""
    for length in range(len(text) + 1):
        written, ended = before_stop(text[:length], stop)
        more = written if ended else without_begun_stop(written, stop)
        assert more.startswith(shown) and final.startswith(more)
        shown = more
    assert shown == final
