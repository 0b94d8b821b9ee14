"""Reading columns. In: Parquet, or Arrow as Hugging Face `datasets` saves it. Out: records, a few hundred rows in memory at a time."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import chain

import pyarrow as pa
import pyarrow.parquet as pq

from ragray.config import IngestConfig
from ragray.corpus.record import Record, Refusal, from_fields, refusal, require_text_column
from ragray.corpus.sources import Source

BATCH_ROWS = 256
BUFFER_BYTES = 1 << 20
"""Read at a time of a column; without it pyarrow loads the columns of a whole row group."""


def read_parquet(source: Source, config: IngestConfig) -> Iterator[Record | Refusal]:
    """Read a record a row; the row number counts from one."""
    with source.open() as stream, pq.ParquetFile(stream, buffer_size=BUFFER_BYTES, pre_buffer=False) as file:
        require_text_column(source, file.schema_arrow.names, config)
        first, groups = 1, range(file.num_row_groups)
        if source.part is not None:
            first, groups = source.part.lines_before + 1, range(*source.part.row_groups)
        batches = file.iter_batches(batch_size=BATCH_ROWS, row_groups=groups, columns=_scalars(file.schema_arrow))
        yield from _records(source, batches, config, first)


def read_arrow(source: Source, config: IngestConfig) -> Iterator[Record | Refusal]:
    """Read a record a row of an Arrow stream (what `datasets` writes) or Arrow file."""
    with source.open() as stream:
        is_file = stream.read(6) == b"ARROW1"
        stream.seek(0)
        if is_file:
            file = pa.ipc.open_file(stream)
            schema, batches = file.schema, (file.get_batch(number) for number in range(file.num_record_batches))
        else:
            batches = pa.ipc.open_stream(stream)
            schema = batches.schema
        require_text_column(source, schema.names, config)
        yield from _records(source, _sliced(batches, _scalars(schema)), config, 1)


def _scalars(schema: pa.Schema) -> list[str]:
    return [field.name for field in schema if not pa.types.is_nested(field.type)]


def _sliced(batches: Iterable[pa.RecordBatch], columns: list[str]) -> Iterator[pa.RecordBatch]:
    for batch in batches:
        chosen = batch.select(columns)
        for column in chosen.columns:
            _check(column)
        for start in range(0, len(batch), BATCH_ROWS):
            yield chosen.slice(start, BATCH_ROWS)


def _check(column: pa.Array) -> None:
    """Raise where a damaged file points past its end: pyarrow would follow it. What is not UTF-8 is found row by row."""
    as_bytes = {pa.string(): pa.binary(), pa.large_string(): pa.large_binary()}
    (column.view(as_bytes[column.type]) if column.type in as_bytes else column).validate(full=True)


def _records(
    source: Source, batches: Iterable[pa.RecordBatch], config: IngestConfig, first: int
) -> Iterator[Record | Refusal]:
    for number, fields in enumerate(chain.from_iterable(map(_rows, batches)), start=first):
        if fields is None:
            yield refusal(source, number, "not valid UTF-8", "")
        else:
            yield from_fields(source, number, fields, config, raw=str(fields.get(config.text_field)))


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
