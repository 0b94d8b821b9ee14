"""Reading a source. In: one file. Out: its records as documents with their line, or a refusal for each that is none.

A broken record never stops the rest of its file. Memory is bounded, whatever the size of the file.
"""

from __future__ import annotations

import contextlib
import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace

import pyarrow as pa

from ragray.config import IngestConfig
from ragray.corpus.read.columns import read_arrow, read_parquet
from ragray.corpus.read.encoding import ADVICE, NOT_VALID
from ragray.corpus.read.json_trees import read_json
from ragray.corpus.read.lines import read_csv, read_jsonl
from ragray.corpus.read.pages import read_html, read_pdf, read_text
from ragray.corpus.read.record import Record, Refusal
from ragray.corpus.read.source import Source
from ragray.errors import InputError, RagrayError, first_line

Reader = Callable[[Source, IngestConfig], Iterator[Record | Refusal]]
READERS: Mapping[str, Reader] = {
    ".jsonl": read_jsonl,
    ".csv": read_csv,
    ".tsv": read_csv,
    ".json": read_json,
    ".parquet": read_parquet,
    ".arrow": read_arrow,
    ".txt": read_text,
    ".md": read_text,
    ".html": read_html,
    ".htm": read_html,
    ".pdf": read_pdf,
}

SYNTAXES = ("JSON", "CSV", "TSV")
DAMAGE = (OSError, EOFError, zlib.error, pa.ArrowException, UnicodeDecodeError, MemoryError)
"""What damaged files raise; one that claims to be huge asks for more memory than there is."""


def read_source(source: Source, config: IngestConfig) -> Iterator[Record | Refusal]:
    """Read one file: a record for each document, a refusal for each line, row or file that is none.

    Raises:
        InputError: the file cannot be read at all, holds no records, or has no column for the text.
        MissingPackageError: the package that reads this format or filesystem is not installed.
    """
    num_records = 0
    with naming_damage(source):
        for record in READERS[source.format](source, config):
            num_records += 1
            is_text = source.format not in (".parquet", ".arrow")
            yield _with_advice(record) if isinstance(record, Refusal) and is_text else record
    if not num_records and source.byte_range is None:
        raise InputError(f"{source.label}: holds no records; fill it or leave it out of the sources")


def _with_advice(refusal: Refusal) -> Refusal:
    """Name the option that reads another encoding where that may be the cause."""
    wrong = refusal.reason.startswith(NOT_VALID) and refusal.reason.removeprefix(NOT_VALID).split()[0] not in SYNTAXES
    return replace(refusal, reason=refusal.reason + ADVICE) if wrong else refusal


@contextlib.contextmanager
def naming_damage(source: Source) -> Iterator[None]:
    """Turn what a damaged file raises while it is read into an `InputError` that names it."""
    # A remote filesystem raises errors of its own types, which cannot be listed here.
    errors = (Exception,) if source.is_remote else DAMAGE
    try:
        yield
    except RagrayError:
        raise
    except errors as err:
        kind = source.suffix.removeprefix(".")
        raise InputError(
            f"{source.label}: cannot be read as {kind} ({first_line(err)}); fetch or convert the file again"
        ) from err
