"""Reading columns. In: Parquet, or Arrow as `datasets` saves it. Out: rows, records, a few hundred in memory at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from itertools import chain

import pyarrow as pa
import pyarrow.parquet as pq

from ragray.config import IngestConfig
from ragray.corpus.read.record import CheckColumns, Record, Refusal, Row, from_fields, refusal, require_text_column
from ragray.corpus.read.source import Source

BATCH_ROWS = 256
BUFFER_BYTES = 1 << 20
"""Read at a time of a column; without it pyarrow loads the columns of a whole row group."""

UNREADABLE = (ValueError, OverflowError, LookupError)
"""What a value raises that is not UTF-8, a time out of Python's range, or in a time zone that is not known."""


WantColumn = Callable[[pa.Field], bool]
"""Returns whether a column is read."""


def read_parquet(source: Source, config: IngestConfig) -> Iterator[Record | Refusal]:
    """Read a record a row; the row number counts from one."""
    return _documents(source, parquet_rows, config)


def read_arrow(source: Source, config: IngestConfig) -> Iterator[Record | Refusal]:
    """Read a record a row of an Arrow stream (what `datasets` writes) or Arrow file."""
    return _documents(source, arrow_rows, config)


def _documents(
    source: Source, read: Callable[[Source, CheckColumns, WantColumn], Iterator[Row | Refusal]], config: IngestConfig
) -> Iterator[Record | Refusal]:
    """Make documents of scalar columns."""
    for row in read(source, lambda columns: require_text_column(source, columns, config), _is_scalar):
        if isinstance(row, Refusal):
            yield row
        else:
            yield from_fields(source, row.line, row.fields, config, raw=str(row.fields.get(config.text_field)))


def _is_scalar(column: pa.Field) -> bool:
    return not pa.types.is_nested(column.type)


def parquet_rows(source: Source, check_columns: CheckColumns, wanted: WantColumn) -> Iterator[Row | Refusal]:
    """Read the rows of Parquet, counted from one, with the columns that are wanted."""
    with source.open() as stream, pq.ParquetFile(stream, buffer_size=BUFFER_BYTES, pre_buffer=False) as file:
        check_columns(file.schema_arrow.names)
        chosen = [field.name for field in file.schema_arrow if wanted(field)]
        first, groups = 1, range(file.num_row_groups)
        if source.byte_range is not None:
            first, groups = source.byte_range.lines_before + 1, range(*source.byte_range.row_groups)
        batches = file.iter_batches(batch_size=BATCH_ROWS, row_groups=groups, columns=chosen)
        yield from _numbered(source, batches, first)


def arrow_rows(source: Source, check_columns: CheckColumns, wanted: WantColumn) -> Iterator[Row | Refusal]:
    """Read the rows of an Arrow stream (what `datasets` writes) or Arrow file, counted from one."""
    with source.open() as stream:
        is_file = stream.read(6) == b"ARROW1"
        stream.seek(0)
        if is_file:
            file = pa.ipc.open_file(stream)
            schema, batches = file.schema, (file.get_batch(number) for number in range(file.num_record_batches))
        else:
            batches = pa.ipc.open_stream(stream)
            schema = batches.schema
        check_columns(schema.names)
        yield from _numbered(source, _sliced(batches, wanted), 1)


def _sliced(batches: Iterable[pa.RecordBatch], wanted: WantColumn) -> Iterator[pa.RecordBatch]:
    """Cut batches down to some columns and few rows; of columns with one name the last one counts, as in Parquet."""
    for batch in batches:
        chosen = batch.select([n for n, field in enumerate(batch.schema) if wanted(field)])
        for column in chosen.columns:
            _check(column)
        for start in range(0, len(batch), BATCH_ROWS):
            yield chosen.slice(start, BATCH_ROWS)


def _check(column: pa.Array) -> None:
    """Raise where a damaged file points past its end: pyarrow would follow it. What is not UTF-8 is found row by row."""
    as_bytes = {pa.string(): pa.binary(), pa.large_string(): pa.large_binary()}
    (column.view(as_bytes[column.type]) if column.type in as_bytes else column).validate(full=True)


def _numbered(source: Source, batches: Iterable[pa.RecordBatch], first: int) -> Iterator[Row | Refusal]:
    for number, fields in enumerate(chain.from_iterable(map(_rows, batches)), start=first):
        if isinstance(fields, str):
            yield refusal(source, number, fields, "")
        else:
            yield Row(number, fields)


def _rows(batch: pa.RecordBatch) -> Iterator[dict[str, object] | str]:
    """Yield the rows of a batch, the reason instead of one that Python cannot hold."""
    try:
        yield from batch.to_pylist()
    except UNREADABLE:
        yield from (_row(batch, number) for number in range(len(batch)))


def _row(batch: pa.RecordBatch, number: int) -> dict[str, object] | str:
    fields = {}
    for name, column in zip(batch.schema.names, batch.columns, strict=True):
        try:
            fields[name] = column[number].as_py()
        except UnicodeDecodeError:
            return "not valid UTF-8"
        except UNREADABLE:
            return f"field '{name}' cannot be read as {column.type}"
    return fields
