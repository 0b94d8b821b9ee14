"""What cleaning repairs, what it leaves alone, and what it refuses."""

import pytest

from ragray.config import IngestConfig
from ragray.corpus.clean import clean_line, clean_text, refuse_reason


@pytest.mark.parametrize(
    ("raw", "clean"),
    [
        ("The CafÃ© in KÃ¶ln.", "The Café in Köln."),
        ("null\x00 byte, bell\x07 and escape \x1b[31mred\x1b[0m", "null byte, bell and escape red"),
        ("tabs\tand  runs\n of   space", "tabs and runs of space"),
        ("first  line\r\n\r\n\r\n  second\rline ", "first line\n\nsecond line"),
        ("no-break\u00a0space and\u2028separator", "no-break space and separator"),
        ("\ufeffmark", "mark"),
        (" \n\n ", ""),
    ],
)
def test_broken_text_is_repaired(raw: str, clean: str) -> None:
    assert clean_text(raw) == clean


@pytest.mark.parametrize(
    "text", ["Plain text.", "&amp; stays", "“curly” quotes — and dashes", "one\n\ntwo", "नमस्ते 👩‍👩‍👧"]
)
def test_sound_text_stays_as_it_is(text: str) -> None:
    assert clean_text(text) == text


def test_cleaning_twice_is_cleaning_once() -> None:
    once = clean_text("a \x0b b\r\n \x0c c\u2029d")
    assert clean_text(once) == once == "a b\n\nc d"


def test_a_lone_surrogate_becomes_storable() -> None:
    clean_text("half a \ud83d pair").encode("utf-8")


def test_a_title_is_one_line() -> None:
    assert clean_line(" A\n\ntitle ") == "A title"


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "empty"),
        (" \n", "empty"),
        ("too short", "shorter than min_chars=20"),
        ("x" * 101, "longer than max_chars=100"),
        ("x" * 100, None),
        ("x" * 20, None),
    ],
)
def test_refusals_name_the_limit(text: str, reason: str | None) -> None:
    assert refuse_reason(text, IngestConfig(min_chars=20, max_chars=100)) == reason
