"""JSON as text. In: plain values. Out: valid JSON, or an error that names the value that JSON cannot hold.

By default Python writes NaN and infinity, which JSON does not have, and lone surrogates, which UTF-8 cannot encode.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence

from ragray.errors import RagrayError


def to_json(value: object, what: str, *, indent: int | None = None) -> str:
    """Write a value as JSON in one line, or with ``indent``.

    Raises:
        RagrayError: a number is not finite, or a text is not UTF-8; the message names ``what`` and the place in it.
    """
    try:
        text = json.dumps(value, ensure_ascii=False, allow_nan=False, indent=indent)
        text.encode()
    except ValueError as err:
        places = ", ".join(f"{place} is {found!r}" for place, found in _unwritable(value, ""))
        raise RagrayError(f"{what}: cannot be written as JSON: {places or err}; nothing was written") from err
    return text


def _unwritable(value: object, place: str) -> Iterator[tuple[str, object]]:
    """Yield the place and value of everything that JSON or UTF-8 cannot hold."""
    if isinstance(value, float) and not math.isfinite(value):
        yield place or "the value", value
    elif isinstance(value, str):
        if any("\ud800" <= character <= "\udfff" for character in value):
            yield place or "the value", value[:60]
    elif isinstance(value, Mapping):
        for key, part in value.items():
            yield from _unwritable(part, f"{place}.{key}".lstrip("."))
    elif isinstance(value, Sequence):
        for number, part in enumerate(value):
            yield from _unwritable(part, f"{place}[{number}]")
