"""Cleaning. In: text as a source holds it. Out: repaired, printable, evenly spaced text, or why it is refused. Pure."""

from __future__ import annotations

import re

from ftfy import TextFixerConfig, fix_text

from ragray.config import IngestConfig

REPAIR = TextFixerConfig(unescape_html=False, uncurl_quotes=False, explain=False)
"""Broken characters only: entities and quotation marks are the author's, and plain ASCII skips this step."""

_LINE_BREAK = re.compile("\r\n|[\r\x0b\x0c\x1c-\x1e\x85\u2028\u2029]")
_CONTROL = re.compile("[\x00-\x08\x0e-\x1b\x1f\x7f-\x84\x86-\x9f\ufeff]")
_PARAGRAPH_BREAK = re.compile(r"\n\s*\n")


def clean_text(text: str) -> str:
    """Repair a text: mojibake undone, control characters dropped, white space folded to single spaces.

    A paragraph break stays, as one blank line.
    """
    if not text.isascii() or "\x1b" in text:
        text = fix_text(text, REPAIR)
    if text.isprintable() and "  " not in text:
        return text.strip()
    if _LINE_BREAK.search(text):
        text = _LINE_BREAK.sub("\n", text)
    if _CONTROL.search(text):
        text = _CONTROL.sub("", text)
    paragraphs = (" ".join(paragraph.split()) for paragraph in _PARAGRAPH_BREAK.split(text))
    return "\n\n".join(paragraph for paragraph in paragraphs if paragraph)


def clean_line(text: str) -> str:
    """Repair a title: as `clean_text`, on one line."""
    return " ".join(clean_text(text).split())


UNWANTED = ("empty", "shorter than", "longer than", "duplicate")
"""Beginnings of the reasons for which a sound record is left out; any other reason means that the source is damaged."""


def is_damage(reason: str) -> bool:
    """Say whether a record was refused because it could not be read, not because it is not wanted."""
    return not reason.startswith(UNWANTED)


def refuse_reason(text: str, config: IngestConfig) -> str | None:
    """Say why a text cannot be ingested, None where it can."""
    if len(text) > config.max_chars:
        return f"longer than max_chars={config.max_chars}"
    if not text.strip():
        return "empty"
    if len(text) < config.min_chars:
        return f"shorter than min_chars={config.min_chars}"
    return None
