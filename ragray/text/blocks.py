"""The structure of plain text. In: a text. Out: which lines are code or a table, items of a list, or a heading. Pure.

Fences and tables are those of CommonMark and of GitHub's markdown; headings and items are also those of Chinese, Japanese and Korean texts.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from ragray.text.sentences import ENDS

# ruff: noqa: RUF001, RUF002 - the full-width marks are meant.
MAX_HEADING_CHARS = 200
"""A longer paragraph is no heading, whatever it begins with."""
MAX_NUMBERED_CHARS = 40
"""A longer line that begins with a number, as 一、 or 第一章 do, is a sentence."""
_NUMBER = "[0-9０-９一二三四五六七八九十百千零〇两]{1,6}"
_NUMBERED = re.compile(
    rf"(?:第{_NUMBER}[章节節编編篇部卷回条條]|제\s?{_NUMBER}\s?[장절조편])(?![^\s　:：、.．])"
    r"|[一二三四五六七八九十]{1,3}、|[（(][一二三四五六七八九十]{1,3}[）)]"
)
_HASHES = re.compile(r"#{1,6} [^\n]+")
_BULLET = re.compile(r"[-*+•·‣▪●○][ \t　]+\S")
_NUMBERED_ITEM = re.compile(r"(?:\d{1,3}[.)][ \t]+|\d{1,3}[、．）]|[（(]\d{1,3}[）)]|[①-⑳])[ \t　]*\S")
_FENCE = re.compile(r"[ \t]*(`{3,}+(?!.*`)|~{3,})")
_DELIMITER = re.compile(r"[ \t]*+(?:\|[ \t]*+)?:?-++:?[ \t]*+(?:\|[ \t]*+:?-++:?[ \t]*+)*+(?:\|[ \t]*+)?$")
MARKED = re.compile(
    r"^[ \t　]*(?:```|~~~|\||:?-+:?[ \t]*\||[-*+•·‣▪●○][ \t　]|[\d（(①-⑳一二三四五六七八九十第제　])", re.M
)
"""Found in every text with a structure: a text without it needs no closer look."""


def opens_fence(line: str) -> str:
    """Return the fence that a line opens, nothing where it opens none."""
    match = _FENCE.match(line)
    return match[1] if match else ""


def closes_fence(line: str, fence: str) -> bool:
    """Return whether a line closes a fence: only its own character, as often at least, does."""
    line = line.strip()
    return line.startswith(fence) and not line.strip(fence[0])


def is_heading(line: str) -> bool:
    """Return whether a line is a heading when it stands alone: `# Title`, 第一章 总则, 一、适用范围, （二）附则."""
    if _HASHES.fullmatch(line):
        return len(line) <= MAX_HEADING_CHARS
    return is_numbered(line)


def is_numbered(line: str) -> bool:
    """Return whether a line is a heading by its number, as 第一章 or 一、, and no sentence."""
    return len(line) <= MAX_NUMBERED_CHARS and bool(_NUMBERED.match(line)) and line[-1] not in ENDS and "\n" not in line


def is_bullet(line: str) -> bool:
    """Return whether a line is an item of a list by its bullet."""
    return bool(_BULLET.match(line))


def is_numbered_item(line: str) -> bool:
    """Return whether a line may be an item of a list by its number: a wrapped sentence may begin so too."""
    return bool(_NUMBERED_ITEM.match(line) or _NUMBERED.match(line))


def kept_lines(lines: Sequence[str]) -> Iterator[tuple[int, int]]:
    """Yield the stretches [first, stop) of lines that are code between fences or the rows of a table.

    Code that no fence closes goes on to the end.
    """
    number = 0
    while number < len(lines):
        stop = _fence_stop(lines, number) or _table_stop(lines, number)
        if stop:
            yield number, stop
        number = stop or number + 1


def kept_spans(text: str) -> Iterator[tuple[int, int]]:
    """Yield where in a text its code and tables begin and end."""
    if "```" not in text and "~~~" not in text and "|" not in text:
        return
    lines = text.split("\n")
    starts = [0]
    for line in lines:
        starts.append(starts[-1] + len(line) + 1)
    yield from ((starts[first], starts[stop] - 1) for first, stop in kept_lines(lines))


def _fence_stop(lines: Sequence[str], first: int) -> int:
    fence = opens_fence(lines[first])
    if not fence:
        return 0
    ends = (number + 1 for number in range(first + 1, len(lines)) if closes_fence(lines[number], fence))
    return next(ends, len(lines))


def _table_stop(lines: Sequence[str], first: int) -> int:
    """Return the end of a table: lines that begin with a bar, or that stand around a row of dashes and bars."""
    if "|" not in lines[first]:
        return 0
    has_delimiter = first + 1 < len(lines) and "|" in lines[first + 1] and bool(_DELIMITER.match(lines[first + 1]))
    stop = first
    while stop < len(lines) and ("|" in lines[stop] if has_delimiter else lines[stop].lstrip().startswith("|")):
        stop += 1
    return stop if stop > first + 1 else 0
