"""Texts that end an answer. In: what has been written of it, and those texts. Out: what may be shown of it. Pure."""

from __future__ import annotations

from collections.abc import Sequence


def before_stop(text: str, stop: Sequence[str]) -> tuple[str, bool]:
    """Return a text up to the first of the stop texts that it holds, and whether it holds one."""
    places = [place for end in stop if (place := text.find(end)) >= 0]
    return (text[: min(places)], True) if places else (text, False)


def without_begun_stop(text: str, stop: Sequence[str]) -> str:
    """Return a text without an end that may become a stop text when more is written."""
    begun = [length for end in stop for length in range(1, len(end)) if text.endswith(end[:length])]
    return text[: len(text) - max(begun, default=0)]
