"""Merging. In: staged lots in the order of their sources. Out: Parquet shards without duplicates, and a quarantine."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa

from ragray.artifact import atomic_path
from ragray.config import IngestConfig
from ragray.corpus.dedup import SeenKeys, id_key
from ragray.corpus.read import Refusal, excerpt
from ragray.corpus.stage import Lot, refusal_line, staged_refusals, staged_tables
from ragray.corpus.table import PASSAGE_FOLDER, PASSAGE_SCHEMA, QUARANTINE_NAME, ShardWriter

DUPLICATE_CONTENT = "duplicate content"
DUPLICATE_ID = "duplicate id"


@dataclass(frozen=True, slots=True)
class Merged:
    """What was written: counts, what was refused by reason, and the files."""

    num_documents: int
    num_passages: int
    refused: Mapping[str, int]
    files: tuple[Path, ...]


def merge_lots(
    staging: Path, lots: Sequence[Lot], out: Path, config: IngestConfig, *, advance: Callable[[int], None]
) -> Merged:
    """Stream staged lots into shards and quarantine; ``advance`` hears of every so many passages read.

    What an earlier run left in the folder of the shards is removed.
    """
    duplicates = Duplicates(by_content=config.deduplicate)
    refused: Counter[str] = Counter()
    quarantine = out / QUARANTINE_NAME
    with (
        ShardWriter(out / PASSAGE_FOLDER, config.shard_rows) as shards,
        atomic_path(quarantine) as temporary,
        temporary.open("w", encoding="utf-8") as stream,
    ):
        for lot in lots:
            for refusal in _merge_lot(staging, lot, duplicates, shards, advance):
                refused[refusal.reason] += 1
                stream.write(refusal_line(refusal))
    for path in (out / PASSAGE_FOLDER).iterdir():
        if path not in shards.paths:
            path.unlink()
    return Merged(duplicates.num_documents, shards.num_rows, dict(refused), (*shards.paths, quarantine))


def _merge_lot(
    staging: Path, lot: Lot, duplicates: Duplicates, shards: ShardWriter, advance: Callable[[int], None]
) -> Iterator[Refusal]:
    yield from staged_refusals(staging, lot)
    for table in staged_tables(staging, lot):
        reasons = duplicates.reasons(table)
        shards.write(table.select(PASSAGE_SCHEMA.names).filter(pa.array([reason is None for reason in reasons])))
        rows = table.filter(pa.array([reason is not None for reason in reasons])).to_pylist()
        for row, reason in zip(rows, filter(None, reasons), strict=True):
            yield Refusal(row["source"], row["line"], row["document_id"], reason, excerpt(row["text"]))
        advance(len(table))


class Duplicates:
    """Finds passages whose content (if wanted) or whose id an earlier one has; the first one stays.

    A document whose id belongs to an earlier document is refused whole: its passages would be taken for that one's.
    """

    def __init__(self, *, by_content: bool) -> None:
        self.num_documents = 0
        self._by_content = by_content
        self._contents = SeenKeys()
        self._ids = SeenKeys()
        self._document: tuple[str, int] | None = None
        self._document_is_new: bool | None = None

    def reasons(self, table: pa.Table) -> list[str | None]:
        """Say for each staged passage why it is left out, None where it is not; tables come in order."""
        names = ("source", "line", "document_id", "id", "content_hash")
        return [self._reason(*row) for row in zip(*(table[name].to_pylist() for name in names), strict=True)]

    def _reason(self, source: str, line: int, document_id: str, identity: str, content: str) -> str | None:
        if self._document != (source, line):
            self._document, self._document_is_new = (source, line), None
        key = bytes.fromhex(content)
        if self._by_content and key in self._contents:
            return DUPLICATE_CONTENT
        if self._document_is_new is None:
            self._document_is_new = self._ids.add(id_key(document_id))
            self.num_documents += self._document_is_new
        if not self._document_is_new or (identity != document_id and not self._ids.add(id_key(identity))):
            return DUPLICATE_ID
        if self._by_content:
            self._contents.add(key)
        return None
