"""Shingles. In: a text. Out: the overlapping short pieces by which near duplicates are found, as Broder 1997. Pure."""

from __future__ import annotations

import re

from ragray.text.scripts import SPACELESS

SHINGLE_WORDS = 3
SHINGLE_CHARS = 5
"""Of a script without spaces: about as long as three words are, with marks and white space left out."""
_RUN = re.compile(f"[{SPACELESS}]+")
_MARKS = re.compile(r"[^\w\s]|_")


def shingles(text: str) -> set[str]:
    """Return the shingles of a text: 3-grams of its words; of runs of a script without spaces, 5-grams of their characters.

    Case and white space make no difference, and in runs without spaces marks neither.
    """
    text = text.casefold()
    if text.isascii() or not _RUN.search(text):
        return _of_words(text.split())
    runs = "".join(_RUN.findall(_MARKS.sub("", "".join(text.split()))))
    words = _MARKS.sub(" ", _RUN.sub(" ", text)).split()
    return _of_characters(runs) | (_of_words(words) if words else set())


def _of_words(words: list[str]) -> set[str]:
    last = max(1, len(words) - SHINGLE_WORDS + 1)
    return {" ".join(words[start : start + SHINGLE_WORDS]) for start in range(last)}


def _of_characters(run: str) -> set[str]:
    last = max(1, len(run) - SHINGLE_CHARS + 1)
    return {run[start : start + SHINGLE_CHARS] for start in range(last)}
