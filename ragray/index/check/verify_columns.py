"""Deep check of the metadata columns of a segment. In: its opened files. Out: every field whose column is not what the passages say.

N rows of the segment, E entries of a field.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ragray.corpus.instants import nanoseconds
from ragray.errors import CorruptArtifactError, first_line
from ragray.index.check.verify_segment import Fault, SegmentFiles
from ragray.index.store.columns import Column, ColumnsWriter, MetadataColumns, keys_of, numbers_of


def columns_faults(files: SegmentFiles) -> Iterator[Fault]:
    """Make the columns again from the passages, and compare all entries, numbers and instants with those of the file."""
    if files.columns is None or files.passages is None:
        return
    try:
        files.columns.table.validate(full=True)
    except pa.ArrowInvalid as err:
        yield Fault(first_line(err), files.columns.path)
        return
    writer = ColumnsWriter()
    writer.add(files.passages["metadata"].chunks)
    expected = dict(writer.columns())
    found = files.columns.table["field"].to_pylist()
    other = sorted(set(found) ^ set(expected))
    if other or len(found) != len(expected):
        yield Fault(
            f"names {len(found)} fields, the passages have {len(expected)}{_example(other)}", files.columns.path
        )
    for field in sorted(set(found) & set(expected)):
        if what := _difference(files.columns, field, expected[field]):
            yield Fault(f"field '{field}' {what}", files.columns.path)


def _example(fields: list[str]) -> str:
    return f"; not in both is '{fields[0]}'" if fields else ""


def _difference(columns: MetadataColumns, field: str, expected: Column) -> str:
    """Return what is wrong with a column, "" if nothing is."""
    try:
        found = columns.column(field)
    except CorruptArtifactError as err:
        return str(err).partition(f"field '{field}' ")[2].rpartition("; ")[0]
    if not (found.numbers.equals(numbers_of(found.texts_V)) and _times_fit(found)):
        return "has numbers or instants that are not those of its texts"
    row = _first_difference(found, expected)
    return f"has other values than the passages, the first in row {row}" if row >= 0 else ""


def _times_fit(column: Column) -> bool:
    """Return whether a column's instants, or its keys where it has none, are those of its texts."""
    keys_V = keys_of(column.texts_V)
    if column.instants_V is not None:
        return bool(column.instants_V.equals(nanoseconds(keys_V)))
    return bool(column.times.equals(keys_V))


def _first_difference(found: Column, expected: Column) -> int:
    """Return the first row whose entries differ, -1 if none do."""
    (rows_E, texts_E), (right_E, right_texts_E) = _entries(found), _entries(expected)
    common = min(len(rows_E), len(right_E))
    equal = pc.equal(texts_E[:common], right_texts_E[:common]).to_numpy(zero_copy_only=False)
    wrong = np.flatnonzero(~equal | (rows_E[:common] != right_E[:common]))
    first = int(wrong[0]) if len(wrong) else common
    return min((int(rows[first]) for rows in (rows_E, right_E) if first < len(rows)), default=-1)


def _entries(column: Column) -> tuple[np.ndarray, pa.Array]:
    """Return the rows and the texts of all entries of a column, (E,) each."""
    rows_E = np.arange(column.num_rows) if column.rows_E is None else column.rows_E
    if column.codes_E is None:
        return rows_E, column.texts_V
    held_E = column.codes_E < len(column.texts_V)
    return rows_E[held_E], column.texts_V.take(pa.array(column.codes_E[held_E]))
