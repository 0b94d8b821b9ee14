"""Answers that stand in a passage. In: texts of passages, a tokenizer. Out: the tokens that may follow what is written. Pure.

An answer begins where a word begins and ends where one ends. In scripts without spaces every character is a word.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from ragray.generate.textcodec import TextCodec

CHARS_PER_TOKEN = 6
"""So many characters are encoded for each token that an answer may have; English has four or five."""

FIRST_CJK = 0x2E80

END = -1
"""Stands for the tokens that end an answer."""


@dataclass(frozen=True, slots=True)
class Window:
    """The tokens of a passage from the beginning of a word on. ``ends``: whether a word ends with each.

    ``tail``: tokens that may stand behind the answer: the passage's citation.
    """

    token_ids: tuple[int, ...]
    ends: tuple[bool, ...]
    tail: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class _Place:
    """What is written so far, in one window: so many tokens of it, then so many of its tail."""

    window: Window
    depth: int = 0
    cited: int = 0

    def following(self) -> Iterator[tuple[int, _Place]]:
        window, depth = self.window, self.depth
        if not self.cited and depth < len(window.token_ids):
            yield window.token_ids[depth], _Place(window, depth + 1)
        if depth and window.ends[depth - 1]:
            if self.cited < len(window.tail):
                yield window.tail[self.cited], _Place(window, depth, self.cited + 1)
            if self.cited in (0, len(window.tail)):
                yield END, self


class Spans:
    """The spans of a prompt's passages that begin with what is written."""

    def __init__(self, places: Sequence[_Place]) -> None:
        self._next: dict[int, list[_Place]] = {}
        for place in places:
            for token, after in place.following():
                self._next.setdefault(token, []).append(after)

    @classmethod
    def of(cls, windows: Sequence[Window]) -> Spans:
        """Begin an answer."""
        return cls([_Place(window) for window in windows])

    @property
    def allowed(self) -> Sequence[int]:
        """The tokens that may follow; `END` where the answer may end. Empty where no span begins with what is written."""
        return list(self._next)

    def after(self, token: int) -> Spans:
        """Return the spans that go on with a token."""
        return Spans(self._next.get(token, []))


def windows(
    texts: Sequence[str], codec: TextCodec, *, most_tokens: int, lead: str = "", tail: str = ""
) -> list[Window]:
    """Return the windows of the texts of a passage, of at most ``most_tokens`` each; each ends with a word.

    ``lead`` stands before an answer in training (`PromptTemplate.answer_lead`). ``tail`` may stand behind it.
    """
    cited = tuple(codec.encode(tail)) if tail else ()
    return [
        Window(token_ids, ends, cited) for text in texts for token_ids, ends in _windows(text, codec, most_tokens, lead)
    ]


def _windows(
    text: str, codec: TextCodec, most_tokens: int, lead: str
) -> Iterator[tuple[tuple[int, ...], tuple[bool, ...]]]:
    starts = [place for place, letter in enumerate(text) if not letter.isspace() and _parted(text, place)]
    pieces = [f"{lead}{text[start : start + CHARS_PER_TOKEN * most_tokens]}" for start in starts]
    for start, (ids, stops) in zip(starts, codec.with_stops(pieces), strict=True):
        ends = [stop is not None and _ends(text, start + stop - len(lead)) for stop in stops[:most_tokens]]
        size = max((number for number, end in enumerate(ends, 1) if end), default=0)
        if size:
            yield tuple(ids[:size]), tuple(ends[:size])


def _ends(text: str, place: int) -> bool:
    """Return whether a word ends before a place."""
    return place > 0 and not text[place - 1].isspace() and _parted(text, place)


def _parted(text: str, place: int) -> bool:
    """Return whether no word goes on from the character before a place to that behind it."""
    if not 0 < place < len(text):
        return True
    before, behind = text[place - 1], text[place]
    return not (before.isalnum() and behind.isalnum()) or max(ord(before), ord(behind)) >= FIRST_CJK
