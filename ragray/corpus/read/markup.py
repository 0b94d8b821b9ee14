"""Web pages as text. In: the body of a page as trafilatura extracts it. Out: markdown; code, tables and lists keep their lines."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from ragray.text.wraps import unwrap, words_once

SPACED = frozenset(("p", "item", "row", "cell", "lb", "quote", "code", "head", "list", "table"))
"""Elements of a page that trafilatura has cleaned before which a word ends."""
_OWN_LINES = ("list", "code", "table")
_TICKS = re.compile("`{3,}")


def mark_code(page: Any) -> None:
    """Mark every ``<pre>`` of a page as code: trafilatura takes some for quotations."""
    for element in list(page.iter("pre")):
        if element.find(".//code") is None:
            text = "".join(element.itertext())
            for child in list(element):
                element.remove(child)
            element.text = None
            code = element.makeelement("code", {})
            code.text = text
            element.append(code)


def page_text(body: Any) -> str:
    """Write the elements of a page's body as paragraphs, a blank line between two."""
    return "\n\n".join(text for text in map(_block, body) if text)


def _block(element: Any) -> str:
    if element.tag == "head":
        level = str(element.get("rend") or "")[1:]
        text = _inline(element)
        return f"{'#' * int(level if level.isdigit() else 2)} {text}" if text else ""
    writers = {"code": _code, "table": _table, "list": _list}
    return writers[element.tag](element) if element.tag in writers else _mixed(element)


def _code(element: Any) -> str:
    """Write code between fences; of one line, as it is."""
    text = "".join(element.itertext()).replace("\u00a0", " ").strip("\n").rstrip()
    if "\n" not in text:
        return text.strip()
    fence = "`" * max(3, 1 + max((len(ticks) for ticks in _TICKS.findall(text)), default=0))
    return f"{fence}\n{text}\n{fence}"


def _table(element: Any) -> str:
    """Write a row a line, with bars between its cells; a table of one column only frames its content."""
    rows = [[_inline(cell) for cell in row.iter("cell")] for row in element.iter("row")]
    if max(map(len, rows), default=0) < 2:
        return "\n\n".join(cell for row in rows for cell in row if cell)
    return "\n".join(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in row)} |" for row in rows if any(row))


def _list(element: Any, indent: str = "") -> str:
    """Write an item a line, what is below it indented."""
    is_ordered = element.get("rend") == "ol"
    lines: list[str] = []
    for number, item in enumerate(element.findall("item"), start=1):
        if text := _inline(item, without=_OWN_LINES):
            lines.append(f"{indent}{f'{number}.' if is_ordered else '-'} {text}")
        for child in item:
            if child.tag == "list":
                lines.append(_list(child, indent + "  "))
            elif child.tag in _OWN_LINES:
                lines.append(_block(child))
    return "\n".join(filter(None, lines))


def _mixed(element: Any) -> str:
    """Write a paragraph, and behind it the code, tables and lists within."""
    inside = [
        child for child in element if child.tag in ("list", "table") or (child.tag == "code" and _has_lines(child))
    ]
    if not inside:
        return _inline(element)
    parts = [_inline(element, without=_OWN_LINES), *map(_block, inside)]
    return "\n\n".join(filter(None, parts))


def _has_lines(element: Any) -> bool:
    return "\n" in "".join(element.itertext()).strip()


def _inline(element: Any, without: tuple[str, ...] = ()) -> str:
    text = "".join(_pieces(element, without))
    return unwrap(text.strip(), words_once(text))


def _pieces(element: Any, without: tuple[str, ...]) -> Iterator[str]:
    space = " " if element.tag in SPACED and not (element.tag == "code" and not _has_lines(element)) else ""
    yield space + (element.text or "")
    for child in element:
        if child.tag not in without or (child.tag == "code" and not _has_lines(child)):
            yield from _pieces(child, without)
        yield child.tail or ""
    yield space
