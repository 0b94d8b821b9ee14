"""Reading a source. In: one file. Out: its records as documents with their line, or a refusal for each that is none.

A broken record never stops the rest of its file. Memory is bounded: a line that is too long for a document of
``max_chars`` is passed over, not loaded; Parquet is read in row batches.
"""

from __future__ import annotations

import csv
import gzip
import hashlib
import json
import re
import zlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import pyarrow as pa
import pyarrow.parquet as pq

from ragray.config import IngestConfig
from ragray.corpus.sources import Source
from ragray.errors import InputError
from ragray.types import Document

EXCERPT_CHARS = 200
PARQUET_BATCH_ROWS = 256
ESCAPED_CHAR_BYTES = 6
"""JSON may write a character as \\uXXXX: a line is cut off past so many bytes for each of ``max_chars``."""
OTHER_FIELDS_BYTES = 1 << 16
"""What the other fields of a record may add to that."""


@dataclass(frozen=True, slots=True)
class Record:
    """A document and the line (1-based; the row of a Parquet file) that it stands on."""

    line: int
    document: Document


@dataclass(frozen=True, slots=True)
class Refusal:
    """A record, document or passage that was left out: where it stands, why, and how its text begins."""

    source: str
    line: int
    document_id: str
    reason: str
    excerpt: str


def read_source(source: Source, config: IngestConfig) -> Iterator[Record | Refusal]:
    """Read one file: a record for each document, a refusal for each line, row or file that is none.

    Raises:
        InputError: the file cannot be read at all, holds no records, or has no column for the text.
    """
    readers = {
        ".parquet": _read_parquet,
        ".csv": _read_csv,
        ".csv.gz": _read_csv,
        ".txt": _read_text,
        ".md": _read_text,
    }
    num_records = 0
    try:
        for record in readers.get(source.format, _read_jsonl)(source, config):
            num_records += 1
            yield record
    except (OSError, EOFError, zlib.error, pa.ArrowException) as err:
        reason = str(err).splitlines()[0] if str(err) else type(err).__name__
        kind = source.format.removeprefix(".")
        raise InputError(
            f"{source.path}: cannot be read as {kind} ({reason}); fetch or convert the file again"
        ) from err
    if not num_records:
        raise InputError(f"{source.path}: holds no records; fill it or leave it out of the sources")


def _read_jsonl(source: Source, config: IngestConfig) -> Iterator[Record | Refusal]:
    with _opened(source.path) as stream:
        for number, line in _bounded_lines(stream, config):
            if line is None:
                yield Refusal(source.label, number, "", _too_long(config), "")
            elif line.strip():
                yield _from_json(source, number, line, config)


def _from_json(source: Source, number: int, line: bytes, config: IngestConfig) -> Record | Refusal:
    try:
        text = line.decode("utf-8")
        fields = json.loads(text)
    except UnicodeDecodeError:
        return _refusal(source, number, "not valid UTF-8", line.decode("utf-8", "replace"))
    except (ValueError, RecursionError):
        return _refusal(source, number, "not valid JSON", text)
    if not isinstance(fields, dict):
        return _refusal(source, number, "not a JSON object", text)
    return _from_fields(source, number, fields, config, raw=text)


def _read_parquet(source: Source, config: IngestConfig) -> Iterator[Record | Refusal]:
    with pq.ParquetFile(source.path) as file:
        _require_text_column(source, file.schema_arrow.names, config)
        scalar = [field.name for field in file.schema_arrow if not pa.types.is_nested(field.type)]
        number = 0
        for batch in file.iter_batches(batch_size=PARQUET_BATCH_ROWS, columns=scalar):
            for fields in _rows(batch):
                number += 1
                if fields is None:
                    yield _refusal(source, number, "not valid UTF-8", "")
                else:
                    yield _from_fields(source, number, fields, config, raw=str(fields.get(config.text_field)))


def _rows(batch: pa.RecordBatch) -> Iterator[dict[str, object] | None]:
    """Yield the rows of a batch, None for one that is not valid UTF-8."""
    try:
        yield from batch.to_pylist()
    except UnicodeDecodeError:
        for row in range(len(batch)):
            try:
                fields = batch.slice(row, 1).to_pylist()[0]
            except UnicodeDecodeError:
                fields = None
            yield fields


def _read_csv(source: Source, config: IngestConfig) -> Iterator[Record | Refusal]:
    csv.field_size_limit(max(csv.field_size_limit(), _line_limit(config)))
    with _opened(source.path) as stream:
        lines = _CsvLines(stream, config)
        rows = csv.reader(lines, strict=True)
        header: list[str] = []
        while True:
            first = lines.number + 1
            try:
                row = next(rows)
            except StopIteration:
                row = None
            except csv.Error:
                yield _refusal(source, first, "not valid CSV", lines.latest)
                continue
            for number in lines.pop_too_long():
                yield Refusal(source.label, number, "", _too_long(config), "")
            if row is None:
                return
            if row and not header:
                header = row
                _require_text_column(source, header, config)
            elif row:
                yield _from_row(source, first, header, row, config)


class _CsvLines:
    """Feeds `csv.reader` lines of bounded length; bytes that are not UTF-8 become lone surrogates (see `_from_row`)."""

    def __init__(self, stream: IO[bytes], config: IngestConfig) -> None:
        self.number = 0
        self.latest = ""
        self._too_long: list[int] = []
        self._lines = _bounded_lines(stream, config)

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
        return _refusal(source, number, "not valid UTF-8", raw)
    if len(row) != len(header):
        return _refusal(source, number, f"has {len(row)} columns instead of {len(header)}", raw)
    fields = {name: value for name, value in zip(header, row, strict=True) if value or name == config.text_field}
    return _from_fields(source, number, fields, config, raw=raw)


def _read_text(source: Source, config: IngestConfig) -> Iterator[Record | Refusal]:
    if source.path.stat().st_size > _line_limit(config):
        yield Refusal(source.label, 1, storable(source.name), _too_long(config), "")
        return
    data = source.path.read_bytes()
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as err:
        number = data.count(b"\n", 0, err.start) + 1
        line = data.split(b"\n")[number - 1].decode("utf-8", "replace")
        yield _refusal(source, number, "not valid UTF-8", line, document_id=storable(source.name))
        return
    title = _first_heading(text) if source.format == ".md" else ""
    yield Record(1, Document(storable(source.name), text, title))


def _first_heading(markdown: str) -> str:
    """Return the text of the first heading outside of code fences."""
    fenced = False
    for line in markdown.splitlines():
        if line.lstrip().startswith(("```", "~~~")):
            fenced = not fenced
        elif not fenced and (match := re.match(r" {0,3}#{1,6}[ \t]+(.*)", line)):
            return match[1].strip().rstrip("#").rstrip()
    return ""


def _from_fields(
    source: Source, number: int, fields: Mapping[str, object], config: IngestConfig, *, raw: str
) -> Record | Refusal:
    identity, title, text = (fields.get(name) for name in (config.id_field, config.title_field, config.text_field))
    document_id = storable(_scalar(identity))
    reason = ""
    if text is None:
        reason = f"no field '{config.text_field}'"
    elif not isinstance(text, str):
        reason = f"field '{config.text_field}' is no string but {type(text).__name__}"
    for name, value in ((config.id_field, identity), (config.title_field, title)):
        if value is not None and not isinstance(value, str | int | float):
            reason = reason or f"field '{name}' is no string but {type(value).__name__}"
    if reason or not isinstance(text, str):
        return _refusal(source, number, reason, raw, document_id=document_id)
    own = (config.id_field, config.title_field, config.text_field)
    metadata = {name: storable(_scalar(value)) for name, value in fields.items() if name not in own and _scalar(value)}
    heading = _scalar(title)
    return Record(number, Document(document_id or _id_of_content(heading, text), text, heading, metadata))


def _scalar(value: object) -> str:
    """Write a scalar as text; what is no scalar, or binary, becomes empty."""
    if isinstance(value, bool):
        return str(value).lower()
    return "" if value is None or isinstance(value, dict | list | bytes) else str(value)


def storable(text: str) -> str:
    """Replace lone surrogates, which JSON can hold and UTF-8 cannot."""
    return text if text.isascii() else text.encode("utf-8", "replace").decode("utf-8")


def _id_of_content(title: str, text: str) -> str:
    return hashlib.blake2b(f"{title}\n{text}".encode("utf-8", "replace"), digest_size=8).hexdigest()


def _refusal(source: Source, number: int, reason: str, raw: str, *, document_id: str = "") -> Refusal:
    return Refusal(source.label, number, document_id, reason, excerpt(raw))


def excerpt(text: str) -> str:
    """Return how a text begins, on one line."""
    return storable(" ".join(text[: 2 * EXCERPT_CHARS].split())[:EXCERPT_CHARS])


def _require_text_column(source: Source, columns: Iterable[str], config: IngestConfig) -> None:
    if config.text_field not in columns:
        raise InputError(
            f"{source.path}: has no column '{config.text_field}' but {', '.join(map(repr, columns))}; "
            f"say which one holds the text with ingest.text_field=COLUMN"
        )


def _line_limit(config: IngestConfig) -> int:
    return config.max_chars * ESCAPED_CHAR_BYTES + OTHER_FIELDS_BYTES


def _too_long(config: IngestConfig) -> str:
    return f"longer than max_chars={config.max_chars}"


def _opened(path: Path) -> IO[bytes]:
    return gzip.open(path, "rb") if path.name.lower().endswith(".gz") else path.open("rb")  # type: ignore[return-value] # reads bytes


def _bounded_lines(stream: IO[bytes], config: IngestConfig) -> Iterator[tuple[int, bytes | None]]:
    """Yield line numbers and lines, the first without its byte order mark; None for a line past the limit."""
    limit, number = _line_limit(config), 0
    while line := stream.readline(limit):
        number += 1
        if len(line) == limit and not line.endswith(b"\n"):
            while rest := stream.readline(1 << 20):
                if rest.endswith(b"\n"):
                    break
            yield number, None
        else:
            yield number, line.removeprefix(b"\xef\xbb\xbf") if number == 1 else line
