"""Instants. In: a date with a time of day, as a source or a user writes it. Out: its UTC form, the text that it compares by. Pure."""

from __future__ import annotations

import re
from datetime import UTC, datetime

INSTANT = (
    r"([0-9]{4}-[0-9]{2}-[0-9]{2})[Tt ]([0-9]{2}:[0-9]{2})(?::([0-9]{2})(?:[.,]([0-9]{1,9}))?)?"
    r" ?([Zz]|[+-][0-9]{2}(?::?[0-9]{2})?)?"
)
"""ISO 8601 (and what pandas and databases write): day, hour and minute, second, fraction, zone."""
DATE = r"[0-9]{4}-[0-9]{2}-[0-9]{2}"
MIDNIGHT = "T00:00:00"
_INSTANT = re.compile(INSTANT)


def utc_text(value: datetime) -> str:
    """Write an instant as `2024-05-01T00:15:00Z`, a fraction of a second without zeros at its end; without a zone it counts as UTC."""
    try:
        moment = value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)
    except OverflowError:  # within a day of the first or the last year
        return value.isoformat()
    whole, _, fraction = moment.replace(tzinfo=None).isoformat().partition(".")
    return _with_fraction(whole, fraction)


def instant_text(text: str) -> str:
    """Write a text that is an instant as `utc_text` does; return any other as it is."""
    return _utc(text) or text


def time_key(text: str) -> str:
    """Return the text by which an instant compares: in order of time, with a date as its midnight; any other text as it is."""
    found = _utc(text)
    return text if found is None else found[:-1].removesuffix(MIDNIGHT)


def is_time(text: str) -> bool:
    """Return whether a text is an instant or a date."""
    if re.fullmatch(DATE, text):
        return _parsed(text) is not None
    return _utc(text) is not None


def _utc(text: str) -> str | None:
    """Return the UTC form of an instant, None for any other text."""
    if text[4:5] != "-" or not (match := _INSTANT.fullmatch(text)):
        return None
    day, minute, second, fraction, zone = match.groups()
    moment = _parsed(f"{day}T{minute}:{second or '00'}{zone or 'Z'}".upper())
    if moment is None:
        return None
    try:
        whole = moment.astimezone(UTC).replace(tzinfo=None).isoformat()
    except OverflowError:
        return None
    return _with_fraction(whole, fraction or "")


def _parsed(text: str) -> datetime | None:
    try:
        return datetime.fromisoformat(text)
    except ValueError:
        return None


def _with_fraction(whole: str, fraction: str) -> str:
    fraction = fraction.rstrip("0")
    return f"{whole}.{fraction}Z" if fraction else f"{whole}Z"
