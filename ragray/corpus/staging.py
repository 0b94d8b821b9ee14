"""Staging. In: source files. Out: a folder of passages and refusals, named by content, whole with its `done.json`."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from ragray.artifact.digest import fingerprint
from ragray.artifact.files import atomic_path, write_json
from ragray.config import Config, IngestConfig
from ragray.corpus.chunk import split_document
from ragray.corpus.clean import clean_line, refuse_reason
from ragray.corpus.minhash import MinHasher
from ragray.corpus.read.documents import read_source
from ragray.corpus.read.record import Record, Refusal, excerpt, refusal
from ragray.corpus.read.source import ONE_DOCUMENT_FORMATS, Source
from ragray.corpus.table import PASSAGE_SCHEMA, SCHEMA_VERSION, passages_to_table
from ragray.corpus.tokens import Tokenizer, load_tokenizer
from ragray.errors import CorruptArtifactError, InputError, MissingPackageError, first_line
from ragray.jsontext import to_json
from ragray.text.repair import clean_text
from ragray.types import Passage

DONE_NAME = "done.json"
REFUSED_NAME = "refused.jsonl"
FILE_ROWS = 4096
FILE_CHARS = 16 << 20
SPLIT_FILES = 256
SPLIT_BYTES = 8 << 20
READER_VERSION = 5
"""Counted up whenever the same source yields other passages than before: corpora of older versions are then made again."""
WHOLE_FILE = 0
"""The line of a refusal of a whole file."""
STAGED_SCHEMA = pa.schema(
    [
        *PASSAGE_SCHEMA,
        pa.field("source", pa.string()),
        pa.field("line", pa.int64()),
        pa.field("document_number", pa.int64()),
        pa.field("signature", pa.binary()),
    ]
)
"""Documents are numbered within a split, as many may stand on one line. Without a search for near duplicates the signatures are null."""


@dataclass(frozen=True, slots=True)
class InputSplit:
    """The unit of work of `ingest`: one file, a byte range of one, or a number of small files of one document each."""

    key: str
    sources: tuple[Source, ...]
    checksums: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Staged:
    """What a staged split holds: passages, what was refused by reason, and records by what of them is no metadata."""

    num_passages: int
    refused: Mapping[str, int]
    unkept: Mapping[str, int]


def plan_splits(
    sources: Sequence[Source], checksums: Sequence[str], config: IngestConfig, tokenizer: str
) -> list[InputSplit]:
    """Cut sources into splits, in their order; a split's key changes with whatever changes its passages."""
    ignored = {"num_workers", "shard_rows", "deduplicate", "max_damaged", "near_duplicates", "duplicates_ignore"}
    asked = config.model_dump(mode="json", exclude=ignored)
    settings = [asked, bool(config.near_duplicates), tokenizer, SCHEMA_VERSION, READER_VERSION]
    splits: list[InputSplit] = []
    for group in _groups(list(zip(sources, checksums, strict=True))):
        content = [[source.label, source.name, checksum, _lines_before(source)] for source, checksum in group]
        files, sums = zip(*group, strict=True)
        splits.append(InputSplit(fingerprint([content, settings]), files, sums))
    return splits


def _lines_before(source: Source) -> int:
    return source.byte_range.lines_before if source.byte_range else 0


def _groups(files: Sequence[tuple[Source, str]]) -> Iterator[list[tuple[Source, str]]]:
    group: list[tuple[Source, str]] = []
    num_bytes = 0
    for source, checksum in files:
        size = source.num_bytes() if source.format in ONE_DOCUMENT_FORMATS else SPLIT_BYTES
        if group and (len(group) == SPLIT_FILES or num_bytes + size > SPLIT_BYTES):
            yield group
            group, num_bytes = [], 0
        group.append((source, checksum))
        num_bytes += size
    if group:
        yield group


def staged(folder: Path, split: InputSplit) -> Staged | None:
    """Return what a split's folder holds; None where it was never finished or is damaged, and the split has to be staged again."""
    try:
        done = Staged(**json.loads((folder / split.key / DONE_NAME).read_text(encoding="utf-8")))
        num_passages = sum(pq.read_metadata(path).num_rows for path in _passage_files(folder, split))
        num_refused = sum(1 for _ in staged_refusals(folder, split))
        is_whole = (num_passages, num_refused) == (done.num_passages, sum(done.refused.values()))
    except (OSError, ValueError, TypeError, AttributeError):
        return None
    return done if is_whole else None


def staged_tables(folder: Path, split: InputSplit) -> Iterator[pa.Table]:
    """Yield the passages of a staged split, with their source and line, in order."""
    for path in _passage_files(folder, split):
        try:
            table = pq.read_table(path, schema=STAGED_SCHEMA)
        except (OSError, pa.ArrowException) as err:
            raise CorruptArtifactError(
                f"{path}: cannot be read ({first_line(err)}); remove {path.parent} and run again"
            ) from err
        yield table


def _passage_files(folder: Path, split: InputSplit) -> list[Path]:
    return sorted((folder / split.key).glob("part-*.parquet"))


def staged_refusals(folder: Path, split: InputSplit) -> Iterator[Refusal]:
    """Yield the refusals of a staged split in order."""
    with (folder / split.key / REFUSED_NAME).open(encoding="utf-8") as stream:
        for line in stream:
            yield Refusal(**json.loads(line))


def refusal_line(refusal: Refusal) -> str:
    """Write a refusal as a line of JSON."""
    return to_json(asdict(refusal), "quarantine") + "\n"


class Stager:
    """Reads, cleans and splits splits into folders below ``folder``, with one tokenizer for all."""

    def __init__(self, config: Config, folder: Path) -> None:
        self._config = config.ingest
        self._folder = folder
        self._tokenizer = load_tokenizer(config.embed)
        self._hasher = MinHasher() if config.ingest.near_duplicates else None

    def stage(self, split: InputSplit) -> Staged:
        """Stage one split; what an earlier attempt left unfinished is written again.

        Raises:
            InputError: a file is not there, is no longer the one that was planned, or is remote and cannot be read.
        """
        for source in split.sources:
            if not source.exists():
                raise InputError(
                    f"{source.label}: not found where it is read; keep sources and --out on a shared file system"
                )
        folder = self._folder / split.key
        shutil.rmtree(folder, ignore_errors=True)
        files = _PassageFiles(folder, self._hasher)
        refused: Counter[str] = Counter()
        unkept: Counter[str] = Counter()
        with atomic_path(folder / REFUSED_NAME) as path, path.open("w", encoding="utf-8") as refusals:
            for source in split.sources:
                for item in staged_items(source, self._tokenizer, self._config):
                    if isinstance(item, Refusal):
                        refused[item.reason] += 1
                        refusals.write(refusal_line(item))
                    else:
                        unkept.update(item.unkept)
                        files.add_document(source, item.line, item.passages)
            files.flush()
        for source, checksum in zip(split.sources, split.checksums, strict=True):
            if source.checksum(fresh=True) != checksum:
                raise InputError(f"{source.label}: changed while it was read; run again once nobody writes to it")
        done = Staged(files.num_rows, dict(refused), dict(unkept))
        write_json(folder / DONE_NAME, asdict(done))
        return done


@dataclass(frozen=True, slots=True)
class SplitDocument:
    """The passages of a document, the line that it stands on, and what of its record is no metadata (`Record.unkept`)."""

    line: int
    passages: Iterator[Passage]
    unkept: tuple[str, ...]


def staged_items(source: Source, tokenizer: Tokenizer, config: IngestConfig) -> Iterator[SplitDocument | Refusal]:
    """Read one file: a document cut into passages, or a refusal, in the file's order."""
    for item in _read(source, config):
        cleaned = item if isinstance(item, Refusal) else _cleaned(source, item, config)
        if isinstance(cleaned, Refusal):
            yield cleaned
        else:
            yield SplitDocument(cleaned.line, split_document(cleaned.document, tokenizer, config), cleaned.unkept)


def _read(source: Source, config: IngestConfig) -> Iterator[Record | Refusal]:
    """Read one file; where it cannot be read, or no further, that is one more refusal: it never costs the other files.

    A remote file is read again another time: its filesystem may be to blame.
    """
    try:
        yield from read_source(source, config)
    except MissingPackageError:
        raise
    except InputError as err:
        if source.is_remote:
            raise
        yield refusal(source, WHOLE_FILE, first_line(err).removeprefix(f"{source.label}: "), "")


def _cleaned(source: Source, record: Record, config: IngestConfig) -> Record | Refusal:
    document = record.document
    text = clean_text(document.text) if len(document.text) <= config.max_chars else document.text
    if reason := refuse_reason(text, config):
        return Refusal(source.label, record.line, document.id, reason, excerpt(text))
    return replace(record, document=replace(document, text=text, title=clean_line(document.title)))


class _PassageFiles:
    """Collects passages and writes them into files of bounded size."""

    def __init__(self, folder: Path, hasher: MinHasher | None) -> None:
        self.num_rows = 0
        self._folder = folder
        self._hasher = hasher
        self._num_files = 0
        self._num_documents = 0
        self._num_chars = 0
        self._passages: list[Passage] = []
        self._sources: list[str] = []
        self._lines: list[int] = []
        self._numbers: list[int] = []

    def add_document(self, source: Source, line: int, passages: Iterable[Passage]) -> None:
        for passage in passages:
            self._passages.append(passage)
            self._sources.append(source.label)
            self._lines.append(line)
            self._numbers.append(self._num_documents)
            self._num_chars += len(passage.text)
            if len(self._passages) >= FILE_ROWS or self._num_chars >= FILE_CHARS:
                self.flush()
        self._num_documents += 1

    def flush(self) -> None:
        if not self._passages:
            return
        columns = passages_to_table(self._passages).columns
        signatures = [self._hasher.signature(passage.text) if self._hasher else None for passage in self._passages]
        table = pa.table([*columns, self._sources, self._lines, self._numbers, signatures], schema=STAGED_SCHEMA)
        with atomic_path(self._folder / f"part-{self._num_files:06}.parquet") as path:
            pq.write_table(table, path, compression="lz4")
        self.num_rows += len(table)
        self._num_files += 1
        self._num_chars = 0
        self._passages, self._sources, self._lines, self._numbers = [], [], [], []
