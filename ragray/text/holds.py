"""Whether a text holds an answer. In: a text, an answer. Out: whether the answer's words stand in it, side by side. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

import regex

from ragray.text.normal import normalized
from ragray.text.scripts import split_dense


def holds(text: str, answers: Sequence[str]) -> bool:
    """Return whether the words of one of the answers stand side by side in a text; case, width and punctuation do not count.

    In scripts without spaces, characters are words. An answer without a letter or digit stands in no text.
    """
    words = _words(text)
    return any(_words(answer) in words for answer in answers if _words(answer).strip())


def _words(text: str) -> str:
    """Return the words of a text with a space before and after each."""
    spaced = _between_words().sub(" ", normalized("NFKC", text).casefold())
    return f" {' '.join(split_dense(spaced))} "


@cache
def _between_words() -> regex.Pattern[str]:
    return regex.compile(r"[^\p{L}\p{N}\p{M}]+")
