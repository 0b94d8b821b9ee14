"""Repairing text. In: text as a source holds it. Out: the same with its damage undone, and nothing else. Pure.

Damage is mojibake, control and layout characters, letters apart from their marks (NFC), line wraps and uneven white
space. Width, quotation marks, ligatures and entities are the author's. Code and tables keep their lines.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence

from ftfy import TextFixerConfig, fix_text

from ragray.text.blocks import MARKED, is_bullet, is_numbered, is_numbered_item, kept_lines
from ragray.text.normal import normalized
from ragray.text.sentences import CLOSERS, MARKS, STOPS
from ragray.text.wraps import Words, unwrap, words_once

# ruff: noqa: RUF001 - the full-width marks are meant.
REPAIR = TextFixerConfig(
    unescape_html=False,
    uncurl_quotes=False,
    fix_latin_ligatures=False,
    fix_character_width=False,
    explain=False,
    normalization=None,
)
"""Broken characters only; plain ASCII skips this step."""
_LINE_BREAK = re.compile("\r\n|[\r\x0b\x0c\x1c-\x1e\x85\u2028\u2029]")
_JOINED_SCRIPTS = "\u0600-\u109f\u1780-\u18af\u1900-\u1cff\ua800-\uabff\ufb50-\ufdff\ufe70-\ufefc\U00010a00-\U00011fff\U0001e900-\U0001e95f"
_EMOJI = "\u00a9\u00ae\u2190-\u2bff\u3030\u303d\u3297\u3299\ufe0f\U0001f000-\U0001faff\U000e0020-\U000e007f"
_LAYOUT = re.compile(
    "\u00ad[ \t]*\n[ \t]*|[\x00-\x08\x0e-\x1b\x1f\x7f-\x84\x86-\x9f\u00ad\u200b\u2060\ufeff\ufff9-\ufffb]"
    f"|(?<![{_JOINED_SCRIPTS}{_EMOJI}])[\u200c\u200d]+"
)
"""Control and layout characters; joiners stay behind a letter of the scripts that need them, and behind an emoji.

A soft hyphen at the end of a line parts a word that goes on below it.
"""
MAX_MARK_CHARS = 1000
"""Within so many characters of a line its bullet or number stands."""
_PARAGRAPH_BREAK = re.compile(r"\n\s*\n")
_SENTENCE_ENDS = frozenset(STOPS + MARKS + CLOSERS + ":：；;")


def clean_text(text: str) -> str:
    """Repair a text: mojibake undone, control and layout characters dropped, wraps joined, white space even.

    A paragraph break stays, as one blank line; code, the rows of tables and the items of lists keep their lines.
    """
    if not text.isascii() or "\x1b" in text:
        text = normalized("NFC", fix_text(text, REPAIR))
    if text.isprintable() and "  " not in text:
        return text.strip()
    text = _LINE_BREAK.sub("\n", text)
    if not text.isprintable():
        text = _LAYOUT.sub("", text)
        if not text.isascii():
            text = normalized("NFC", text)  # what a layout character held apart
    known = words_once(text)
    if "\n" in text and MARKED.search(text):
        return _with_blocks(text.split("\n"), known)
    paragraphs = (unwrap(paragraph, known) for paragraph in _PARAGRAPH_BREAK.split(text))
    return "\n\n".join(paragraph for paragraph in paragraphs if paragraph)


def _with_blocks(lines: Sequence[str], known: Callable[[], Words]) -> str:
    """Clean a text line by line: blocks that stand without a blank line between them stay so."""
    written: list[str] = []
    is_apart, done = True, 0
    for first, stop in [*kept_lines(lines), (len(lines), len(lines))]:
        for block in _blocks(lines[done:first]):
            cleaned = unwrap("\n".join(block), known)
            if not cleaned:
                is_apart = True
                continue
            is_apart = is_apart or is_numbered(cleaned) or block[0].startswith("\u3000")
            indent = block[0][: len(block[0]) - len(block[0].lstrip(" \t"))] if is_bullet(cleaned) else ""
            written += ["\n\n" if is_apart else "\n", indent + cleaned]
            is_apart = is_numbered(cleaned)
        if kept := "\n".join(line.rstrip() for line in lines[first:stop]).strip("\n"):
            written += ["\n\n" if is_apart else "\n", kept]
            is_apart = False
        done = stop
    return "".join(written[1:])


def _blocks(lines: Sequence[str]) -> Iterator[list[str]]:
    """Yield paragraphs and items of lists as their lines, and blank lines."""
    block: list[str] = []
    for line in lines:
        stripped = line.strip()
        if block and (not stripped or _begins(line, stripped, block)):
            yield block
            block = []
        if stripped:
            block.append(line)
        else:
            yield [line]
    if block:
        yield block


def _begins(line: str, stripped: str, block: Sequence[str]) -> bool:
    """Return whether a line begins a block of its own: an item or a heading, or a paragraph indented by an ideographic space."""
    if line.startswith("\u3000") or is_bullet(stripped):
        return True
    above = block[-1].strip()
    if len(block) == 1 and is_numbered(above):
        return True
    if not is_numbered_item(stripped):
        return False
    first = block[0][:MAX_MARK_CHARS].strip()  # a paragraph may have any number of lines below a very long one
    return above[-1] in _SENTENCE_ENDS or is_bullet(first) or is_numbered_item(first)
