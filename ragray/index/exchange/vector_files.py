"""Vectors and texts made elsewhere. In: Parquet, npy or jsonl files. Out: their rows in order, a bounded number in memory at a time.

Every error names the file and the row, counted from 0; blank lines of jsonl are no rows. B rows of a batch, D dim.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from ragray.artifact.files import ARRAY_ERRORS
from ragray.corpus.metadata import kept_metadata
from ragray.errors import InputError, first_line
from ragray.text.checks import require_utf8
from ragray.types import Passage

BATCH_ROWS = 2048


@dataclass(frozen=True, slots=True)
class Columns:
    """Which columns hold what; title, `document_id` and `metadata` may be missing."""

    id: str = "id"
    text: str = "text"
    embedding: str = "embedding"
    title: str = "title"


@dataclass(frozen=True, slots=True)
class VectorBatch:
    """Neighbouring vectors of one file, its ``first`` row among them; ``ids`` where the file has any."""

    path: Path
    first: int
    vectors_BD: np.ndarray
    ids: list[str] | None

    def at(self, row: int) -> str:
        """Return the file and the row number there of a row of the batch."""
        return f"{self.path}: row {self.first + row}"

    def slice(self, start: int, stop: int | None) -> VectorBatch:
        """Return some rows of the batch."""
        ids = None if self.ids is None else self.ids[start:stop]
        return VectorBatch(self.path, self.first + start, self.vectors_BD[start:stop], ids)


@dataclass(frozen=True, slots=True)
class PassageBatch:
    """Neighbouring passages of one file, its ``first`` row among them."""

    path: Path
    first: int
    passages: list[Passage]


def find_files(source: Path, kinds: tuple[str, ...], without: tuple[Path, ...] = ()) -> list[Path]:
    """Return a file, or those of a folder in the order of their names, all of one of the ``kinds`` (suffixes).

    What lies in the folders ``without`` is left out.

    Raises:
        InputError: there are none, or of several kinds.
    """
    paths = [source] if source.is_file() else sorted(path for path in source.rglob("*") if path.suffix in kinds)
    left_out = {folder.resolve() for folder in without}
    paths = [path for path in paths if left_out.isdisjoint(path.resolve().parents)]
    if not paths or {path.suffix for path in paths} - {*kinds}:
        raise InputError(f"{source}: no {' or '.join(kinds)} file here; name a file, or a folder of them")
    if len(found := {path.suffix for path in paths}) > 1:
        raise InputError(f"{source}: files of several kinds ({', '.join(sorted(found))}); name a folder of one kind")
    return paths


def count_rows(path: Path) -> int:
    """Return the rows of a Parquet or npy file without reading them."""
    return len(_open_npy(path)) if path.suffix == ".npy" else int(_open_parquet(path).metadata.num_rows)


def has_column(path: Path, name: str) -> bool:
    """Return whether a file is Parquet with a column of this name."""
    return path.suffix == ".parquet" and name in _open_parquet(path).schema_arrow.names


def read_vectors(paths: list[Path], columns: Columns) -> Iterator[VectorBatch]:
    """Yield all vectors in order, float32 in batches of at most `BATCH_ROWS` rows.

    Raises:
        InputError: a file holds no vectors, or some of another length than the first; a vector is missing.
    """
    dim = 0
    for path in paths:
        for batch in _npy_batches(path) if path.suffix == ".npy" else _parquet_batches(path, columns):
            dim = dim or batch.vectors_BD.shape[1]
            if batch.vectors_BD.shape[1] != dim:
                raise InputError(
                    f"{batch.at(0)}: a vector of {batch.vectors_BD.shape[1]} numbers, those before have {dim}"
                )
            yield batch


def read_texts(paths: list[Path], columns: Columns) -> Iterator[PassageBatch]:
    """Yield all passages in order, in batches of at most `BATCH_ROWS` rows.

    Raises:
        InputError: a line or column cannot be read, or an id or text is missing.
    """
    for path in paths:
        rows = enumerate(_json_rows(path) if path.suffix == ".jsonl" else _parquet_rows(path, columns))
        first = 0
        while passages := [_passage(row, columns, f"{path}: row {number}") for number, row in islice(rows, BATCH_ROWS)]:
            yield PassageBatch(path, first, passages)
            first += len(passages)


def _open_npy(path: Path) -> np.ndarray:
    try:
        array: np.ndarray = np.load(path, mmap_mode="r", allow_pickle=False)
    except ARRAY_ERRORS as err:
        raise InputError(f"{path}: cannot be read as an array ({first_line(err)}); write it with numpy.save") from err
    if array.ndim != 2 or array.dtype.kind != "f":
        raise InputError(f"{path}: {array.dtype} of shape {array.shape}, expected rows of floating-point vectors")
    return array


def _npy_batches(path: Path) -> Iterator[VectorBatch]:
    array = _open_npy(path)
    for start in range(0, len(array), BATCH_ROWS):
        yield VectorBatch(path, start, array[start : start + BATCH_ROWS].astype(np.float32), None)


def _open_parquet(path: Path) -> pq.ParquetFile:
    try:
        return pq.ParquetFile(path)
    except (OSError, ValueError) as err:
        raise InputError(f"{path}: cannot be read as Parquet ({first_line(err)})") from err


def _record_batches(path: Path, names: list[str], required: set[str]) -> Iterator[tuple[int, pa.RecordBatch]]:
    """Yield the first row and the columns of batches of a Parquet file; columns that it lacks are left out."""
    with _open_parquet(path) as file:
        there = file.schema_arrow.names
        if missing := required - {*there}:
            raise InputError(f"{path}: has no column {sorted(missing)[0]!r}; it has: {', '.join(there)}")
        first = 0
        try:
            for batch in file.iter_batches(BATCH_ROWS, columns=[name for name in names if name in there]):
                yield first, batch
                first += len(batch)
        except (OSError, ValueError) as err:
            raise InputError(f"{path}: cannot be read beyond row {first} ({first_line(err)})") from err


def _parquet_batches(path: Path, columns: Columns) -> Iterator[VectorBatch]:
    for first, batch in _record_batches(path, [columns.id, columns.embedding], {columns.embedding}):
        if not len(batch):
            continue
        ids = [str(value) for value in batch[columns.id].to_pylist()] if columns.id in batch.schema.names else None
        yield VectorBatch(path, first, _matrix(batch[columns.embedding], f"{path}: ", first, columns.embedding), ids)


def _matrix(column: pa.Array, where: str, first: int, name: str) -> np.ndarray:
    """Turn a list column into (B, D) float32."""
    kind = column.type
    is_list = pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)
    if not is_list or not pa.types.is_floating(kind.value_type):
        raise InputError(f"{where}column {name!r} holds {kind}, expected lists of float16, float32 or float64")
    if column.null_count:
        raise InputError(f"{where}row {first + column.is_null().index(True).as_py()}: column {name!r} is empty")
    values = column.flatten()
    if pa.types.is_fixed_size_list(kind):
        lengths = np.full(len(column), kind.list_size)
    else:
        lengths = column.value_lengths().to_numpy(zero_copy_only=False)
    other = np.flatnonzero(lengths != lengths[0])
    if len(other) or not lengths[0]:
        row = int(other[0]) if len(other) else 0
        raise InputError(
            f"{where}row {first + row}: a vector of {lengths[row]} numbers, those before have {lengths[0]}"
        )
    matrix: np.ndarray = values.to_numpy(zero_copy_only=False).reshape(len(column), -1).astype(np.float32)
    return matrix


def _parquet_rows(path: Path, columns: Columns) -> Iterator[Mapping[str, object]]:
    names = [columns.id, columns.text, columns.title, "document_id", "metadata"]
    for _, batch in _record_batches(path, names, {columns.id, columns.text}):
        yield from batch.to_pylist()


def _json_rows(path: Path) -> Iterator[Mapping[str, object]]:
    with path.open("rb") as stream:
        for number, line in enumerate(filter(bytes.strip, stream)):
            try:
                row = json.loads(line)
            except (ValueError, RecursionError) as err:
                raise InputError(f"{path}: row {number}: is not JSON ({first_line(err)})") from err
            if not isinstance(row, dict):
                raise InputError(f"{path}: row {number}: expected an object with id and text")
            yield row


def _passage(row: Mapping[str, object], columns: Columns, where: str) -> Passage:
    for name in (columns.id, columns.text):
        if row.get(name) is None:
            raise InputError(f"{where}: no {name!r}; every row needs an id and a text")
    identity, metadata = str(row[columns.id]), row.get("metadata") or {}
    entries = metadata if isinstance(metadata, list) else []
    pairs = list(metadata.items()) if isinstance(metadata, dict) else [_pair(entry, where) for entry in entries]
    for text in (text for pair in pairs for text in pair if isinstance(text, str)):
        require_utf8(text, f"{where}: 'metadata'")
    known, unkept = kept_metadata((str(key), value) for key, value in pairs)
    if unkept:
        raise InputError(f"{where}: 'metadata' cannot hold {unkept[0]}; leave it out")
    passage = Passage(
        id=identity,
        text=str(row[columns.text]),
        title=str(row.get(columns.title) or ""),
        document_id=str(row.get("document_id") or identity),
        metadata=known,
    )
    fields = [(columns.id, passage.id), (columns.text, passage.text), (columns.title, passage.title)]
    for name, text in (*fields, ("document_id", passage.document_id)):
        require_utf8(text, f"{where}: {name!r}")
    return passage


def _pair(entry: object, where: str) -> tuple[object, object]:
    """Read an entry of a map column, or of a list of structs of key and value."""
    if isinstance(entry, dict):
        return entry.get("key"), entry.get("value")
    if not isinstance(entry, tuple):
        raise InputError(f"{where}: 'metadata' must be an object of keys and values (found a list with {entry!r:.40})")
    return entry[0], entry[1]
