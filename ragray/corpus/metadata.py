"""Values of records. In: what a source holds in a field. Out: an id or a number as text, and the texts that are kept as metadata. Pure."""

from __future__ import annotations

import math
import unicodedata
from collections.abc import Iterable, Iterator, Mapping
from datetime import date, datetime
from decimal import Decimal

from ragray.corpus.instants import instant_text, utc_text
from ragray.types import Metadata

MAX_VALUES = 100
"""Values of one field that are kept, with those of its parts: more of them are a vector, or data of another kind."""
MAX_DEPTH = 8
"""Lists and objects inside each other."""
BINARY, NOT_FINITE = "binary", "not a finite number"
TOO_MANY, TOO_DEEP = f"more than {MAX_VALUES} values", f"nested more than {MAX_DEPTH} deep"
EXACT_INTEGERS = 1e15
"""Below this, an integral float is written by its digits without a detour."""


def storable(text: str) -> str:
    """Replace lone surrogates, which JSON can hold and UTF-8 cannot."""
    return text if text.isascii() else text.encode("utf-8", "replace").decode("utf-8")


def scalar_text(value: object) -> str:
    """Write a value that is neither list nor object: a number or an instant in one form, whatever type held it; nothing for none.

    An integral number has no decimal point (101.0 is 101), no number has an exponent or zeros at its end, a boolean is
    `true` or `false`, an instant is in UTC (`2024-05-01T00:15:00Z`), a date `2024-05-01`. NaN, by which pandas writes a
    missing value, is none. A string stays as it is.
    """
    if isinstance(value, str):
        return storable(value)
    if value is None or isinstance(value, list | dict | bytes):
        return ""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float | Decimal):
        return _number(value)
    if isinstance(value, datetime):
        return utc_text(value)
    return value.isoformat() if isinstance(value, date) else str(value)


def _number(value: float | Decimal) -> str:
    if not math.isfinite(value):
        return "" if math.isnan(value) else str(value)
    if isinstance(value, float) and value.is_integer() and abs(value) < EXACT_INTEGERS:
        return str(int(value))
    digits = format(value if isinstance(value, Decimal) else Decimal(repr(value)), "f")
    digits = digits.rstrip("0").rstrip(".") if "." in digits else digits
    return "0" if digits == "-0" else digits


def kept_metadata(fields: Iterable[tuple[str, object]]) -> tuple[dict[str, str | tuple[str, ...]], tuple[str, ...]]:
    """Return the metadata of a record, and for each field that cannot be kept (or only in part) its name with the reason.

    A list becomes several values of its field; the parts of an object, or of objects in a list, become the fields
    `field.part`. What is empty or null is no value. Names and values are in NFC, strings that are instants in UTC.
    """
    found: dict[str, dict[str, None]] = {}
    unkept: list[str] = []
    for name, value in fields:
        if isinstance(value, str):  # by far the most
            pairs: list[tuple[str, str]] = [(name, value)] if value else []
        else:
            pairs, reason = _pairs_of(name, value)
            unkept += [f"'{_composed(name)}' ({reason})"] if reason else []
        for key, text in pairs:
            found.setdefault(_composed(key), {})[instant_text(_composed(text))] = None
    return {key: _value(texts) for key, texts in found.items()}, tuple(unkept)


def _pairs_of(name: str, value: object) -> tuple[list[tuple[str, str]], str]:
    pairs: list[tuple[str, str]] = []
    reasons: dict[str, None] = {}
    for key, part in _leaves(name, value, 0):
        reason = _why_not(part)
        if reason:
            reasons[reason] = None
        elif text := scalar_text(part):
            pairs.append((key, text))
        if len(pairs) > MAX_VALUES:
            return [], TOO_MANY
    return pairs, next(iter(reasons), "")


def _leaves(name: str, value: object, depth: int) -> Iterator[tuple[str, object]]:
    """Yield the scalars of a value, each with the path to it; an entry of an Arrow map is a tuple of key and value."""
    if not isinstance(value, list | dict) or depth > MAX_DEPTH:
        yield name, value
        return
    for part in value.items() if isinstance(value, dict) else value:
        key, inside = part if isinstance(part, tuple) and len(part) == 2 else ("", part)
        yield from _leaves(f"{name}.{key}" if key else name, inside, depth + 1)


def _why_not(value: object) -> str:
    if isinstance(value, list | dict):
        return TOO_DEEP
    if isinstance(value, bytes):
        return BINARY
    return NOT_FINITE if isinstance(value, float | Decimal) and math.isinf(value) else ""


def _composed(text: str) -> str:
    return text if text.isascii() else unicodedata.normalize("NFC", storable(text))


def _value(texts: Iterable[str]) -> str | tuple[str, ...]:
    values = tuple(texts)
    return values[0] if len(values) == 1 else values


def pairs_of(metadata: Metadata) -> list[tuple[str, str]]:
    """Return metadata as pairs of key and value, as tables hold them: a pair for each value of a key."""
    return [(key, text) for key, value in metadata.items() for text in ((value,) if isinstance(value, str) else value)]


def from_pairs(pairs: Iterable[tuple[str, str] | Mapping[str, str]]) -> dict[str, str | tuple[str, ...]]:
    """Return the metadata of pairs, as an Arrow map (tuples) or a list of structs holds them: one value as text, several as a tuple."""
    found: dict[str, str | tuple[str, ...]] = {}
    for pair in pairs:
        key, text = (pair["key"], pair["value"]) if isinstance(pair, Mapping) else pair
        before = found.get(key)
        found[key] = text if before is None else (*((before,) if isinstance(before, str) else before), text)
    return found
