"""Citation markers that nobody gave. In: an answer as it is written. Out: the same without `[1]`, `[2, 3]` and the like. Pure.

Passages have no numbers in a prompt of one passage, so that a number in brackets, copied from a passage or made up, is no
citation; clients would link it to a source. Where passages are numbered, the generator left out all other numbers already.
"""

from __future__ import annotations

from ragray.generate.answer.markers import MARKER, without_begun_marker


class WithoutMarkers:
    """Takes an answer piece by piece and holds back what may become a marker; with ``numbered`` markers stay."""

    def __init__(self, *, numbered: bool = False) -> None:
        self._numbered = numbered
        self._held = ""
        self.shown = ""

    def push(self, piece: str) -> str:
        """Take a piece; return what may be shown of the answer now."""
        if self._numbered:
            return self._show(piece)
        text = MARKER.sub("", self._held + piece)
        shown = without_begun_marker(text)
        self._held = text[len(shown) :]
        return self._show(shown)

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
