"""Passages on disk. In: passages. Out: Parquet shards of one Arrow schema, and an open corpus that reads them back."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from ragray.artifact.files import atomic_path
from ragray.artifact.manifest import Manifest, fact, open_artifact
from ragray.corpus.dedup import content_hash
from ragray.corpus.metadata import from_pairs, pairs_of
from ragray.errors import CorruptArtifactError
from ragray.types import Passage

SCHEMA_VERSION = 1
PASSAGE_FOLDER = "passages"
QUARANTINE_NAME = "quarantine.jsonl"
ROW_GROUP_ROWS = 4096

PASSAGE_SCHEMA = pa.schema(
    [
        pa.field("id", pa.string(), nullable=False),
        pa.field("document_id", pa.string(), nullable=False),
        pa.field("title", pa.string(), nullable=False),
        pa.field("text", pa.large_string(), nullable=False),
        pa.field("content_hash", pa.string(), nullable=False),
        pa.field("metadata", pa.map_(pa.string(), pa.string()), nullable=False),
    ]
)
"""Text is large_string, so that a shard of more than 2 GB can be held as one chunk."""


def passages_to_table(passages: Sequence[Passage]) -> pa.Table:
    """Turn passages into rows of `PASSAGE_SCHEMA`, their content hashes with them."""
    columns = {
        "id": [passage.id for passage in passages],
        "document_id": [passage.document_id for passage in passages],
        "title": [passage.title for passage in passages],
        "text": [passage.text for passage in passages],
        "content_hash": [content_hash(passage.title, passage.text) for passage in passages],
        "metadata": [pairs_of(passage.metadata) for passage in passages],
    }
    return pa.table(columns, schema=PASSAGE_SCHEMA)


def passage_from_row(row: Mapping[str, Any]) -> Passage:
    """Turn one row of a passage table, as `to_pylist` gives it, into a passage."""
    return Passage(
        id=str(row["id"]),
        text=str(row["text"]),
        title=str(row["title"]),
        document_id=str(row["document_id"]),
        metadata=from_pairs(row.get("metadata") or []),
    )


def table_to_passages(table: pa.Table) -> list[Passage]:
    """Turn rows of `PASSAGE_SCHEMA` into passages."""
    return [passage_from_row(row) for row in table.to_pylist()]


class ShardWriter:
    """Writes passage tables of any size into Parquet shards of ``shard_rows`` rows, each atomically.

    Use as a context manager; ``paths`` and ``num_rows`` are whole once the block has ended. The bytes written depend on
    the rows alone, not on how they were cut into tables.
    """

    def __init__(self, folder: Path, shard_rows: int) -> None:
        self.paths: list[Path] = []
        self.num_rows = 0
        self._folder = folder
        self._shard_rows = shard_rows
        self._pending: list[pa.Table] = []
        self._num_pending = 0
        self._room = 0
        self._shard = ExitStack()
        self._writer: pq.ParquetWriter | None = None

    def __enter__(self) -> ShardWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, err: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self._write_row_groups(at_least=1)
        self._shard.__exit__(kind, err, trace)

    def write(self, table: pa.Table) -> None:
        """Append rows of `PASSAGE_SCHEMA`."""
        self.num_rows += len(table)
        self._pending.append(table)
        self._num_pending += len(table)
        self._write_row_groups(at_least=ROW_GROUP_ROWS)

    def _write_row_groups(self, *, at_least: int) -> None:
        while self._num_pending >= min(at_least, self._room or self._shard_rows):
            if not self._room:
                self._next_shard()
            rows = pa.concat_tables(self._pending)
            group = rows.slice(0, min(ROW_GROUP_ROWS, self._room))
            assert self._writer is not None
            self._writer.write_table(group.combine_chunks(), row_group_size=ROW_GROUP_ROWS)
            self._room -= len(group)
            self._pending = [rows.slice(len(group))]
            self._num_pending -= len(group)

    def _next_shard(self) -> None:
        self._shard.close()
        path = self._folder / f"part-{len(self.paths):05}.parquet"
        temporary = self._shard.enter_context(atomic_path(path))
        self._writer = self._shard.enter_context(pq.ParquetWriter(temporary, PASSAGE_SCHEMA, compression="zstd"))
        self.paths.append(path)
        self._room = self._shard_rows


@dataclass(frozen=True, slots=True)
class Corpus:
    """A finished corpus folder, opened and verified; ``shards`` are absolute paths with their rows, in order."""

    folder: Path
    manifest: Manifest
    fingerprint: str
    num_passages: int
    num_documents: int
    shards: tuple[tuple[Path, int], ...]

    @classmethod
    def open(cls, folder: Path) -> Corpus:
        """Open a folder that `ragray ingest` finished.

        Raises:
            NotAnArtifactError: it never finished.
            CorruptArtifactError: a shard is missing, or differs from the manifest; or the manifest lacks a fact.
        """
        manifest = open_artifact(folder, "corpus")
        root = folder.absolute()
        paths = [root / entry.path for entry in manifest.files if entry.path.startswith(f"{PASSAGE_FOLDER}/")]
        shards = tuple((path, int(pq.read_metadata(path).num_rows)) for path in paths)
        found, expected = sum(rows for _, rows in shards), manifest.facts.get("num_passages")
        if found != expected or manifest.facts.get("schema_version") != SCHEMA_VERSION:
            raise CorruptArtifactError(
                f"{folder}: {found} passages of schema {SCHEMA_VERSION} expected to be {expected} of "
                f"{manifest.facts.get('schema_version')} by its manifest; run: ragray ingest SOURCE... --out {folder}"
            )
        num_documents = fact(folder, manifest, "num_documents", int)
        return cls(folder, manifest, manifest.fingerprint, found, num_documents, shards)

    def iter_tables(self, columns: Sequence[str] | None = None) -> Iterator[pa.Table]:
        """Yield the passages in order as tables of bounded size, with all columns or some."""
        for path, _ in self.shards:
            with pq.ParquetFile(path) as file:
                for group in range(file.metadata.num_row_groups):
                    yield file.read_row_group(group, columns=None if columns is None else list(columns))

    def iter_passages(self) -> Iterator[Passage]:
        """Yield the passages in order."""
        for table in self.iter_tables():
            yield from table_to_passages(table)
