"""Citation markers that nobody gave. In: an answer as it is written. Out: the same without `[1]`, `[2, 3]` and the like. Pure.

Passages have no numbers in a prompt of one passage, so that a number in brackets, copied from a passage or made up, is no
citation; clients would link it to a source.
"""

from __future__ import annotations

import re

MARKER = re.compile(r" ?\[\d{1,4}(?:[ ,;-]+\d{1,4}){0,9}\]")
BEGUN = re.compile(r" ?(?:\[(?:\d[\d ,;-]{0,60})?)?\Z")
"""An end that may become a marker when more is written."""


class WithoutMarkers:
    """Takes an answer piece by piece and holds back what may become a marker."""

    def __init__(self) -> None:
        self._held = ""
        self.shown = ""

    def push(self, piece: str) -> str:
        """Take a piece; return what may be shown of the answer now."""
        text = MARKER.sub("", self._held + piece)
        begun = BEGUN.search(text)
        cut = begun.start() if begun else len(text)
        self._held = text[cut:]
        return self._show(text[:cut])

    def close(self) -> str:
        """Return what was held back, as nothing more comes."""
        return self._show(self._held)

    def _show(self, text: str) -> str:
        self.shown += text
        return text


def without_markers(text: str) -> str:
    """Return a whole answer without markers."""
    answer = WithoutMarkers()
    return answer.push(text) + answer.close()
