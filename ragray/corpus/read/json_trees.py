"""Reading JSON trees. In: a file in SQuAD's layout, or a list of records. Out: records, with one article in memory at a time."""

from __future__ import annotations

import io
import json
import re
from collections import Counter
from collections.abc import Iterator
from typing import IO

from ragray.config import IngestConfig
from ragray.corpus.dedup import content_hash
from ragray.corpus.read.encoding import AUTO, Encoding, not_valid
from ragray.corpus.read.lines import decompressed, stream_encoding
from ragray.corpus.read.record import TOO_MANY_DIGITS, Record, Refusal, Row, from_fields, line_limit, refusal, storable
from ragray.corpus.read.source import Source
from ragray.errors import InputError
from ragray.types import Document

CHUNK_CHARS = 1 << 20
MAX_ARTICLE_CHARS = 64 << 20
DATA, PARAGRAPHS, CONTEXT = "data", "paragraphs", "context"
_SPACE = re.compile(r"[ \t\r\n]*")


def read_json(source: Source, config: IngestConfig, *, chunk_chars: int = CHUNK_CHARS) -> Iterator[Record | Refusal]:
    """Read the paragraphs of SQuAD (``data[].paragraphs[].context``), or the records of a plain list.

    ``chunk_chars`` are read at a time, or as many as the longest record needs.

    Raises:
        InputError: the file is neither, or is no valid JSON up to the end of the list.
    """
    numbers: Counter[str] = Counter()
    for row in json_rows(source, config.max_chars, config.encoding, chunk_chars=chunk_chars):
        if isinstance(row, Refusal):
            yield row
        elif isinstance(paragraphs := row.fields.get(PARAGRAPHS), list):
            yield from _paragraphs(source, row, paragraphs, numbers)
        else:
            raw = json.dumps(row.fields, ensure_ascii=False)
            yield from_fields(source, row.line, row.fields, config, raw=raw)


def json_rows(
    source: Source, max_chars: int, wanted: str = AUTO, *, chunk_chars: int = CHUNK_CHARS
) -> Iterator[Row | Refusal]:
    """Read the elements of the list that a file holds, or holds under ``data``: records, or articles with paragraphs.

    Raises:
        InputError: the file holds no such list, or is no valid JSON up to its end.
    """
    encoding = stream_encoding(source, wanted)
    with decompressed(source) as stream:
        tokens = _Json(stream, source, encoding, max(line_limit(max_chars), MAX_ARTICLE_CHARS), chunk_chars)
        for line, element in tokens.elements():
            if isinstance(element, dict):
                yield Row(line, element)
            else:
                yield refusal(source, line, "not a JSON object", json.dumps(element, ensure_ascii=False))
        try:
            tokens.finish()
        except InputError:
            yield refusal(source, tokens.line, "not valid JSON behind the list", tokens.ahead())


def _paragraphs(
    source: Source, article: Row, paragraphs: list[object], numbers: Counter[str]
) -> Iterator[Record | Refusal]:
    """Yield an article's contexts, each once; ``numbers`` counts the paragraphs of a title so far."""
    heading = article.fields.get("title")
    title = storable(heading) if isinstance(heading, str) and heading else storable(source.name.partition(".")[0])
    seen = set()
    for paragraph in paragraphs:
        identity = f"{title}-{numbers[title]}"
        numbers[title] += 1
        context = paragraph.get(CONTEXT) if isinstance(paragraph, dict) else None
        if not isinstance(context, str):
            raw = json.dumps(paragraph, ensure_ascii=False)
            yield refusal(source, article.line, f"no field '{CONTEXT}'", raw, document_id=identity)
        elif (key := content_hash("", storable(context))) not in seen:
            seen.add(key)
            yield Record(article.line, Document(identity, context, title.replace("_", " ") if heading else ""))


class _Json:
    """Reads the elements of one JSON array from a stream, each with the line that it begins on."""

    def __init__(self, stream: IO[bytes], source: Source, encoding: Encoding, max_chars: int, chunk_chars: int) -> None:
        self._encoding = encoding
        self._stream = io.TextIOWrapper(stream, encoding=encoding.codec, newline="")
        self._source = source
        self._max_chars = max_chars
        self._chunk_chars = chunk_chars
        self._decoder = json.JSONDecoder()
        self._buffer = ""
        self._at = 0
        self._in_object = False
        self.line = 1

    def elements(self) -> Iterator[tuple[int, object]]:
        """Yield the elements of the array that the file holds, or holds under ``data``."""
        self._in_object = self._next() == "{"
        if self._in_object:
            self._find_data()
        if self._next() != "[":
            raise self._unknown()
        self._skip("[")
        while self._next() != "]":
            yield self.line, self._value()
            if self._next() != "]":
                self._skip(",")
        self._skip("]")

    def finish(self) -> None:
        """Pass over what follows the elements.

        Raises:
            InputError: it is not the rest of the object that holds them, and then the end of the file.
        """
        if self._in_object:
            while self._next() != "}":
                self._skip(",")
                self._value()
                self._skip(":")
                self._value()
            self._skip("}")
        if mark := self._peek():
            raise self._invalid(f"found {mark!r} behind its end")

    def ahead(self) -> str:
        """Return what was read and not passed over."""
        return self._buffer[self._at :]

    def _find_data(self) -> None:
        """Move to the value of ``data`` in the object that begins here."""
        self._skip("{")
        while self._next() != "}":
            key = self._value()
            self._skip(":")
            if key == DATA:
                return
            self._value()
            if self._next() != "}":
                self._skip(",")
        raise self._unknown()

    def _next(self) -> str:
        mark = self._peek()
        if not mark:
            raise self._invalid("it ends too early")
        return mark

    def _peek(self) -> str:
        """Pass over white space; return the character behind it, nothing at the end of the file."""
        while True:
            if space := _SPACE.match(self._buffer, self._at):
                self._pass_to(space.end())
            if self._at < len(self._buffer):
                return self._buffer[self._at]
            if not self._fill(self._chunk_chars):
                return ""

    def _skip(self, mark: str) -> None:
        if self._next() != mark:
            raise self._invalid(f"found {self._buffer[self._at]!r} instead of {mark!r}")
        self._pass_to(self._at + 1)

    def _value(self) -> object:
        self._next()
        while True:
            try:
                value, end = self._decoder.raw_decode(self._buffer, self._at)
            except RecursionError as err:
                raise self._invalid("nested too deeply") from err
            except json.JSONDecodeError as err:
                if len(self._buffer) - self._at > self._max_chars or not self._fill(len(self._buffer)):
                    raise self._invalid(str(err).partition(":")[0]) from err
                continue
            except ValueError as err:
                raise self._invalid(TOO_MANY_DIGITS) from err
            if end < len(self._buffer) or not self._fill(self._chunk_chars):
                self._pass_to(end)
                return value

    def _pass_to(self, position: int) -> None:
        self.line += self._buffer.count("\n", self._at, position)
        self._at = position

    def _fill(self, num_chars: int) -> bool:
        """Read on; forget what was passed."""
        try:
            more = self._stream.read(max(num_chars, self._chunk_chars))
        except UnicodeDecodeError as err:
            raise self._invalid(not_valid(self._encoding)) from err
        self._buffer, self._at = self._buffer[self._at :] + more, 0
        return bool(more)

    def _invalid(self, reason: str) -> InputError:
        where = f"{self._source.label}:{self.line}"
        return InputError(f"{where}: is not valid JSON ({reason}); mend the file, or convert it to .jsonl")

    def _unknown(self) -> InputError:
        return InputError(
            f"{self._source.label}: is neither SQuAD ({DATA}[].{PARAGRAPHS}[].{CONTEXT}) nor a list of records; "
            f"convert it to .jsonl or leave it out of the sources"
        )
