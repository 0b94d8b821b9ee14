"""Metadata of a segment as typed columns. In: its passages' pairs of key and value. Out: a file with a column per field, memory-mapped.

A filter compares the distinct values of a field, not those of every row, and finds numbers and instants parsed.

N rows of a segment, E entries of a field (a value of a row, in row order), V texts.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ragray.artifact.files import ARRAY_ERRORS
from ragray.corpus.instants import nanosecond, nanoseconds, time_keys
from ragray.errors import CorruptArtifactError, first_line

COLUMNS_FILE = "metadata.arrow"

NUMBER = r"[+-]?([0-9]{1,15}(\.[0-9]*)?|\.[0-9]+)"
"""Numbers of more digits than float64 holds exactly (order numbers, for instance) are text, and so are digits of other scripts."""

CODES: dict[str, pa.DataType] = {"codes8": pa.uint8(), "codes16": pa.uint16(), "codes32": pa.uint32()}
COLUMNS_SCHEMA = pa.schema(
    [
        pa.field("field", pa.string(), nullable=False),
        pa.field("texts", pa.large_list(pa.large_string()), nullable=False),
        pa.field("numbers", pa.large_list(pa.float64())),
        pa.field("times", pa.large_list(pa.large_string())),
        pa.field("instants", pa.large_list(pa.int64())),
        *(pa.field(name, pa.large_list(kind)) for name, kind in CODES.items()),
        pa.field("rows", pa.large_list(pa.uint32())),
    ]
)
"""A row per field, see `Column`.

Null are: numbers where no text is one, instants where not all texts are some, times where there are instants or all equal the texts,
codes and rows as there.
"""

FIRST_SCHEMA = COLUMNS_SCHEMA.remove(COLUMNS_SCHEMA.get_field_index("instants"))
"""The columns of segments that were written before there were instants."""

NUM_ROWS = b"num_rows"
"""Key of the schema's metadata: N."""

BATCH_BYTES, BATCH_FIELDS = 1 << 24, 256
"""Fields are written together until they have so many bytes, or are so many."""


@dataclass(frozen=True, slots=True)
class Column:
    """The values of one field in ``num_rows`` neighbouring rows.

    ``codes_E`` say which text an entry is, V for none; without them entry e is text e. ``rows_E`` say which row has it,
    ascending; without them it is row e. ``numbers_V`` are the texts as float64, null where they are none; ``times_V`` the
    keys that they compare by as instants (see `time_keys`); both are None where nobody parsed them yet. ``instants_V`` are the
    nanoseconds of these keys, faster to compare; None where not all are instants, or nobody parsed them yet.
    """

    num_rows: int
    texts_V: pa.Array
    numbers_V: pa.Array | None = None
    times_V: pa.Array | None = None
    codes_E: np.ndarray | None = None
    rows_E: np.ndarray | None = None
    instants_V: pa.Array | None = None

    @property
    def numbers(self) -> pa.Array:
        """The texts as numbers, (V,) float64; null where they are none."""
        return numbers_of(self.texts_V) if self.numbers_V is None else self.numbers_V

    @property
    def times(self) -> pa.Array:
        """The keys by which the texts compare as instants, (V,)."""
        return time_keys(self.texts_V) if self.times_V is None else self.times_V

    def in_time(self, key: str) -> tuple[pa.Array, list[str] | list[int]]:
        """Return the values as they compare in time, (V,), and a key that `time_key` gave for an instant in the same form."""
        return (self.times, [key]) if self.instants_V is None else (self.instants_V, [nanosecond(key)])

    def mask(self, matches_V: pa.Array) -> np.ndarray:
        """Return for each row whether one of its values is among the matching texts, (rows,) bool."""
        found = pc.fill_null(matches_V, False).cast(pa.uint8()).to_numpy().view(bool)  # faster than from bits
        if self.codes_E is not None:
            found = np.take(np.append(found, False), self.codes_E)
        if self.rows_E is None:
            return np.asarray(found)
        mask = np.zeros(self.num_rows, dtype=bool)
        mask[self.rows_E[np.flatnonzero(found)]] = True
        return mask


def numbers_of(texts: pa.Array) -> pa.Array:
    """Return the texts that are numbers as float64, null for the others."""
    is_number = pc.match_substring_regex(texts, rf"^\s*{NUMBER}\s*$")
    return pc.cast(pc.utf8_trim_whitespace(pc.if_else(is_number, texts, None)), pa.float64())


def keys_of(texts: pa.Array) -> pa.Array:
    """Return `time_keys` of the texts; those that cannot be an instant, `2024-` and so on, are not looked at one by one."""
    dashed = pc.fill_null(pc.equal(pc.utf8_slice_codeunits(texts, 4, 5), "-"), False)
    return pc.replace_with_mask(texts, dashed, time_keys(texts.filter(dashed)))


def pair_columns(pairs: Iterable[pa.Array], field: str) -> Iterator[Column]:
    """Yield a column for each array of lists of pairs, its values as they stand there: one text per entry."""
    for lists in pairs:
        entries = lists.flatten()
        chosen = pc.equal(entries.field("key"), field)
        rows_E = pc.list_parent_indices(lists).filter(chosen).to_numpy()
        yield Column(len(lists), entries.field("value").filter(chosen), rows_E=rows_E)


@dataclass(frozen=True, slots=True)
class MetadataColumns:
    """An open file of columns; ``places`` are the rows of ``table`` by field."""

    path: Path
    num_rows: int
    table: pa.Table
    places: dict[str, int]
    _checked: set[str] = field(default_factory=set, repr=False, compare=False)

    @classmethod
    def open(cls, path: Path, num_rows: int) -> MetadataColumns:
        """Open the columns of a segment of ``num_rows`` rows.

        Raises:
            CorruptArtifactError: the file cannot be read, or is that of another number of rows.
        """
        try:
            table = pa.ipc.open_stream(pa.memory_map(str(path))).read_all()
        except ARRAY_ERRORS as err:
            raise CorruptArtifactError(f"{path}: cannot be read ({first_line(err)}); build the index again") from err
        found = (table.schema.metadata or {}).get(NUM_ROWS, b"none").decode("utf-8", "replace")
        if not (table.schema.equals(COLUMNS_SCHEMA) or table.schema.equals(FIRST_SCHEMA)):
            raise CorruptArtifactError(
                f"{path}: columns {table.schema.names} of other names or types than expected; build the index again"
            )
        if found != str(num_rows):
            raise CorruptArtifactError(
                f"{path}: metadata of {found} rows, the snapshot says {num_rows}; build the index again"
            )
        return cls(path, num_rows, table, {name: row for row, name in enumerate(table["field"].to_pylist())})

    def column(self, name: str) -> Column:
        """Return the column of a field; that of a field that no row has is empty.

        Raises:
            CorruptArtifactError: its parts do not fit each other, or name a text or a row that is not there.
        """
        if name not in self.places:
            return Column(self.num_rows, pa.array([], pa.large_string()), rows_E=np.empty(0, np.uint32))
        column = self._column(name)
        if name not in self._checked:
            if what := _misfit(column):
                raise CorruptArtifactError(f"{self.path}: field '{name}' {what}; build the index again")
            self._checked.add(name)
        return column

    def _column(self, name: str) -> Column:
        row = self.table.slice(self.places[name], 1)
        parts = {part: row[part][0].values for part in row.column_names[1:]}
        texts_V = parts["texts"]
        numbers_V, times_V, instants_V = (parts.get(part) for part in ("numbers", "times", "instants"))
        return Column(
            self.num_rows,
            texts_V,
            pa.nulls(len(texts_V), pa.float64()) if numbers_V is None else numbers_V,
            texts_V if times_V is None and instants_V is None else times_V,
            next((parts[code].to_numpy() for code in CODES if parts[code] is not None), None),
            None if parts["rows"] is None else parts["rows"].to_numpy(),
            instants_V,
        )


def _misfit(column: Column) -> str:
    """Return what does not fit in a column, "" if all does."""
    codes_E, rows_E, texts = column.codes_E, column.rows_E, len(column.texts_V)
    entries = texts if codes_E is None else len(codes_E)
    times = column.times if column.instants_V is None else column.instants_V
    if len(column.numbers) != texts or len(times) != texts:
        return f"has {texts} texts, {len(column.numbers)} numbers and {len(times)} times"
    if codes_E is not None and entries and codes_E.max() > texts:
        return f"names text {codes_E.max()} of {texts}"
    if entries != (column.num_rows if rows_E is None else len(rows_E)):
        return f"has {entries} values for {column.num_rows if rows_E is None else len(rows_E)} rows"
    if rows_E is not None and entries and rows_E.max() >= column.num_rows:
        return f"names row {rows_E.max()} of {column.num_rows}"
    return ""


class ColumnsWriter:
    """Collects the metadata of a segment's passages, in row order, and writes them as columns.

    Needs 12 bytes per value, and the distinct ones of every array that is added.
    """

    def __init__(self) -> None:
        self.num_rows = 0
        self._keys = [pa.array([], pa.string()).dictionary_encode()]
        self._values = [pa.array([], pa.large_string()).dictionary_encode()]
        self._rows = [np.empty(0, np.uint32)]

    def add(self, pairs: Iterable[pa.Array]) -> None:
        """Append rows: arrays of lists of pairs, as a segment's passages hold them."""
        for lists in pairs:
            entries = lists.flatten()
            self._keys.append(entries.field("key").dictionary_encode())
            self._values.append(entries.field("value").cast(pa.large_string()).dictionary_encode())
            self._rows.append((pc.list_parent_indices(lists).to_numpy() + self.num_rows).astype(np.uint32))
            self.num_rows += len(lists)

    def columns(self) -> Iterator[tuple[str, Column]]:
        """Yield every field with its column, in the order in which the fields occur first."""
        keys, values, rows = pa.concat_arrays(self._keys), pa.concat_arrays(self._values), np.concatenate(self._rows)
        names = keys.dictionary.to_pylist()
        key_codes = keys.indices.to_numpy().astype(np.min_scalar_type(len(names)))  # numpy sorts 16 bits in linear time
        order = np.argsort(key_codes, kind="stable")
        order = order[values.indices.is_valid().to_numpy(zero_copy_only=False)[order]]
        ends = np.searchsorted(key_codes[order], np.arange(len(names) + 1))
        for name, (start, end) in zip(names, pairwise(ends), strict=True):
            chosen = order[start:end]
            yield name, _column(values.indices.take(pa.array(chosen)), values.dictionary, rows[chosen], self.num_rows)

    def write(self, path: Path) -> None:
        """Write the file."""
        schema = COLUMNS_SCHEMA.with_metadata({NUM_ROWS: str(self.num_rows).encode()})
        with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_stream(sink, schema) as writer:
            pending: list[pa.RecordBatch] = []
            num_bytes = 0
            for name, column in self.columns():
                pending.append(_record(name, column))
                num_bytes += pending[-1].nbytes
                if num_bytes >= BATCH_BYTES or len(pending) == BATCH_FIELDS:
                    writer.write_table(_table(pending))
                    pending, num_bytes = [], 0
            writer.write_table(_table(pending))


def _column(codes: pa.Array, dictionary: pa.Array, rows_E: np.ndarray, num_rows: int) -> Column:
    """Make the column of entries whose texts are ``codes`` into ``dictionary``, in the form that takes least room."""
    single = bool((rows_E[1:] > rows_E[:-1]).all())
    found = codes.dictionary_encode()
    texts_V, codes_E = dictionary.take(found.dictionary), None
    if 2 * len(texts_V) > len(codes):
        texts_V = dictionary.take(codes)
    else:
        codes_E = found.indices.to_numpy().astype(np.min_scalar_type(len(texts_V)))
    rows: np.ndarray | None = rows_E
    if single and len(rows_E) == num_rows:
        rows = None
    elif single and codes_E is not None and codes_E.itemsize * num_rows <= codes_E.nbytes + rows_E.nbytes:
        dense_N = np.full(num_rows, len(texts_V), codes_E.dtype)
        dense_N[rows_E] = codes_E
        rows, codes_E = None, dense_N
    keys_V = keys_of(texts_V)
    return Column(num_rows, texts_V, numbers_of(texts_V), keys_V, codes_E, rows, nanoseconds(keys_V))


def _record(field: str, column: Column) -> pa.RecordBatch:
    """Turn a column into a row of `COLUMNS_SCHEMA`."""
    numbers, times, codes_E = column.numbers, column.times, column.codes_E
    width = "" if codes_E is None else f"codes{8 * codes_E.itemsize}"
    parts: dict[str, pa.Array | np.ndarray | None] = {
        "texts": column.texts_V,
        "numbers": None if numbers.null_count == len(numbers) else numbers,
        "times": None if column.instants_V is not None or times.equals(column.texts_V) else times,
        "instants": column.instants_V,
        width: codes_E,
        "rows": column.rows_E,
    }
    lists = [_list_of(parts.get(part.name), part.type) for part in list(COLUMNS_SCHEMA)[1:]]
    return pa.record_batch([pa.array([field]), *lists], schema=COLUMNS_SCHEMA)


def _list_of(values: pa.Array | np.ndarray | None, kind: pa.LargeListType) -> pa.Array:
    """Return an array of one list, or of a null."""
    if values is None:
        return pa.nulls(1, kind)
    return pa.LargeListArray.from_arrays([0, len(values)], pa.array(values, kind.value_type), type=kind)


def _table(records: list[pa.RecordBatch]) -> pa.Table:
    return pa.Table.from_batches(records, COLUMNS_SCHEMA).combine_chunks()
