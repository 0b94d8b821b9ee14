"""Records. In: the fields of a record as its source holds them. Out: a document with its line, or a refusal that says why not. Pure."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from decimal import Decimal

from ragray.config import IngestConfig
from ragray.corpus.metadata import kept_metadata, pairs_of, scalar_text
from ragray.corpus.metadata import storable as storable
from ragray.corpus.read.source import Source
from ragray.errors import InputError
from ragray.types import Document, Metadata

EXCERPT_CHARS = 200
ESCAPED_CHAR_BYTES = 6
"""JSON may write a character as \\uXXXX: a line is cut off past so many bytes for each of ``max_chars``."""
OTHER_FIELDS_BYTES = 1 << 16
"""What the other fields of a record may add to that."""
CONTENTS_FIELD = "contents"
"""Holds title and text together in the corpora of DPR, Pyserini and FlashRAG."""
NAMES = (str, int, float, Decimal, date)
"""Types of an id and of a title."""
TOO_MANY_DIGITS = "a number has more digits than Python reads"
CheckColumns = Callable[[Sequence[str]], None]
"""Looks at the names of a table's columns before a row is read; raises where they will not do."""
_DEFAULT_TEXT_FIELD = IngestConfig().text_field
_QUOTED_LINE = re.compile(r'\s*"([^\n]*)"[ \t]*(?:\r?\n|$)')


@dataclass(frozen=True, slots=True)
class Row:
    """A record as its source holds it: the line (1-based; the row of a Parquet file), the fields, and how it is written."""

    line: int
    fields: Mapping[str, object]
    raw: str = ""


@dataclass(frozen=True, slots=True)
class Record:
    """A document and the line (1-based; the row of a Parquet file) that it stands on.

    ``unkept`` names the fields of the record that cannot be metadata, each with the reason.
    """

    line: int
    document: Document
    unkept: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Refusal:
    """A record, document or passage that was left out: where it stands, why, and how its text begins."""

    source: str
    line: int
    document_id: str
    reason: str
    excerpt: str


def to_documents(source: Source, rows: Iterable[Row | Refusal], config: IngestConfig) -> Iterator[Record | Refusal]:
    """Make a document of every row; a refusal stays one."""
    for row in rows:
        yield row if isinstance(row, Refusal) else from_fields(source, row.line, row.fields, config, raw=row.raw)


def from_fields(
    source: Source, number: int, fields: Mapping[str, object], config: IngestConfig, *, raw: str
) -> Record | Refusal:
    """Make a document of the fields that the configuration names; the others become metadata (see `kept_metadata`).

    Ids and titles are strings, numbers or dates, in the form of `scalar_text`; a missing id is made from content and
    metadata. Where there is no text but ``contents`` (and no other field was asked for), that is the text, and its first line, if
    quoted, the title.
    """
    identity, title, text = (fields.get(name) for name in (config.id_field, config.title_field, config.text_field))
    own = {config.id_field, config.title_field, config.text_field}
    contents = fields.get(CONTENTS_FIELD)
    if text is None and isinstance(contents, str) and takes_contents(config):
        own.add(CONTENTS_FIELD)
        heading, text = _split_contents(contents)
        title = title or heading
    document_id = scalar_text(identity)
    reason = ""
    if text is None:
        reason = f"no field '{config.text_field}'"
    elif not isinstance(text, str):
        reason = f"field '{config.text_field}' is no string but {type(text).__name__}"
    for name, value in ((config.id_field, identity), (config.title_field, title)):
        if value is not None and (isinstance(value, bool) or not isinstance(value, NAMES)):
            reason = reason or f"field '{name}' is no string but {type(value).__name__}"
    if reason or not isinstance(text, str):
        return refusal(source, number, reason, raw, document_id=document_id)
    metadata, unkept = kept_metadata((name, value) for name, value in fields.items() if name not in own)
    heading = scalar_text(title)
    document_id = document_id or id_of_content(heading, text, metadata)
    return Record(number, Document(document_id, text, heading, metadata), unkept)


def takes_contents(config: IngestConfig) -> bool:
    """Return whether ``contents`` may stand in for the text: not where the user has named another field."""
    return config.text_field == _DEFAULT_TEXT_FIELD


def _split_contents(contents: str) -> tuple[str, str]:
    match = _QUOTED_LINE.match(contents)
    return (match[1], contents[match.end() :]) if match else ("", contents)


def id_of_content(title: str, text: str, metadata: Metadata) -> str:
    """Make an id for a document that has none: of two that say the same, other metadata tell them apart."""
    facts = f"\n{sorted(pairs_of(metadata))}" if metadata else ""
    return hashlib.blake2b(f"{title}\n{text}{facts}".encode("utf-8", "replace"), digest_size=8).hexdigest()


def refusal(source: Source, number: int, reason: str, raw: str, *, document_id: str = "") -> Refusal:
    """Refuse a record of a source, with how it begins."""
    return Refusal(source.label, number, document_id, reason, excerpt(raw))


def excerpt(text: str) -> str:
    """Return how a text begins, on one line."""
    return storable(" ".join(text[: 2 * EXCERPT_CHARS].split())[:EXCERPT_CHARS])


def require_text_column(source: Source, columns: Iterable[str], config: IngestConfig) -> None:
    """Raise `InputError` where a table has no column for the text."""
    columns = list(columns)
    if config.text_field not in columns and not (CONTENTS_FIELD in columns and takes_contents(config)):
        raise InputError(
            f"{source.label}: has no column '{config.text_field}' but {', '.join(map(repr, columns))}; "
            f"say which one holds the text with ingest.text_field=COLUMN"
        )


def line_limit(max_chars: int) -> int:
    """Return how many bytes a record may have before it is passed over unread."""
    return max_chars * ESCAPED_CHAR_BYTES + OTHER_FIELDS_BYTES


def too_long(max_chars: int) -> str:
    """Return the reason for refusing what is longer than a document may be."""
    return f"longer than max_chars={max_chars}"
