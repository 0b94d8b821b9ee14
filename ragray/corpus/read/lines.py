"""Reading lines. In: JSON lines, CSV or TSV, compressed or not. Out: rows, records. A line too long for ``max_chars`` is passed over."""

from __future__ import annotations

import contextlib
import csv
import gzip
import io
import json
from collections.abc import Iterator
from functools import partial
from typing import IO

import pyarrow as pa

from ragray.config import IngestConfig
from ragray.corpus.read.encoding import AUTO, SAMPLE_BYTES, Encoding, encoding_of, in_utf8, not_valid
from ragray.corpus.read.record import (
    TOO_MANY_DIGITS,
    CheckColumns,
    Record,
    Refusal,
    Row,
    line_limit,
    refusal,
    require_text_column,
    storable,
    to_documents,
    too_long,
)
from ragray.corpus.read.source import Source

SKIP_BYTES = 1 << 20
UNLIMITED = 1 << 62


@contextlib.contextmanager
def decompressed(source: Source) -> Iterator[IO[bytes]]:
    """Open a file and undo its compression."""
    with source.open() as stream:
        if source.compression == ".gz":
            with gzip.open(stream, "rb") as inside:
                yield inside  # type: ignore[misc] # it reads bytes
        elif source.compression == ".zst":
            with pa.CompressedInputStream(stream, "zstd") as inside:
                yield io.BufferedReader(inside)
        else:
            yield stream


def stream_encoding(source: Source, wanted: str) -> Encoding:
    """Find the encoding of a file from its first bytes."""
    with decompressed(source) as stream:
        sample = stream.read(SAMPLE_BYTES)
    return encoding_of(sample, wanted, label=source.label, is_whole=len(sample) < SAMPLE_BYTES)


def read_jsonl(source: Source, config: IngestConfig) -> Iterator[Record | Refusal]:
    """Read a record a line."""
    return to_documents(source, jsonl_rows(source, config.max_chars, config.encoding), config)


def jsonl_rows(source: Source, max_chars: int, wanted: str = AUTO) -> Iterator[Row | Refusal]:
    """Read a row a line, in the encoding that is wanted."""
    encoding = stream_encoding(source, wanted)
    with decompressed(source) as stream:
        for number, line, is_whole in _bounded_lines(stream, source, max_chars, encoding):
            if not is_whole:
                yield refusal(source, number, too_long(max_chars), "")
            elif line.strip():
                yield _from_json(source, number, line, encoding)


def _from_json(source: Source, number: int, line: bytes, encoding: Encoding) -> Row | Refusal:
    try:
        text = line.decode("utf-8")
        fields = json.loads(text)
    except UnicodeDecodeError:
        return refusal(source, number, not_valid(encoding), line.decode("utf-8", "replace"))
    except (json.JSONDecodeError, RecursionError):
        return refusal(source, number, "not valid JSON", text)
    except ValueError:
        return refusal(source, number, TOO_MANY_DIGITS, text)
    if not isinstance(fields, dict):
        return refusal(source, number, "not a JSON object", text)
    return Row(number, fields, text)


def read_csv(source: Source, config: IngestConfig) -> Iterator[Record | Refusal]:
    """Read a record a row of CSV, or of TSV that is quoted as CSV is; an empty cell is a field that is not there."""
    check = partial(require_text_column, source, config=config)
    rows = csv_rows(source, config.max_chars, check, config.encoding)
    return to_documents(source, (_without_empty(row, config.text_field) for row in rows), config)


def _without_empty(row: Row | Refusal, text_field: str) -> Row | Refusal:
    if isinstance(row, Refusal):
        return row
    fields = {name: value for name, value in row.fields.items() if value or name == text_field}
    return Row(row.line, fields, row.raw)


def csv_rows(
    source: Source, max_chars: int, check_columns: CheckColumns, wanted: str = AUTO
) -> Iterator[Row | Refusal]:
    """Read the rows of CSV, or of TSV that is quoted as CSV is; the first row names the columns."""
    encoding = stream_encoding(source, wanted)
    csv.field_size_limit(max(csv.field_size_limit(), line_limit(max_chars)))
    with decompressed(source) as stream:
        lines = _CsvLines(stream, source, max_chars, encoding)
        rows = csv.reader(lines, strict=True, delimiter="\t" if source.format == ".tsv" else ",")
        header: list[str] = []
        while True:
            reason = ""
            lines.begin_record()
            try:
                row = next(rows)
            except StopIteration:
                return
            except csv.Error:
                row, reason = [], f"not valid {source.format[1:].upper()}"
            if not lines.is_whole:
                reason = too_long(max_chars)
            if reason:
                yield refusal(source, lines.first, lines.over(reason), lines.beginning)
            elif row and not header:
                header = [storable(name) for name in row]
                check_columns(header)
            elif row:
                yield _from_row(source, lines, header, row)


class _CsvLines:
    """Feeds `csv.reader` lines of bounded length; bytes that are not UTF-8 become lone surrogates (see `storable`).

    Of the record that is read now it knows the ``first`` line with its ``beginning``, and whether it ``is_whole``.
    """

    def __init__(self, stream: IO[bytes], source: Source, max_chars: int, encoding: Encoding) -> None:
        self.not_valid = not_valid(encoding)
        self._number = 0
        self._lines = _bounded_lines(stream, source, max_chars, encoding)
        self.begin_record()

    def begin_record(self) -> None:
        self.first, self.beginning, self.is_whole = self._number + 1, "", True

    def __iter__(self) -> _CsvLines:
        return self

    def __next__(self) -> str:
        self._number, line, is_whole = next(self._lines)
        text = line.decode("utf-8", "surrogateescape")
        if self._number == self.first and is_whole:
            self.beginning = text
        self.is_whole = self.is_whole and is_whole
        return text

    def over(self, reason: str) -> str:
        """Add how many lines the record runs over, where it is more than one: a stray quotation mark swallows records."""
        num_lines = self._number - self.first + 1
        return f"{reason} over {num_lines} lines" if num_lines > 1 else reason


def _from_row(source: Source, lines: _CsvLines, header: list[str], row: list[str]) -> Row | Refusal:
    raw = ",".join(row)
    if storable(raw) != raw:
        return refusal(source, lines.first, lines.over(lines.not_valid), raw)
    if len(row) != len(header):
        reason = f"has {len(row)} columns instead of {len(header)}"
        return refusal(source, lines.first, lines.over(reason), raw)
    fields: dict[str, str] = {}
    for name, value in zip(header, row, strict=True):
        if value or name not in fields:
            fields[name] = value
    return Row(lines.first, fields, raw)


def _bounded_lines(
    stream: IO[bytes], source: Source, max_chars: int, encoding: Encoding
) -> Iterator[tuple[int, bytes, bool]]:
    """Yield line numbers, lines in UTF-8, and whether they are whole; the first line without its byte order mark.

    Of a line past the limit a quotation mark is left where it has an odd number of them: it opens or closes a field of CSV.
    """
    limit, number, left = line_limit(max_chars), 0, UNLIMITED
    if source.byte_range is not None:
        stream.seek(source.byte_range.start)
        number, left = source.byte_range.lines_before, source.byte_range.stop - source.byte_range.start
    if not encoding.is_utf8:
        stream, left = in_utf8(stream, encoding, num_bytes=left), UNLIMITED
    while left > 0 and (line := stream.readline(limit)):
        number, left = number + 1, left - len(line)
        if len(line) == limit and not line.endswith(b"\n"):
            rest, num_quotes = line, line.count(b'"')
            while rest and not rest.endswith(b"\n"):
                rest = stream.readline(SKIP_BYTES)
                num_quotes += rest.count(b'"')
                left -= len(rest)
            yield number, b'"' * (num_quotes % 2) + b"\n", False
        else:
            yield number, line.removeprefix(b"\xef\xbb\xbf") if number == 1 else line, True
