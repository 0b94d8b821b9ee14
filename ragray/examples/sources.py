"""Where examples come from. In: a path, a URI, a table, an iterable. Out: raw records, each with its place for messages."""

from __future__ import annotations

import json
import logging
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from ragray.config import IngestConfig
from ragray.corpus.read.columns import arrow_rows, parquet_rows
from ragray.corpus.read.documents import naming_damage
from ragray.corpus.read.find import find_sources
from ragray.corpus.read.json_trees import DATA, PARAGRAPHS, json_rows
from ragray.corpus.read.lines import csv_rows, decompressed, jsonl_rows
from ragray.corpus.read.record import Refusal, Row, line_limit
from ragray.corpus.read.source import STREAMED_FORMATS, Source, is_uri, local_path
from ragray.errors import InputError
from ragray.examples.fields import Roles, require_columns
from ragray.examples.parallel import is_parallel, parallel_rows
from ragray.types import Example

ExampleSource = str | os.PathLike[str] | Iterable[object]
"""A file, a folder, a glob or a URI; or a pandas DataFrame, a `datasets.Dataset`, mappings, or `Example`s."""

FORMATS = (*STREAMED_FORMATS, ".parquet", ".arrow")
MAX_CHARS = IngestConfig().max_chars
"""Of one record; a longer one is no example."""
QUESTIONS = "qas"
SPLITS_FILE = "dataset_dict.json"

logger = logging.getLogger("ragray")


@dataclass(frozen=True, slots=True)
class RawExample:
    """A record: its place and its fields, or why it could not be read.

    ``in_cells``: the fields are table cells, as in CSV or a DataFrame, where lists are written as text and missing values are empty.
    ``is_example``: it was an `Example`, whose question needs no template.
    """

    place: str
    fields: Mapping[str, object]
    in_cells: bool = False
    damage: str = ""
    is_example: bool = False


def raw_examples(source: ExampleSource, roles: Roles) -> Iterator[RawExample]:
    """Yield every record of a source.

    Raises:
        InputError: nothing is there, it holds no records, or damage makes the rest unreadable.
    """
    if isinstance(source, str | os.PathLike):
        yield from _of_files(os.fspath(source), roles)
    elif isinstance(source, Mapping):
        raise InputError(
            f"examples: is a {type(source).__name__} of {', '.join(map(str, source))}; give one split of a dataset, "
            "a DataFrame, or a list of records"
        )
    elif (pandas := sys.modules.get("pandas")) and isinstance(source, pandas.DataFrame):
        yield from _of_frame(source, pandas, roles)
    elif isinstance(source, Iterable):
        yield from _of_objects(source, roles)
    else:
        raise InputError(f"examples: is a {type(source).__name__}, expected a path, a DataFrame or a list of records")


# From Python.


def _of_frame(frame: Any, pandas: Any, roles: Roles) -> Iterator[RawExample]:
    names = [str(name) for name in frame.columns]
    require_columns("examples", names, roles)
    for number, values in enumerate(frame.itertuples(index=False, name=None)):
        fields = {
            name: None if pandas.api.types.is_scalar(value) and pandas.isna(value) else _plain(value)
            for name, value in zip(names, values, strict=True)
        }
        yield RawExample(f"row {number}", fields, in_cells=True)


def _of_objects(objects: Iterable[object], roles: Roles) -> Iterator[RawExample]:
    for number, item in enumerate(objects):
        place = f"row {number}"
        if isinstance(item, Example):
            values = (item.id, item.question, list(item.answers), list(item.gold_ids))
            fields = {role.name: value for role, value in zip(roles.all(), values, strict=True)}
            yield RawExample(place, fields, is_example=True)
        elif isinstance(item, Mapping):
            yield RawExample(place, {str(name): _plain(value) for name, value in item.items()})
        else:
            kind = type(item).__name__
            raise InputError(f"{place}: is a {kind}, expected a mapping with question and answers, or an Example")


def _plain(value: object) -> object:
    """Turn NumPy arrays and scalars, at any depth, into Python lists and scalars."""
    if isinstance(value, Mapping):
        return {name: _plain(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    to_list: Callable[[], object] | None = getattr(value, "tolist", None)
    return _plain(to_list()) if to_list else value


# From files.


def _of_files(given: str, roles: Roles) -> Iterator[RawExample]:
    if not given:
        raise InputError("examples: the path is empty; give a file, a folder, a glob or a URI")
    if is_parallel(given):
        yield from (RawExample(place, fields) for place, fields in parallel_rows(given))
        return
    found = find_sources([given])
    _require_one_split(given)
    sources = [source for source in found if source.format in FORMATS]
    if not sources:
        raise InputError(
            f"{found[0].label}: a {found[0].format} file holds no examples; convert it to one of {', '.join(FORMATS)}"
        )
    if len(sources) > 1:
        names = [source.name for source in sources[:5]] + ["..."] * (len(sources) > 5)
        logger.info("examples: %d files of %s are read together: %s", len(sources), given, ", ".join(names))
    for source in sources:
        is_empty = True
        with naming_damage(source):
            for record in _of_file(source, roles):
                is_empty = False
                yield record
        if is_empty:
            raise InputError(
                f'{source.label}: is empty; expected records such as {{"id": "1", "question": "...", "answers": ["..."]}}'
            )


def _require_one_split(given: str) -> None:
    """Raise where a folder is a `datasets.DatasetDict`: training on its test split as well would go unnoticed."""
    base = given.rstrip("/") if is_uri(given) else str(local_path(given).absolute())
    description = Source(f"{base}/{SPLITS_FILE}", SPLITS_FILE)
    if "::" in given or "*" in given or Source(base, "").suffix or not description.exists():
        return
    with naming_damage(description), description.open() as stream:
        splits = [str(name) for name in json.load(stream).get("splits", [])]
    if len(splits) > 1:
        raise InputError(f"{given}: holds the splits {', '.join(splits)}; name one, for instance {given}/{splits[0]}")


def _of_file(source: Source, roles: Roles) -> Iterator[RawExample]:
    if source.format == ".json" and not _holds_lines(source):
        yield from _of_tree(source)
        return
    columns: list[str] = []

    def check(names: Sequence[str]) -> None:
        columns.extend(names)
        require_columns(source.label, names, roles)

    def wanted(column: pa.Field) -> bool:
        """Return whether a column must be read. Other nested columns may be large; they are read only to list the fields in an error."""
        return column.name in roles.names() or not pa.types.is_nested(column.type) or not roles.are_in(columns)

    if source.format == ".parquet":
        rows = parquet_rows(source, check, wanted)
    elif source.format == ".arrow":
        rows = arrow_rows(source, check, wanted)
    elif source.format in (".csv", ".tsv"):
        rows = csv_rows(source, MAX_CHARS, check)
    else:
        rows = jsonl_rows(source, MAX_CHARS)
    in_cells = source.format in (".csv", ".tsv")
    separator = ": row " if source.format in (".parquet", ".arrow") else ":"
    for row in rows:
        place = f"{source.label}{separator}{row.line}"
        if isinstance(row, Refusal):
            yield RawExample(place, {}, damage=row.reason)
        else:
            yield RawExample(place, row.fields, in_cells)


def _holds_lines(source: Source) -> bool:
    """Return whether a .json file holds JSON lines, as `datasets` writes them: whether its first line is a record."""
    with decompressed(source) as stream:
        line = stream.readline(line_limit(MAX_CHARS)).removeprefix(b"\xef\xbb\xbf")
    try:
        first = json.loads(line)
    except (ValueError, RecursionError):
        return False
    return isinstance(first, dict) and not isinstance(first.get(DATA), list)


def _of_tree(source: Source) -> Iterator[RawExample]:
    """Yield the records of a list, or the questions of SQuAD."""
    for number, row in enumerate(json_rows(source, MAX_CHARS)):
        place = f"{source.label}:{row.line} at "
        if isinstance(row, Refusal):
            yield RawExample(f"{place}[{number}]", {}, damage=row.reason)
        elif isinstance(row.fields.get(PARAGRAPHS), list):
            yield from _questions(row, f"{place}{DATA}[{number}]")
        else:
            yield RawExample(f"{place}[{number}]", row.fields)


def _questions(article: Row, place: str) -> Iterator[RawExample]:
    """Yield the questions of an article; an impossible question has the empty text as its answer, as SQuAD scores it."""
    for at, paragraph in _objects(article.fields, PARAGRAPHS, place):
        for where, question in _objects(paragraph, QUESTIONS, at):
            fields = question
            if question.get("is_impossible") and not question.get("answers"):
                fields = {**question, "answers": [""]}
            yield RawExample(where, fields)


def _objects(parent: Mapping[str, object], name: str, place: str) -> Iterator[tuple[str, Mapping[str, object]]]:
    """Yield the objects of a SQuAD list, each with its place."""
    children = parent.get(name)
    if not isinstance(children, Sequence) or not all(isinstance(child, dict) for child in children):
        raise InputError(f"{place}: field '{name}' must be a list of objects, as in SQuAD; mend the file")
    yield from ((f"{place}.{name}[{number}]", child) for number, child in enumerate(children))
