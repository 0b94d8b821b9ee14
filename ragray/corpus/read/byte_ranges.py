"""Cutting large files. In: a source. Out: its parts with their checksums, so that several workers read it. Only reads."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import replace

import pyarrow as pa
import pyarrow.parquet as pq

from ragray.corpus.read.source import Part, Source, range_checksum

PART_BYTES = 64 << 20
READ_BYTES = 1 << 20


def cut_source(source: Source, part_bytes: int = PART_BYTES) -> Iterator[tuple[Source, str]]:
    """Yield a file's parts in order, each with the checksum of its content; most files are one part, which is the file.

    Cut are uncompressed JSON lines, behind a line, and Parquet, between row groups, where they are local and larger than
    ``part_bytes``. Where the cuts are depends on the content before them alone: appending to a file leaves its parts but
    the last as they were.
    """
    parts: list[tuple[Part, str]] = []
    if not source.is_remote and source.num_bytes() > part_bytes:
        if source.suffix == ".jsonl" and _has_lines_of_bytes(source):
            parts = list(_parts_of_lines(source, part_bytes))
        elif source.suffix == ".parquet":
            parts = _parts_of_row_groups(source, part_bytes)
    if len(parts) < 2:
        yield source, source.checksum()
    for part, checksum in parts if len(parts) > 1 else ():
        yield replace(source, part=part), checksum


def _has_lines_of_bytes(source: Source) -> bool:
    """Say whether a line ends with one byte: not in UTF-16 and UTF-32, where other characters hold that byte too."""
    with source.open() as stream:
        return b"\0" not in stream.read(READ_BYTES)


def _parts_of_lines(source: Source, part_bytes: int) -> Iterator[tuple[Part, str]]:
    """Cut behind the first line that ends past ``part_bytes``; checksums are made on the way."""
    digest = hashlib.blake2b(digest_size=16)
    start = position = lines_before = num_lines = 0
    with source.open() as stream:
        while piece := stream.read(READ_BYTES):
            ahead = max(0, start + part_bytes - 1 - position)
            cut = piece.find(b"\n", ahead) + 1 if ahead < len(piece) else 0
            head = piece[:cut] if cut else piece
            digest.update(head)
            num_lines += head.count(b"\n")
            position += len(head)
            if cut:
                yield Part(start, position, lines_before), digest.hexdigest()
                digest = hashlib.blake2b(digest_size=16)
                start, lines_before = position, num_lines
                stream.seek(position)
    if position > start:
        yield Part(start, position, lines_before), digest.hexdigest()


def _parts_of_row_groups(source: Source, part_bytes: int) -> list[tuple[Part, str]]:
    """Cut behind the row group with which ``part_bytes`` are full; a damaged file is left whole, to be refused by its reader."""
    try:
        with source.open() as stream:
            metadata = pq.read_metadata(stream)
            groups = [metadata.row_group(number) for number in range(metadata.num_row_groups)]
    except (OSError, pa.ArrowException):
        return []
    parts: list[tuple[Part, str]] = []
    first = lines_before = num_rows = 0
    starts = [_start(group) for group in groups] + [source.num_bytes()]
    if starts != sorted(starts):
        return []
    with source.open() as stream:
        for number, group in enumerate(groups, start=1):
            num_rows += group.num_rows
            if starts[number] - starts[first] >= part_bytes or number == len(groups):
                part = Part(starts[first], starts[number], lines_before, (first, number))
                parts.append((part, range_checksum(stream, part.start, part.stop)))
                first, lines_before = number, num_rows
    return parts


def _start(group: pq.RowGroupMetaData) -> int:
    """Return where the bytes of a row group begin."""
    columns = [group.column(number) for number in range(group.num_columns)]
    offsets = [column.dictionary_page_offset or column.data_page_offset for column in columns]
    return int(min(offsets, default=0))
