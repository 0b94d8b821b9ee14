"""Texts checked. In: a text that someone wrote. Out: whether anything of it can be seen, and whether it can be encoded. Pure."""

from __future__ import annotations

import unicodedata

from ragray.errors import InputError

_NEVER_SEEN = frozenset(("Cc", "Cf", "Zl", "Zp", "Zs"))
"""Categories of Unicode: control and format characters (zero-width, byte order mark), separators and white space."""
_FILLERS = frozenset("\u034f\u115f\u1160\u17b4\u17b5\u2800\u3164\uffa0") | {chr(code) for code in range(0xFE00, 0xFE10)}
"""Letters, marks and a symbol that are drawn as nothing: fillers of Hangul, the empty Braille pattern, variation selectors."""


def is_blank(text: str) -> bool:
    """Say whether a text has no visible character; lone surrogates count as visible, so that they are found as what they are."""
    return all(char in _FILLERS or unicodedata.category(char) in _NEVER_SEEN for char in text)


def require_text(text: str, what: str) -> None:
    """Raise `InputError` where a text is blank or holds half a character (a lone surrogate)."""
    require_utf8(text, what)
    if is_blank(text):
        raise InputError(f"{what}: is blank (found {text[:60]!r}); write some words")


def require_utf8(text: str, what: str) -> None:
    """Raise `InputError` where a text holds half a character (a lone surrogate), as JSON and a terminal may give it."""
    try:
        text.encode()
    except UnicodeEncodeError as err:
        raise InputError(
            f"{what}: character {err.start + 1} ({text[err.start]!r}) cannot be written as UTF-8; mend or remove it"
        ) from err
