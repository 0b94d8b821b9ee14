"""Splitting documents. In: a clean document. Out: passages of at most ``max_tokens`` tokens that overlap a little.

A piece ends with a paragraph, else a sentence, else a word, and is a literal part of the document's text. Its end alone
decides where the next one begins: an edit leaves the pieces before it as they were, and those behind the next end that
old and new text share.
"""

from __future__ import annotations

import hashlib
import re
from array import array
from bisect import bisect_left, bisect_right
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path
from typing import Protocol

from tokenizers import Tokenizer as RustTokenizer

from ragray.artifact import file_checksum
from ragray.config import EncoderConfig, IngestConfig
from ragray.errors import ModelNotFoundError
from ragray.models import resolve_model
from ragray.types import Document, Passage

WORD, SENTENCE, PARAGRAPH = 0, 1, 2
MAX_CHARS_PER_TOKEN = 16
"""A token counts for so many characters at most, so that data which the encoder does not know stays short too."""
MAX_WORD_CHARS = 100
"""Longer words (data, or a script without white space) may be cut; WordPiece makes one [UNK] of them."""
WORDS_PER_BATCH = 2048
MAX_KNOWN_WORDS = 100_000
CONTEXT_TOKENS = 8
"""Within so many tokens of a limit the sum of words is not trusted: byte-pair vocabularies mind where a line starts."""

# ruff: noqa: RUF001 - the full-width marks and curly quotes below are meant.
_CJK_STOPS = "。！？"
_CLAUSE_MARKS = "；，、;,"
_OPENERS = "\"'“‘«(["
_CLOSERS = "\"'”’»)]"
_ENDERS = frozenset(".!?…" + _CLOSERS)
_WORD = re.compile(rf"([^\s{_CJK_STOPS}]+[{_CJK_STOPS}]*|[{_CJK_STOPS}]+)(\s*)")
_SENTENCE_END = re.compile(rf"[.!?…][{re.escape(_CLOSERS)}]*$")
_ABBREVIATION = re.compile(rf"[{re.escape(_OPENERS)}]*([A-Z]|Mr|Mrs|Ms|Dr|Prof|St|No|Fig|Eq|vs|cf|[a-z]\.[a-z])\.$")


class Tokenizer(Protocol):
    """Counts tokens as the encoder does, without its special tokens."""

    @property
    def identity(self) -> str:
        """What decides the counts."""

    def count(self, text: str) -> int:
        """Count the tokens of a text."""

    def count_words(self, words: Sequence[str]) -> list[int]:
        """Count the tokens of each of some words, which hold no white space."""


class FileTokenizer:
    """The tokenizer of a model folder, from its ``tokenizer.json``; the truncation and padding stored there are off."""

    def __init__(self, folder: Path) -> None:
        path = folder / "tokenizer.json"
        if not path.is_file():
            raise ModelNotFoundError(f"{folder}: holds no tokenizer.json; save the model's fast tokenizer there")
        self.identity = file_checksum(path)
        self._tokenizer = RustTokenizer.from_file(str(path))
        self._tokenizer.no_truncation()
        self._tokenizer.no_padding()
        self._known: dict[str, int] = {}

    def count(self, text: str) -> int:
        """Count the tokens of a text."""
        return len(self._tokenizer.encode(text, add_special_tokens=False).ids)

    def count_words(self, words: Sequence[str]) -> list[int]:
        """Count the tokens of each of some words; a word is tokenized once and then remembered."""
        known = self._known
        new = [word for word in dict.fromkeys(words) if word not in known]
        if len(known) + len(new) > MAX_KNOWN_WORDS:
            known.clear()
            new = list(dict.fromkeys(words))
        if new:
            offsets = self._tokenizer.encode(" ".join(new), add_special_tokens=False).offsets
            token_ends = [end for _, end in offsets]
            word_end = token = 0
            for word in new:
                word_end += len(word)
                until = bisect_right(token_ends, word_end, token)
                known[word] = until - token
                word_end, token = word_end + 1, until
        return [known[word] for word in words]


class WordTokenizer:
    """Counts words between white space: goes with the encoder ``hash:N``, which has no other tokens."""

    identity = "words"

    def count(self, text: str) -> int:
        """Count the words of a text."""
        return len(text.split())

    def count_words(self, words: Sequence[str]) -> list[int]:
        """Count one for each word."""
        return [1] * len(words)


def load_tokenizer(config: EncoderConfig) -> Tokenizer:
    """Load the tokenizer that belongs to a configured encoder.

    Raises:
        ModelNotFoundError: the encoder's name resolves to nothing, or to a folder without tokenizer.json.
    """
    return WordTokenizer() if config.model.startswith("hash:") else FileTokenizer(resolve_model(config.model))


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
    """Say whether a text has at most so many tokens: by the sum of its words, and where that is close, by the whole."""
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
        """Say whether a piece is short enough, its title included."""
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
        """Move an end back to the last paragraph that leaves the piece half full, else to a sentence."""
        words = self._words
        if stop == len(words):
            return stop
        half = (words.totals[new] + words.totals[stop]) / 2
        paragraph, sentence = words.last_break(PARAGRAPH, new, stop), words.last_break(SENTENCE, new, stop)
        if paragraph and words.totals[paragraph] >= half:
            return paragraph
        if sentence and (words.totals[sentence] >= half or self._sentence_fits(sentence)):
            return sentence
        return max(stop, new + 1)

    def _sentence_fits(self, start: int) -> bool:
        end = self._words.first_break(start, self._words.reach(start, self._budget))
        return end > 0

    def _overlap_start(self, first: int, stop: int) -> int:
        """Find where the next piece begins: at the sentences, else the words, that the overlap has room for."""
        totals = self._words.totals
        low = max(first + 1, bisect_left(totals, totals[stop] - self._overlap, first, stop))
        return self._words.first_break(low - 1, stop - 1) or min(low, stop)


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
        spans = chain.from_iterable(_spans(text, match) for match in _WORD.finditer(text))
        while batch := list(islice(spans, WORDS_PER_BATCH)):
            counts = tokenizer.count_words([text[start:end] for start, end, _ in batch])
            for (start, end, level), count in zip(batch, counts, strict=True):
                words._append(text, start, end, level, count, tokenizer, max_tokens)
        return words

    def _append(
        self, text: str, start: int, end: int, level: int, count: int, tokenizer: Tokenizer, max_tokens: int
    ) -> None:
        if count > max_tokens and end - start > 1:
            middle = (start + end) // 2
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
        """Return the last end, in (first, stop], of a sentence (or of a paragraph), 0 where there is none."""
        return 1 + max(self.breaks.rfind(level, first, stop) for level in range(strength, PARAGRAPH + 1))

    def first_break(self, first: int, stop: int) -> int:
        """Return the first end, in (first, stop], of a sentence, 0 where there is none."""
        found = (self.breaks.find(level, first, stop) for level in (SENTENCE, PARAGRAPH))
        return min((1 + index for index in found if index >= 0), default=0)


def _spans(text: str, match: re.Match[str]) -> Iterator[tuple[int, int, int]]:
    """Yield start, end and break of a word; one that is too long is cut, behind a comma if it has one."""
    start, end = match.span(1)
    while end - start > MAX_WORD_CHARS:
        stop = start + MAX_WORD_CHARS
        stop = max(text.rfind(mark, start, stop) for mark in _CLAUSE_MARKS) + 1 or stop
        yield start, stop, WORD
        start = stop
    yield start, end, _break_behind(text, match)


def _break_behind(text: str, match: re.Match[str]) -> int:
    word, gap = match.groups()
    if "\n\n" in gap or match.end() == len(text):
        return PARAGRAPH
    if word[-1] in _CJK_STOPS:
        return SENTENCE
    if gap and word[-1] in _ENDERS and _SENTENCE_END.search(word) and not text[match.end()].islower():
        return WORD if _ABBREVIATION.match(word) else SENTENCE
    return WORD
