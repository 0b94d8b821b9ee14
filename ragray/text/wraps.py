"""Line breaks undone. In: the lines of a paragraph that was wrapped. Out: one line, its words whole. Pure."""

from __future__ import annotations

import re
from collections.abc import Callable, Set
from functools import cache

from ragray.text.scripts import SPACELESS

# ruff: noqa: RUF001 - the full-width marks and curly quotes below are meant.
_WIDE_MARKS = "\u3000-\u3004\u3008-\u3020\u302a-\u3030\u3036\u3037\u303d-\u303f\u3200-\u33ff\ufe30-\ufe4f\uff01-\uff65\uffe0-\uffee"
_QUOTES = "“”‘’…—‥·"
"""Marks that texts of any script use: beside a character of a script without spaces they have none either."""
_WIDE = SPACELESS + _WIDE_MARKS
_WIDE_NO_SPACE = SPACELESS + _WIDE_MARKS.replace("\u3000", "\u3001")
"""An ideographic space begins no match: a run of them would be read from each of its places."""
_BREAK_WITHOUT_SPACE = re.compile(
    rf"(?<=[{_WIDE_NO_SPACE}])[^\S\n]*\n\s*(?=[{_WIDE}{_QUOTES}])|(?<=[{_QUOTES}])[^\S\n]*\n\s*(?=[{_WIDE}])"
)
_HYPHENATED = re.compile(r"(?<![^\W_])([^\W_]+)([-\u2010])[^\S\n]*\n\s*([^\W_]+)")
_WORDS = re.compile(r"[^\W\d_]+")
_HYPHENED_WORDS = re.compile(r"(?<![^\W_])(?=([^\W\d_]+-[^\W_]+))")
_SPACES = re.compile(r"[^\S\n]{2,}|[^\S\n \u3000]")
_SUSPENDED = frozenset(
    re.findall(
        r"\S+",
        "and or und oder bzw sowie bis et ou y o e ed en of och eller og to nor i ili",
    )
)
"""What follows a word whose second half comes later: pre- and postwar, Haupt- und Nebensatz."""
_COMPOUND_FIRST = frozenset(
    re.findall(
        r"\S+",
        "a after air all anti arm array at back best bi by built case check clear close co cold cost cross custom "
        "data day de deep double down drop easy eco eight empty end energy error even ever evidence ex face fair far "
        "fast few first five fixed follow for four free fresh full future general get go good grand half hand hands "
        "hard head heavy high higher home hot house ice ill in inter item job joint key know large last late latter "
        "law lead left less lesser life light like line little load long longer low lower make man many mass mid "
        "middle minute mis mono more most mother multi near neo net never new newly nine no non north not now of off "
        "old on one open out over owner own pan part past pay peer per point poly poor post pre pro pseudo public "
        "purpose put quarter quasi quick re read ready real red right rule run safe sci second self semi set seven "
        "sharp short side single six slow small so soft solid south special state step still strong sub super tax ten "
        "test the third thirty three time to top trade tri twenty two type ultra un under up upper user value vice "
        "wait water way week well west white whole wide wild word work world write x year zero above belle demi est "
        "haut mi peut quelque sous arrière avant après",
    )
)
"""Words of English and French that begin compounds written with a hyphen, as long in long-term: their hyphen is the author's."""


def unwrap(paragraph: str, known_words: Callable[[], Words]) -> str:
    """Join the lines of a paragraph and fold its white space.

    Between two characters of scripts without spaces nothing comes, elsewhere a space. A hyphen at the end of a line goes
    where it parts a word (see `Words.join`).
    """
    if "\n" in paragraph:
        if _HYPHENATED.search(paragraph):
            words = known_words()
            paragraph = _HYPHENATED.sub(lambda match: words.join(paragraph, match), paragraph)
        if not paragraph.isascii():
            paragraph = _BREAK_WITHOUT_SPACE.sub("", paragraph)
    if "\u3000" not in paragraph:
        return " ".join(paragraph.split())
    return _even(paragraph.replace("\n", " ").strip())


def _even(line: str) -> str:
    """Fold runs of white space; an ideographic space is the author's and stays one."""
    return _SPACES.sub(lambda match: "\u3000" if "\u3000" in match[0] else " ", line)


class Words:
    """The words of a text other than those that a line break cuts."""

    def __init__(self, text: str) -> None:
        rest = _HYPHENATED.sub(" ", text).casefold()
        self._words: Set[str] = frozenset(_WORDS.findall(rest))
        self._hyphened: Set[str] = frozenset(_HYPHENED_WORDS.findall(rest))

    def join(self, paragraph: str, match: re.Match[str]) -> str:
        """Join what a hyphen and a line break part.

        Without the hyphen where the joined word stands elsewhere in the text; with it where the hyphened word does, where
        both halves are words of the text, or the first one begins compounds; else without it, as typesetters put it there.
        Names, numbers and parts of longer compounds keep it.
        """
        first, hyphen, second = match.groups()
        left, right = first.casefold(), second.casefold()
        if left + right in self._words:
            return first + second
        if right in _SUSPENDED:
            return f"{first}{hyphen} {second}"
        before = paragraph[match.start() - 1 : match.start()]
        behind = paragraph[match.end() : match.end() + 1]
        is_part = before in ("-", "'", "’", ".", "/") or behind == "-"
        is_word = f"{left}-{right}" in self._hyphened or (left in self._words and right in self._words)
        if (
            is_part
            or is_word
            or not (first.isalpha() and second.islower())
            or len(first) < 2
            or left in _COMPOUND_FIRST
        ):
            return f"{first}{hyphen}{second}"
        return first + second


def words_once(text: str) -> Callable[[], Words]:
    """Return a function that finds the words of a text the first time that it is asked."""
    return cache(lambda: Words(text))
