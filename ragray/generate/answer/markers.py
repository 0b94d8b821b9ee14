"""Citation markers. In: an answer as it is written, the number of numbered passages. Out: it with the `[n]` of those alone. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterator

MARKER = re.compile(r" ?\[\d{1,4}(?:[ ,;-]+\d{1,4}){0,9}\]")
BEGUN = re.compile(r" ?(?:\[(?:\d[\d ,;-]{0,60})?)?\Z")
"""An end that may become a marker when more is written."""

NAMED = re.compile(r"(\d+)(?: *- *(\d+))?")


def numbers(marker: str, num_passages: int) -> list[int]:
    """Return the numbers from 1 to ``num_passages`` that a marker such as ``[1, 3-5]`` names, each once."""
    found = dict[int, None]()
    for first, last in NAMED.findall(marker):
        found |= dict.fromkeys(range(max(1, int(first)), min(int(last or first), num_passages) + 1))
    return list(found)


def with_known_numbers(text: str, num_passages: int) -> str:
    """Return a text whose markers name no other numbers than 1 to ``num_passages``; a marker without any is left out."""
    return MARKER.sub(lambda found: _mended(found[0], num_passages), text)


def without_begun_marker(text: str) -> str:
    """Return a text without an end that may become a marker when more is written."""
    begun = BEGUN.search(text)
    return text[: begun.start()] if begun else text


def cited(text: str, num_passages: int) -> Iterator[tuple[int, int, int]]:
    """Yield for every number that a marker names: the number, and where the marker begins and ends, in characters."""
    for found in MARKER.finditer(text):
        start = found.start() + found[0].index("[")
        for number in numbers(found[0], num_passages):
            yield number, start, found.end()


def _mended(marker: str, num_passages: int) -> str:
    if all(1 <= int(number) <= num_passages for number in re.findall(r"\d+", marker)):
        return marker
    known = ", ".join(map(str, numbers(marker, num_passages)))
    return f"{marker[: marker.index('[')]}[{known}]" if known else ""
