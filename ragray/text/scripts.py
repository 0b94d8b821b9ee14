"""Scripts of Unicode. In: a text. Out: its runs of one script each; which scripts write no spaces, and how much a character says. Pure."""

from __future__ import annotations

import re
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

SPACELESS = (
    "\u2e80-\u2fdf\u3005-\u3007\u3021-\u3029\u3031-\u3035\u3038-\u303b\u3041-\u312f\u31a0-\u31bf\u31f0-\u31ff"
    "\u3400-\u4dbf\u4e00-\u9fff\ua000-\ua4cf\uf900-\ufaff\uff66-\uff9f\U0001b000-\U0001b16f\U00020000-\U0003ffff"
    "\u0e00-\u0e3e\u0e40-\u0eff\u0f00-\u0fff\u1000-\u109f\u1780-\u17ff\u1950-\u19ff\u1a20-\u1aaf\ua9e0-\ua9fe\uaa60-\uaadf"
    "\U000e0100-\U000e01ef"
)
"""The characters of `WITHOUT_SPACES`, their marks, and Yi, Tibetan and Tai: a class for patterns of `re`, which knows no scripts."""
DENSE = (
    "\u2e80-\u2fdf\u3005-\u3007\u3041-\u312f\u3131-\u318e\u31a0-\u31bf\u31f0-\u31ff\u3400-\u4dbf\u4e00-\u9fff\ua000-\ua4cf"
    "\uac00-\ud7a3\uf900-\ufaff\uff66-\uff9f\U0001b000-\U0001b16f\U00020000-\U0003ffff"
)
"""Han, Kana, Hangul, Bopomofo, Yi: a character is a syllable or a word."""
DENSE_CHARS = 3
"""So many letters of an alphabet say about as much as one character of `DENSE`."""
_DENSE = re.compile(f"[{DENSE}]")

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


def length_in_letters(text: str) -> int:
    """Return how long a text is, a character of Chinese, Japanese or Korean counted as three."""
    return len(text) + (0 if text.isascii() else (DENSE_CHARS - 1) * len(_DENSE.findall(text)))


KANA_SHARE = 0.05
"""Japanese has more Kana than this among its Han and Kana, a Chinese text that quotes a Japanese name less."""


def language_of_script(text: str) -> str:
    """Return ``zh``, ``ja`` or ``ko`` where the script of a text decides on its language, else nothing.

    A text with terms in an alphabet counts: a character of Chinese, Japanese or Korean says as much as three letters.
    """
    han, kana, hangul, others = (len(pattern.findall(text)) for pattern in _language_patterns())
    if DENSE_CHARS * (han + kana + hangul) < max(1, others):
        return ""
    if hangul > han + kana:
        return "ko"
    return "ja" if kana > KANA_SHARE * (han + kana) else "zh"


@cache
def _language_patterns() -> tuple[regex.Pattern[str], ...]:
    han, kana, hangul = r"\p{Han}", r"[\p{Hiragana}\p{Katakana}]", r"\p{Hangul}"
    return tuple(regex.compile(one, regex.V1) for one in (han, kana, hangul, rf"[\p{{L}}--[{han}{kana}{hangul}]]"))
