"""Reading lines. In: JSON lines, CSV or TSV, compressed or not. Out: records. A line too long for ``max_chars`` is passed over unread."""

from __future__ import annotations

import contextlib
import csv
import gzip
import io
import json
from collections.abc import Iterator
from typing import IO

import pyarrow as pa

from ragray.config import IngestConfig
from ragray.corpus.record import (
    Record,
    Refusal,
    from_fields,
    line_limit,
    refusal,
    require_text_column,
    storable,
    too_long,
)
from ragray.corpus.sources import Source

SKIP_BYTES = 1 << 20


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


def read_jsonl(source: Source, config: IngestConfig) -> Iterator[Record | Refusal]:
    """Read a record a line."""
    with decompressed(source) as stream:
        for number, line in _bounded_lines(stream, source, config):
            if line is None:
                yield refusal(source, number, too_long(config), "")
            elif line.strip():
                yield _from_json(source, number, line, config)


def _from_json(source: Source, number: int, line: bytes, config: IngestConfig) -> Record | Refusal:
    try:
        text = line.decode("utf-8")
        fields = json.loads(text)
    except UnicodeDecodeError:
        return refusal(source, number, "not valid UTF-8", line.decode("utf-8", "replace"))
    except (ValueError, RecursionError):
        return refusal(source, number, "not valid JSON", text)
    if not isinstance(fields, dict):
        return refusal(source, number, "not a JSON object", text)
    return from_fields(source, number, fields, config, raw=text)


def read_csv(source: Source, config: IngestConfig) -> Iterator[Record | Refusal]:
    """Read a record a row of CSV, or of TSV that is quoted as CSV is; the first row names the columns."""
    csv.field_size_limit(max(csv.field_size_limit(), line_limit(config)))
    with decompressed(source) as stream:
        lines = _CsvLines(stream, source, config)
        rows = csv.reader(lines, strict=True, delimiter="\t" if source.format == ".tsv" else ",")
        header: list[str] = []
        while True:
            first = lines.number + 1
            try:
                row = next(rows)
            except StopIteration:
                row = None
            except csv.Error:
                yield refusal(source, first, f"not valid {source.format[1:].upper()}", lines.latest)
                continue
            for number in lines.pop_too_long():
                yield refusal(source, number, too_long(config), "")
            if row is None:
                return
            if row and not header:
                header = [storable(name) for name in row]
                require_text_column(source, header, config)
            elif row:
                yield _from_row(source, first, header, row, config)


class _CsvLines:
    """Feeds `csv.reader` lines of bounded length; bytes that are not UTF-8 become lone surrogates (see `storable`)."""

    def __init__(self, stream: IO[bytes], source: Source, config: IngestConfig) -> None:
        self.number = 0
        self.latest = ""
        self._too_long: list[int] = []
        self._lines = _bounded_lines(stream, source, config)

    def __iter__(self) -> _CsvLines:
        return self

    def __next__(self) -> str:
        for number, line in self._lines:
            self.number = number
            if line is not None:
                self.latest = line.decode("utf-8", "surrogateescape")
                return self.latest
            self._too_long.append(number)
        raise StopIteration

    def pop_too_long(self) -> list[int]:
        """Return the lines left out since the last call."""
        numbers, self._too_long = self._too_long, []
        return numbers


def _from_row(source: Source, number: int, header: list[str], row: list[str], config: IngestConfig) -> Record | Refusal:
    raw = ",".join(row)
    if storable(raw) != raw:
        return refusal(source, number, "not valid UTF-8", raw)
    if len(row) != len(header):
        return refusal(source, number, f"has {len(row)} columns instead of {len(header)}", raw)
    fields = {name: value for name, value in zip(header, row, strict=True) if value or name == config.text_field}
    return from_fields(source, number, fields, config, raw=raw)


def _bounded_lines(stream: IO[bytes], source: Source, config: IngestConfig) -> Iterator[tuple[int, bytes | None]]:
    """Yield line numbers and lines, the first without its byte order mark; None for a line past the limit."""
    limit, number, left = line_limit(config), 0, 1 << 62
    if source.part is not None:
        stream.seek(source.part.start)
        number, left = source.part.lines_before, source.part.stop - source.part.start
    while left > 0 and (line := stream.readline(limit)):
        number, left = number + 1, left - len(line)
        if len(line) == limit and not line.endswith(b"\n"):
            while (rest := stream.readline(SKIP_BYTES)) and not rest.endswith(b"\n"):
                left -= len(rest)
            left -= len(rest)
            yield number, None
        else:
            yield number, line.removeprefix(b"\xef\xbb\xbf") if number == 1 else line
