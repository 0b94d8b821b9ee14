"""Merging. In: staged splits in the order of their sources. Out: Parquet shards without duplicates, and a quarantine."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

import pyarrow as pa

from ragray.artifact.files import atomic_path
from ragray.config import IngestConfig
from ragray.corpus.dedup import SeenKeys, content_key, facts_key, id_key
from ragray.corpus.minhash import NearDuplicates
from ragray.corpus.read.record import Refusal, excerpt
from ragray.corpus.staging import InputSplit, refusal_line, staged_refusals, staged_tables
from ragray.corpus.table import PASSAGE_FOLDER, PASSAGE_SCHEMA, QUARANTINE_NAME, ShardWriter

DUPLICATE_CONTENT = "duplicate content"
DUPLICATE_ID = "duplicate id"
NEAR_DUPLICATE = "near duplicate"


@dataclass(frozen=True, slots=True)
class Merged:
    """What was written: counts, what was refused by reason, and the files."""

    num_documents: int
    num_passages: int
    refused: Mapping[str, int]
    files: tuple[Path, ...]


def merge_splits(
    staging: Path, splits: Sequence[InputSplit], out: Path, config: IngestConfig, *, advance: Callable[[int], None]
) -> Merged:
    """Stream staged splits into shards and quarantine; ``advance`` is called with the number of passages read since its last call.

    What an earlier run left in the folder of the shards is removed. Memory does not grow with the passages: what was
    seen stands in scratch files in ``staging``.

    Raises:
        ArtifactError: the disk is full, or a staged part is damaged.
        MissingPackageError: near duplicates are to be found and datasketch is not installed.
    """
    refused: Counter[str] = Counter()
    quarantine = out / QUARANTINE_NAME
    with (
        Duplicates(staging, config) as duplicates,
        ShardWriter(out / PASSAGE_FOLDER, config.shard_rows) as shards,
        atomic_path(quarantine) as temporary,
        temporary.open("w", encoding="utf-8") as stream,
    ):
        for split in splits:
            for refusal in _merge_split(staging, split, duplicates, shards, advance):
                refused[refusal.reason] += 1
                stream.write(refusal_line(refusal))
    for path in (out / PASSAGE_FOLDER).iterdir():
        if path not in shards.paths:
            path.unlink()
    return Merged(duplicates.num_documents, shards.num_rows, dict(refused), (*shards.paths, quarantine))


def _merge_split(
    staging: Path, split: InputSplit, duplicates: Duplicates, shards: ShardWriter, advance: Callable[[int], None]
) -> Iterator[Refusal]:
    yield from staged_refusals(staging, split)
    duplicates.next_split()
    for table in staged_tables(staging, split):
        found = duplicates.find(table)
        shards.write(table.select(PASSAGE_SCHEMA.names).filter(pa.array([one is None for one in found])))
        rows = table.filter(pa.array([one is not None for one in found])).to_pylist()
        for row, one in zip(rows, filter(None, found), strict=True):
            text = f"near {one.original}: {row['text']}" if one.original else row["text"]
            yield Refusal(row["source"], row["line"], row["document_id"], one.reason, excerpt(text))
        advance(len(table))


@dataclass(frozen=True, slots=True)
class Duplicate:
    """Why a passage is left out, and which one it nearly repeats if that is the reason."""

    reason: str
    original: str = ""


class Duplicates:
    """Finds passages whose content (if wanted) or whose id an earlier one has, or that nearly repeat one; the first one stays.

    Only passages of equal metadata are compared, the fields of ``config.duplicates_ignore`` aside: a text that two documents
    hold under other metadata is found, and deleted, under both.

    A document whose id belongs to an earlier document is refused whole: its passages would be taken for that one's. Use
    as a context manager; what was seen stands in files in ``scratch`` that end with it.
    """

    def __init__(self, scratch: Path, config: IngestConfig) -> None:
        self.num_documents = 0
        self._by_content = config.deduplicate
        self._ignored = frozenset(config.duplicates_ignore)
        self._document_number: int | None = None
        self._document_is_new: bool | None = None
        self._open = contextlib.ExitStack()
        self._contents = self._open.enter_context(SeenKeys(scratch / "contents.sqlite"))
        self._ids = self._open.enter_context(SeenKeys(scratch / "ids.sqlite"))
        self._near: NearDuplicates | None = None
        if config.near_duplicates:
            near = NearDuplicates(scratch / "near.sqlite", config.near_duplicates)
            self._near = self._open.enter_context(near)

    def __enter__(self) -> Duplicates:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, err: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._open.__exit__(kind, err, trace)

    def next_split(self) -> None:
        """Begin the tables of another split, whose documents are numbered from 0 again."""
        self._document_number = None

    def find(self, table: pa.Table) -> list[Duplicate | None]:
        """Return for each staged passage why it is left out, None where it is kept; tables come in order."""
        names = ("document_number", "document_id", "id", "content_hash", "signature", "metadata")
        return [self._find(*row) for row in zip(*(table[name].to_pylist() for name in names), strict=True)]

    def _find(
        self,
        number: int,
        document_id: str,
        identity: str,
        content: str,
        signature: bytes | None,
        metadata: list[tuple[str, str]],
    ) -> Duplicate | None:
        if self._document_number != number:
            self._document_number, self._document_is_new = number, None
        facts = facts_key(metadata, self._ignored)
        key = content_key(content, facts)
        if self._by_content and key in self._contents:
            return Duplicate(DUPLICATE_CONTENT)
        if self._near and signature and (original := self._near.find(signature, facts)):
            return Duplicate(NEAR_DUPLICATE, original)
        if self._document_is_new is None:
            self._document_is_new = self._ids.add(id_key(document_id))
            self.num_documents += self._document_is_new
        if not self._document_is_new or (identity != document_id and not self._ids.add(id_key(identity))):
            return Duplicate(DUPLICATE_ID)
        if self._by_content:
            self._contents.add_new(key)
        if self._near and signature:
            self._near.add(signature, identity, facts)
        return None
