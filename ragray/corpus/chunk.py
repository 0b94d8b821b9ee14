"""Splitting documents. In: a clean document. Out: passages of at most ``max_tokens`` tokens that overlap a little.

A piece ends before a heading, else with a paragraph, a sentence, or where one sentence is too long, with a clause or a word.
It is a literal part of the document's text. A heading stays with the text below it; code, a table or a list stays whole
where it fits. The end of a piece alone decides where the next one begins: an edit leaves the pieces before it as they
were, and those behind the next end that old and new text share.
"""

from __future__ import annotations

import hashlib
import re
from array import array
from bisect import bisect_left, bisect_right
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain, islice

from ragray.config import IngestConfig
from ragray.corpus.tokens import Tokenizer
from ragray.text.blocks import MAX_HEADING_CHARS, is_heading, is_numbered, kept_spans
from ragray.text.sentences import (
    CLAUSE,
    PAUSE,
    SENTENCE,
    WORD,
    ends_sentence,
    last_pause,
    may_have_parts,
    parts,
    safe_cut,
)
from ragray.types import Document, Passage

PARAGRAPH, SECTION = SENTENCE + 1, SENTENCE + 2
"""What a word may be the last one of beside a sentence; a section ends where a heading follows."""
MAX_CHARS_PER_TOKEN = 16
"""A token counts for so many characters at most, so that data which the encoder does not know stays short too."""
MAX_WORD_CHARS = 100
"""Longer words (data, or a script without white space) may be cut; WordPiece makes one [UNK] of them."""
SECTION_SHARE = 0.25
"""A piece ends with a section that fills so much of it: less than a paragraph must, as what follows is about something else."""
WORDS_PER_BATCH = 2048
CONTEXT_TOKENS = 8
"""Within so many tokens of a limit the sum of words is not trusted: byte-pair vocabularies mind where a line starts."""
_WORD = re.compile(r"(\S+)(\s*)")
_LINE = re.compile(r"([^\n]*\S)(?:[ \t]*\n)*")


def split_document(document: Document, tokenizer: Tokenizer, config: IngestConfig) -> Iterator[Passage]:
    """Cut a document into passages; each carries the title, whose tokens count.

    A document that fits into one passage gives it its own id, else they are ``{document}#{hash of the piece}``. A title
    that would take more than half of a passage is cut.
    """
    title = _fitting_title(document.title, tokenizer, config.max_tokens // 2)
    splitter = _Splitter(document.text, title, tokenizer, config)
    if splitter.fits(document.text):
        yield _passage(document, document.id, title, document.text)
        return
    pieces = splitter.pieces()
    first, second = next(pieces), next(pieces, None)
    if second is None:
        yield _passage(document, document.id, title, first)
        return
    times: Counter[str] = Counter()
    for piece in chain((first, second), pieces):
        key = hashlib.blake2b(piece.encode(), digest_size=4).hexdigest()
        times[key] += 1
        suffix = f"-{times[key]}" if times[key] > 1 else ""
        yield _passage(document, f"{document.id}#{key}{suffix}", title, piece)


def _passage(document: Document, identity: str, title: str, text: str) -> Passage:
    return Passage(identity, text, title, document.id, document.metadata)


def _fitting_title(title: str, tokenizer: Tokenizer, max_tokens: int) -> str:
    title = title[: max_tokens * MAX_CHARS_PER_TOKEN].strip()
    while not _at_most(title, max_tokens, tokenizer):
        title = title.rpartition(" ")[0] or title[: len(title) // 2]
    return title


def _at_most(text: str, max_tokens: int, tokenizer: Tokenizer) -> bool:
    """Return whether a text has at most so many tokens: by the sum of its words, and where that is close, by the whole."""
    total = sum(tokenizer.count_words(text.split()))
    return total <= max_tokens if abs(total - max_tokens) > CONTEXT_TOKENS else tokenizer.count(text) <= max_tokens


class _Splitter:
    """Cuts one text into pieces, in time linear in its length."""

    def __init__(self, text: str, title: str, tokenizer: Tokenizer, config: IngestConfig) -> None:
        self._text = text
        self._title = title
        self._tokenizer = tokenizer
        self._max_tokens = config.max_tokens
        self._budget = config.max_tokens - (tokenizer.count(title) if title else 0)
        self._overlap = min(config.overlap_tokens, self._budget // 2)

    def fits(self, piece: str) -> bool:
        """Return whether a piece is short enough, its title included."""
        if len(piece) > self._max_tokens * MAX_CHARS_PER_TOKEN:
            return False
        return _at_most(f"{self._title}\n{piece}" if self._title else piece, self._max_tokens, self._tokenizer)

    def pieces(self) -> Iterator[str]:
        """Yield the pieces in order; the first word past a piece is the first new one of the next."""
        words = self._words = _Words.of(self._text, self._tokenizer, self._budget // 2)
        first = new = 0
        while new < len(words):
            first, stop = self._bounds(first, new)
            while not self.fits(piece := self._text[words.starts[first] : words.ends[stop - 1]]):
                if first == new and stop == new + 1:
                    break
                first, stop = (new, stop) if first < new else (new, self._best_end(new, new + (stop - new) * 7 // 8))
            yield piece
            first, new = self._overlap_start(first, stop), stop

    def _bounds(self, first: int, new: int) -> tuple[int, int]:
        """Choose where a piece begins and stops; the overlap gives way to a sentence that would not fit beside it."""
        stop = self._words.reach(first, self._budget)
        if stop <= new or (stop < len(self._words) and not self._words.last_break(SENTENCE, new, stop)):
            alone = self._words.reach(new, self._budget)
            if stop <= new or self._words.last_break(SENTENCE, new, alone):
                first, stop = new, alone
        return first, self._best_end(new, stop)

    def _best_end(self, new: int, stop: int) -> int:
        """Move an end back to the last section, else paragraph, that leaves the piece full enough, else to a sentence."""
        words = self._words
        if stop == len(words):
            return stop
        num_tokens = words.totals[stop] - words.totals[new]
        half = words.totals[new] + num_tokens / 2
        section, paragraph = words.last_break(SECTION, new, stop), words.last_break(PARAGRAPH, new, stop)
        if section and words.totals[section] >= words.totals[new] + num_tokens * SECTION_SHARE:
            return section
        if paragraph and words.totals[paragraph] >= half:
            return paragraph
        sentence = words.last_break(SENTENCE, new, stop)
        if sentence and (words.totals[sentence] >= half or self._sentence_fits(sentence)):
            return sentence
        for strength in (CLAUSE, PAUSE):
            place = words.last_break(strength, new, stop)
            if place and words.totals[place] >= half:
                return place
        return max(stop, new + 1)

    def _sentence_fits(self, start: int) -> bool:
        end = self._words.first_break(start, self._words.reach(start, self._budget))
        return end > 0

    def _overlap_start(self, first: int, stop: int) -> int:
        """Find where the next piece begins: at the sentences that the overlap has room for.

        A new section begins with its heading. Behind a cut within a sentence that would not fit, the overlap is of words.
        """
        totals, level = self._words.totals, self._words.breaks[stop - 1]
        if level == SECTION:
            return stop
        low = max(first + 1, bisect_left(totals, totals[stop] - self._overlap, first, stop))
        return self._words.first_break(low - 1, stop - 1) or (stop if level >= SENTENCE else min(low, stop))


@dataclass(frozen=True, slots=True)
class _Words:
    """The words of a text: their offsets, the break behind each, and how many tokens stand before each."""

    starts: array[int]
    ends: array[int]
    breaks: bytearray
    totals: array[int]

    def __len__(self) -> int:
        return len(self.starts)

    @classmethod
    def of(cls, text: str, tokenizer: Tokenizer, max_tokens: int) -> _Words:
        """Find the words of a text; one of more than ``max_tokens`` tokens, or very long, counts as several."""
        words = cls(array("q"), array("q"), bytearray(), array("q", [0]))
        spans = _spans(text)
        while batch := list(islice(spans, WORDS_PER_BATCH)):
            counts = tokenizer.count_words([text[start:end] for start, end, _ in batch])
            for (start, end, level), count in zip(batch, counts, strict=True):
                words._append(text, start, end, level, count, tokenizer, max_tokens)
        return words

    def _append(
        self, text: str, start: int, end: int, level: int, count: int, tokenizer: Tokenizer, max_tokens: int
    ) -> None:
        if count > max_tokens and end - start > 1:
            middle = safe_cut(text, start, (start + end) // 2)
            left, right = tokenizer.count_words([text[start:middle], text[middle:end]])
            self._append(text, start, middle, WORD, left, tokenizer, max_tokens)
            self._append(text, middle, end, level, right, tokenizer, max_tokens)
            return
        self.starts.append(start)
        self.ends.append(end)
        self.breaks.append(level)
        self.totals.append(self.totals[-1] + max(1, count, (end - start) // MAX_CHARS_PER_TOKEN))

    def reach(self, first: int, num_tokens: int) -> int:
        """Return the furthest end of a run of words from ``first`` with at most so many tokens."""
        return bisect_right(self.totals, self.totals[first] + num_tokens, first) - 1

    def last_break(self, strength: int, first: int, stop: int) -> int:
        """Return the last end, in (first, stop], of a sentence (or of more than that), 0 where there is none."""
        return 1 + max(self.breaks.rfind(level, first, stop) for level in range(strength, SECTION + 1))

    def first_break(self, first: int, stop: int) -> int:
        """Return the first end, in (first, stop], of a sentence, 0 where there is none."""
        found = (self.breaks.find(level, first, stop) for level in (SENTENCE, PARAGRAPH, SECTION))
        return min((1 + index for index in found if index >= 0), default=0)


def _spans(text: str) -> Iterator[tuple[int, int, int]]:
    """Yield start, end and break of each word; of code and tables, each line is one."""
    done, has_parts = 0, may_have_parts(text)
    for first, stop in kept_spans(text):
        yield from _spans_of_prose(text, done, first, has_parts)
        for match in _LINE.finditer(text, first, stop):
            level = _break_behind_block(text, stop) if match.end() == stop else CLAUSE
            yield match.start(), match.end(1), level
        done = stop
    yield from _spans_of_prose(text, done, len(text), has_parts)


def _spans_of_prose(text: str, first: int, stop: int, has_parts: bool) -> Iterator[tuple[int, int, int]]:
    for match in _WORD.finditer(text, first, stop):
        start, last = match.span(1)
        if last - start <= MAX_WORD_CHARS and not (has_parts and may_have_parts(match[1])):
            yield start, last, _break_behind(text, match)
            continue
        for end, level in parts(text, start, last):
            while end - start > MAX_WORD_CHARS:
                cut = start + MAX_WORD_CHARS
                cut = last_pause(text, start, cut) or safe_cut(text, start, cut)
                yield start, cut, WORD
                start = cut
            yield start, end, level if end < last else max(level, _break_behind(text, match))
            start = end


def _break_behind(text: str, match: re.Match[str]) -> int:
    """Return what ends with a word and the white space behind it."""
    start, end = match.span(1)
    gap, following = match[2], match.end()
    if following == len(text):
        return PARAGRAPH
    if "\n\n" in gap:
        return _paragraph_break(text, end, following)
    if gap and ends_sentence(text, start, end, following):
        return SENTENCE
    return CLAUSE if "\n" in gap else WORD


def _break_behind_block(text: str, stop: int) -> int:
    following = stop
    while text[following : following + 1].isspace():
        following += 1
    return SECTION if _heading_at(text, following) else PARAGRAPH


def _paragraph_break(text: str, end: int, following: int) -> int:
    """Return what ends at a blank line: nothing after a heading, a section before one, otherwise a paragraph.

    A number may be an item's as well as a heading's: of several such lines each is a paragraph.
    """
    start = text.rfind("\n\n", max(0, end - MAX_HEADING_CHARS - 2), end)
    start = start + 2 if start >= 0 else 0
    heading = _heading_at(text, start) if end - start <= MAX_HEADING_CHARS else ""
    below = _heading_at(text, following)
    if heading and not (is_numbered(heading) and is_numbered(below)):
        return WORD
    return SECTION if below else PARAGRAPH


def _heading_at(text: str, start: int) -> str:
    """Return the paragraph that begins at ``start`` where it is a heading, else nothing."""
    end = text.find("\n\n", start, start + MAX_HEADING_CHARS + 3)
    line = text[start : start + MAX_HEADING_CHARS + 1] if end < 0 else text[start:end]
    return line if line and is_heading(line) else ""
