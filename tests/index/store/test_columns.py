"""Columns hold the metadata of every row, in the form that takes least room; a file that does not fit its segment is refused."""

import json
import random
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from ragray.corpus.instants import time_keys
from ragray.corpus.metadata import from_pairs
from ragray.corpus.table import passages_to_table
from ragray.errors import CorruptArtifactError
from ragray.index.store.columns import COLUMNS_FILE, FIRST_SCHEMA, Column, ColumnsWriter, MetadataColumns, numbers_of
from ragray.index.store.segment import SEGMENT_SCHEMA
from ragray.types import Metadata, Passage


def pairs(rows: list[Any], sizes: list[int]) -> list[pa.Array]:
    """Metadata of rows as a segment holds it, in arrays of some sizes, the last of what is left."""
    passages = [Passage(f"p{number}", "t", metadata=metadata) for number, metadata in enumerate(rows)]
    table = passages_to_table(passages).cast(SEGMENT_SCHEMA)["metadata"].combine_chunks()
    bounds = [0, *np.cumsum(sizes).tolist(), len(rows)]
    return [table[start:stop] for start, stop in pairwise(bounds)]


def write(path: Path, rows: list[Any], sizes: list[int] | None = None) -> Path:
    writer = ColumnsWriter()
    writer.add(pairs(rows, sizes or []))
    writer.write(path)
    return path


def reopened(path: Path, rows: list[Any], sizes: list[int] | None = None) -> MetadataColumns:
    return MetadataColumns.open(write(path / COLUMNS_FILE, rows, sizes), len(rows))


def values_of(column: Column) -> list[tuple[int, str]]:
    """Row and text of every entry, read one by one."""
    codes = range(len(column.texts_V)) if column.codes_E is None else column.codes_E.tolist()
    rows = range(column.num_rows) if column.rows_E is None else column.rows_E.tolist()
    texts = [*column.texts_V.to_pylist(), None]
    return [(row, texts[code]) for row, code in zip(rows, codes, strict=True) if texts[code] is not None]


def random_metadata(seed: int, count: int) -> list[Metadata]:
    draw = random.Random(seed)
    found: list[Metadata] = []
    for number in range(count):
        fields: dict[str, str | tuple[str, ...]] = {"url": f"u/{number}"}
        if draw.random() < 0.9:
            fields["lang"] = draw.choice(["en", "zh", "中文", ""])
        if draw.random() < 0.5:
            fields["tags"] = tuple(draw.sample(["a", "b", "c", "d"], draw.randint(2, 3)))
        if draw.random() < 0.02:
            fields["rare"] = draw.choice("xy")
        found.append(dict(draw.sample([*fields.items()], len(fields))))
    return found


def test_every_value_of_every_row_comes_back_in_order(tmp_path: Path) -> None:
    rows = random_metadata(0, 500)
    columns = reopened(tmp_path, rows, [7, 100, 0, 300])
    assert set(columns.places) == {"url", "lang", "tags", "rare"}
    for field in columns.places:
        expected = [
            (number, text)
            for number, metadata in enumerate(rows)
            for text in ([metadata[field]] if isinstance(metadata.get(field, ()), str) else metadata.get(field, ()))
        ]
        assert values_of(columns.column(field)) == expected


def test_the_bytes_do_not_depend_on_how_the_rows_were_cut(tmp_path: Path) -> None:
    rows = random_metadata(1, 300)
    whole, cut = write(tmp_path / "whole", rows), write(tmp_path / "cut", rows, [1, 99, 0, 50, 50])
    assert whole.read_bytes() == cut.read_bytes()


FORMS: dict[str, tuple[list[Any], np.dtype[Any] | None, bool]] = {
    "few values, one in each row": (["en", "de"] * 50, np.dtype(np.uint8), False),
    "few values, one in most rows": (["en", "de", "de", None] * 25, np.dtype(np.uint8), False),
    "few values, one in few rows": ((["en"] + [None] * 19) * 5, np.dtype(np.uint8), True),
    "several values in a row": ([("a", "b"), "a"] * 50, np.dtype(np.uint8), True),
    "255 values": ([str(n % 255) for n in range(700)], np.dtype(np.uint8), False),
    "256 values": ([str(n % 256) for n in range(700)], np.dtype(np.uint16), False),
    "as many values as rows": ([str(n) for n in range(100)], None, False),
    "as many values as rows that have one": ([str(n) if n % 2 else None for n in range(100)], None, True),
}
"""Values of a field; the type of its codes, if it has any; whether it says which rows have them."""


@pytest.mark.parametrize("form", FORMS)
def test_a_column_takes_the_form_that_needs_least_room(tmp_path: Path, form: str) -> None:
    values, kind, has_rows = FORMS[form]
    column = reopened(tmp_path, [{} if value is None else {"x": value} for value in values]).column("x")
    assert (None if column.codes_E is None else column.codes_E.dtype) == kind
    assert (column.rows_E is not None) == has_rows
    assert [row for row, _ in values_of(column)] == [
        row
        for row, value in enumerate(values)
        for _ in range(0 if value is None else 1 if isinstance(value, str) else 2)
    ]


def test_numbers_and_instants_are_parsed_once(tmp_path: Path) -> None:
    texts = ["7", " -3.5 ", "+2019.", "1e5", "٣", "1234567890123456", "2024-05-01T09:00:00+09:00", "2024-05-01", "x"]
    column = reopened(tmp_path, [{"x": text} for text in texts * 3]).column("x")
    assert column.numbers_V is not None and column.times_V is not None
    assert column.numbers_V.to_pylist() == [7, -3.5, 2019, *[None] * 6]
    assert column.times_V.to_pylist() == [*texts[:6], "2024-05-01", "2024-05-01", "x"]
    assert column.numbers_V.equals(numbers_of(column.texts_V))


def test_where_all_texts_are_instants_their_nanoseconds_stand_for_their_keys(tmp_path: Path) -> None:
    texts = ["1970-01-01", "1969-12-31T23:59:59.5Z", "2024-05-01T09:00:00+09:00", "1970-01-01T00:00:00.000000001Z"]
    column = reopened(tmp_path, [{"x": text} for text in texts * 3]).column("x")
    assert column.instants_V is not None and column.times_V is None
    assert column.instants_V.to_pylist() == [0, -500_000_000, 1_714_521_600 * 10**9, 1]
    assert column.times.equals(time_keys(column.texts_V))


@pytest.mark.parametrize("odd", ["draft", "2024", "2024-02-30", "2024-05-01T25:00:00", "1699-12-31", "2200-01-01", ""])
def test_beside_a_text_that_is_no_instant_or_one_of_another_age_keys_are_compared(tmp_path: Path, odd: str) -> None:
    column = reopened(tmp_path, [{"x": text} for text in ["2024-05-01", odd] * 3]).column("x")
    assert column.instants_V is None
    assert column.times.to_pylist() == ["2024-05-01", odd]


def test_a_file_that_was_written_before_there_were_instants_still_opens(tmp_path: Path) -> None:
    path = write(tmp_path / COLUMNS_FILE, [{"x": "2024-05-01", "y": str(n)} for n in range(10)])
    table = pa.ipc.open_stream(path.read_bytes()).read_all().drop_columns(["instants"])
    assert table.schema.equals(FIRST_SCHEMA)
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    column = MetadataColumns.open(path, 10).column("x")
    assert (column.instants_V, column.times.to_pylist(), values_of(column)[9]) == (
        None,
        ["2024-05-01"],
        (9, "2024-05-01"),
    )


def test_a_field_without_values_is_known_and_one_that_no_row_has_is_empty(tmp_path: Path) -> None:
    writer = ColumnsWriter()
    writer.add([pa.array([[{"key": "x", "value": None}], []], SEGMENT_SCHEMA.field("metadata").type)])
    writer.write(tmp_path / COLUMNS_FILE)
    columns = MetadataColumns.open(tmp_path / COLUMNS_FILE, 2)
    assert [*columns.places] == ["x"]
    for field in ("x", "y"):
        assert columns.column(field).mask(pa.array([], pa.bool_())).tolist() == [False, False]


def test_rows_without_metadata_have_no_columns(tmp_path: Path) -> None:
    assert reopened(tmp_path, [{}, {}]).places == {}
    assert reopened(tmp_path, []).places == {}


def test_thousands_of_fields_are_written_a_batch_at_a_time(tmp_path: Path) -> None:
    rows = [{f"field{number}": "x", "n": str(number)} for number in range(600)]
    columns = reopened(tmp_path, rows)
    assert len(columns.places) == 601 and columns.table["field"].num_chunks == 3
    assert values_of(columns.column("field599")) == [(599, "x")]


def test_metadata_read_back_from_columns_is_that_of_the_passages(tmp_path: Path) -> None:
    rows = random_metadata(2, 60)
    columns = reopened(tmp_path, rows)
    entries = [(row, field, text) for field in columns.places for row, text in values_of(columns.column(field))]
    found = [from_pairs([(field, text) for at, field, text in entries if at == row]) for row in range(60)]
    assert json.dumps(found, sort_keys=True) == json.dumps(rows, sort_keys=True)


def of_other_rows(path: Path) -> None:
    write(path, [{"x": "a"}] * 9)


def cut_in_half(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def of_other_columns(path: Path) -> None:
    table = pa.ipc.open_stream(path.read_bytes()).read_all().drop_columns(["rows"])
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)


def emptied(path: Path) -> None:
    path.write_bytes(b"")


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (of_other_rows, "metadata of 9 rows, the snapshot says 10; build the index again"),
        (cut_in_half, "cannot be read"),
        (emptied, "cannot be read"),
        (of_other_columns, "of other names or types than expected"),
    ],
)
def test_a_file_that_is_not_of_this_segment_is_refused(
    tmp_path: Path, damage: Callable[[Path], None], message: str
) -> None:
    path = write(tmp_path / COLUMNS_FILE, [{"x": "a", "y": str(n)} for n in range(10)])
    damage(path)
    with pytest.raises(CorruptArtifactError, match=message):
        MetadataColumns.open(path, 10)


@pytest.mark.parametrize(
    ("part", "value", "message"),
    [
        ("codes8", [[0, 1, 3, 0]], "field 'x' names text 3 of 2"),
        ("codes8", [[0, 1, 1]], "field 'x' has 3 values for 4 rows"),
        ("codes8", [None], "field 'x' has 2 values for 4 rows"),
        ("rows", [[0, 1, 2, 4]], "field 'x' names row 4 of 4"),
        ("rows", [[0, 1]], "field 'x' has 4 values for 2 rows"),
        ("numbers", [[1.0]], "field 'x' has 2 texts, 1 numbers and 2 times"),
        ("times", [["a"]], "field 'x' has 2 texts, 2 numbers and 1 times"),
    ],
)
def test_a_column_whose_parts_do_not_fit_is_refused_before_it_is_used(
    tmp_path: Path, part: str, value: list[Any], message: str
) -> None:
    columns = reopened(tmp_path, [{"x": "a"}, {"x": "b"}] * 2)
    place, field = columns.table.schema.get_field_index(part), columns.table.schema.field(part)
    planted = columns.table.set_column(place, field, pa.array(value, field.type))
    with pytest.raises(CorruptArtifactError, match=message):
        MetadataColumns(columns.path, 4, planted, columns.places).column("x")
