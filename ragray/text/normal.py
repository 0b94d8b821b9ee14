"""Normal forms of Unicode in linear time. In: a text. Out: its NFC or NFKC. Pure."""

from __future__ import annotations

import unicodedata
from functools import cache
from typing import Literal

import regex

SHORT = 4096
"""Up to so many characters a run of marks is sorted whole."""
MAX_MARKS = 30
"""No language writes more marks on one character (Unicode's Stream-Safe Text Format, UAX #15)."""


def normalized(form: Literal["NFC", "NFKC"], text: str) -> str:
    """Return a normal form of a text.

    `unicodedata` sorts a run of marks in time quadratic in its length, so in a long text longer runs are sorted in parts of 30.
    """
    if len(text) <= SHORT:
        return unicodedata.normalize(form, text)
    return "".join(unicodedata.normalize(form, part) for part in _marks().split(text))


@cache
def _marks() -> regex.Pattern[str]:
    return regex.compile(rf"(\p{{M}}{{{MAX_MARKS}}})")
