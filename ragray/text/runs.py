"""Scripts. In: characters. Out: whether they belong to a script that writes no spaces between words, and how much one says. Pure."""

from __future__ import annotations

import re

SPACELESS = (
    "\u2e80-\u2fdf\u3005-\u3007\u3021-\u3029\u3031-\u3035\u3038-\u303b\u3041-\u312f\u31a0-\u31bf\u31f0-\u31ff"
    "\u3400-\u4dbf\u4e00-\u9fff\ua000-\ua4cf\uf900-\ufaff\uff66-\uff9f\U0001b000-\U0001b16f\U00020000-\U0003ffff"
    "\u0e00-\u0e3e\u0e40-\u0eff\u0f00-\u0fff\u1000-\u109f\u1780-\u17ff\u1950-\u19ff\u1a20-\u1aaf\ua9e0-\ua9fe\uaa60-\uaadf"
    "\U000e0100-\U000e01ef"
)
"""Han, Kana, Bopomofo, Yi, Thai, Lao, Tibetan, Khmer, Myanmar, Tai: a class of a regular expression. Korean has spaces."""
DENSE = (
    "\u2e80-\u2fdf\u3005-\u3007\u3041-\u312f\u3131-\u318e\u31a0-\u31bf\u31f0-\u31ff\u3400-\u4dbf\u4e00-\u9fff\ua000-\ua4cf"
    "\uac00-\ud7a3\uf900-\ufaff\uff66-\uff9f\U0001b000-\U0001b16f\U00020000-\U0003ffff"
)
"""Han, Kana, Hangul, Bopomofo, Yi: a character is a syllable or a word."""
DENSE_CHARS = 3
"""So many letters of an alphabet say about as much as one character of `DENSE`."""
_DENSE = re.compile(f"[{DENSE}]")


def length_in_letters(text: str) -> int:
    """Return how long a text is, a character of Chinese, Japanese or Korean counted as three."""
    return len(text) + (0 if text.isascii() else (DENSE_CHARS - 1) * len(_DENSE.findall(text)))
