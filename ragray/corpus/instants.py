"""Instants. In: a date with a time of day, as a source or a user writes it. Out: its UTC form, the text that it compares by. Pure."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta

import pyarrow as pa
import pyarrow.compute as pc

INSTANT = (
    r"([0-9]{4}-[0-9]{2}-[0-9]{2})[Tt ]([0-9]{2}:[0-9]{2})(?::([0-9]{2})(?:[.,]([0-9]{1,9}))?)?"
    r" ?([Zz]|[+-][0-9]{2}(?::?[0-9]{2})?)?"
)
"""ISO 8601 (and what pandas and databases write): day, hour and minute, second, fraction, zone."""
DATE = r"[0-9]{4}-[0-9]{2}-[0-9]{2}"
MIDNIGHT = "T00:00:00"
UTC_FORM = r"^\d{4}-(0[1-9]|1[0-2])-(0[1-9]|1\d|2[0-8])(T([01]\d|2[0-3]):[0-5]\d:[0-5]\d(\.\d{0,8}[1-9])?Z)?$"
"""A date, or an instant in the form in which ingest writes it, of a day that every month has."""
KEY_FORM = r"^(1[7-9]|2[01])\d\d-\d\d-\d\d(T\d\d:\d\d:\d\d(\.\d{1,9})?)?$"
"""A key of the years 1700 to 2199, whose nanoseconds int64 holds."""
_EPOCH = datetime(1970, 1, 1)
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


def time_keys(texts: pa.Array) -> pa.Array:
    """Return for each text what `time_key` returns for it; texts as ingest writes them are not parsed one by one."""
    days = pc.utf8_slice_codeunits(texts, 0, 10)
    keys = pc.if_else(pc.ends_with(texts, "T00:00:00Z"), days, pc.ascii_rtrim(texts, "Z"))
    odd = pc.invert(pc.match_substring_regex(texts, UTC_FORM))
    parsed = [text and time_key(text) for text in texts.filter(odd).to_pylist()]
    return pc.replace_with_mask(keys, odd, pa.array(parsed, texts.type)) if parsed else keys


def nanoseconds(keys: pa.Array) -> pa.Array | None:
    """Return the nanoseconds since 1970 of what `time_keys` returned, int64, in the same order; None unless all are instants.

    Years before 1700 and after 2199, which int64 cannot hold all of, are no instants here.
    """
    if not len(keys) or keys.null_count or not pc.all(pc.match_substring_regex(keys, KEY_FORM)).as_py():
        return None
    try:
        return pc.cast(keys, pa.timestamp("ns")).cast(pa.int64())
    except pa.ArrowInvalid:  # a day that its month does not have
        return None


def nanosecond(key: str) -> int:
    """Return the nanoseconds since 1970 of what `time_key` returned for an instant or a date; int64's last where there are more."""
    whole, _, fraction = key.partition(".")
    seconds = (datetime.fromisoformat(whole) - _EPOCH) // timedelta(seconds=1)
    found = seconds * 10**9 + int(fraction.ljust(9, "0"))
    return max(-(2**63), min(found, 2**63 - 1))


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
