"""Scripts of Unicode. In: a text. Out: its runs of one script each, and which characters belong to scripts written without spaces. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import cache

import regex

SCRIPTS = (
    *("Latin", "Greek", "Cyrillic", "Armenian", "Georgian", "Hebrew", "Arabic", "Syriac", "Thaana", "Ethiopic"),
    *("Devanagari", "Bengali", "Gurmukhi", "Gujarati", "Oriya", "Tamil", "Telugu", "Kannada", "Malayalam", "Sinhala"),
    *("Tibetan", "Mongolian", "Hangul", "Han", "Hiragana", "Katakana", "Bopomofo", "Thai", "Lao", "Khmer", "Myanmar"),
)
"""Names, as Unicode spells them, of the scripts that are told apart."""

WITHOUT_SPACES = ("Han", "Hiragana", "Katakana", "Bopomofo", "Thai", "Lao", "Khmer", "Myanmar")
"""Scripts that put no space between two words."""

_SOUND_MARK = "ー"
"""Lengthens a vowel in Hiragana and Katakana; Unicode counts it as common to both."""


def letters_of(*scripts: str) -> str:
    """Return a set for patterns of `regex` (version 1) that holds the letters and numbers of some scripts, marks excepted."""
    kana = _SOUND_MARK if {"Hiragana", "Katakana"} & set(scripts) else ""
    return rf"[[{_any_of(scripts)}{kana}]&&[\p{{L}}\p{{N}}]]"


def runs(text: str) -> Iterator[tuple[str, str]]:
    """Yield (script, run); the runs joined are the text.

    Marks, digits, punctuation and white space belong to the run before them; at the beginning they are a run of ``Common``. The
    script of a run that is none of `SCRIPTS` is ``Other``.
    """
    for found in _runs_pattern().finditer(text):
        yield str(found.lastgroup), found.group()


def count_units(text: str) -> tuple[int, int]:
    """Return how many characters of scripts without spaces a text holds, and how many words of other scripts; marks count for neither."""
    dense, words = _units_patterns()
    return len(dense.findall(text)), len(words.findall(text))


def split_dense(text: str) -> list[str]:
    """Cut a text at white space, and characters of scripts without spaces, with their marks, from all around them."""
    return [str(token) for token in _tokens_pattern().findall(text)]


def _any_of(scripts: Iterable[str]) -> str:
    return "".join(rf"\p{{{script}}}" for script in scripts)


@cache
def _runs_pattern() -> regex.Pattern[str]:
    shared = r"\p{Common}\p{Inherited}"
    named = [rf"(?P<{script}>\p{{{script}}}[\p{{{script}}}{shared}]*)" for script in SCRIPTS]
    known = _any_of(SCRIPTS)
    rest = [rf"(?P<Common>[{shared}]+)", rf"(?P<Other>[^{known}{shared}][^{known}]*)"]
    return regex.compile("|".join([*named, *rest]))


@cache
def _units_patterns() -> tuple[regex.Pattern[str], regex.Pattern[str]]:
    dense = letters_of(*WITHOUT_SPACES)
    words = rf"[[\p{{L}}]--{dense}][[\p{{L}}\p{{N}}\p{{M}}]--{dense}]*"
    return regex.compile(dense, regex.V1), regex.compile(words, regex.V1)


@cache
def _tokens_pattern() -> regex.Pattern[str]:
    dense = letters_of(*WITHOUT_SPACES)
    return regex.compile(rf"{dense}\p{{M}}*|[\S--{dense}]+", regex.V1)
