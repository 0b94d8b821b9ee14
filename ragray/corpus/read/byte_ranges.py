"""Cutting large files. In: a source. Out: its byte ranges with their checksums, so that several workers read it. Only reads."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import replace

import pyarrow as pa
import pyarrow.parquet as pq

from ragray.corpus.read.source import ByteRange, Source, range_checksum

RANGE_BYTES = 64 << 20
READ_BYTES = 1 << 20


def cut_source(
    source: Source, range_bytes: int = RANGE_BYTES, *, read_bytes: int = READ_BYTES
) -> Iterator[tuple[Source, str]]:
    """Yield the byte ranges of a file in order, each with the checksum of its content; most files are not cut.

    Cut are uncompressed JSON lines, after a line, and Parquet, between row groups, where they are local and larger than
    ``range_bytes``. Where the cuts are depends on the content before them alone: appending to a file changes its last
    range only. Lines are looked through ``read_bytes`` at a time.
    """
    ranges: list[tuple[ByteRange, str]] = []
    if not source.is_remote and source.num_bytes() > range_bytes:
        if source.suffix == ".jsonl" and _has_lines_of_bytes(source, read_bytes):
            ranges = list(_line_ranges(source, range_bytes, read_bytes))
        elif source.suffix == ".parquet":
            ranges = _row_group_ranges(source, range_bytes)
    if len(ranges) < 2:
        yield source, source.checksum()
    for byte_range, checksum in ranges if len(ranges) > 1 else ():
        yield replace(source, byte_range=byte_range), checksum


def _has_lines_of_bytes(source: Source, read_bytes: int) -> bool:
    """Return whether a line ends with one byte: not in UTF-16 and UTF-32, where other characters hold that byte too."""
    with source.open() as stream:
        return b"\0" not in stream.read(read_bytes)


def _line_ranges(source: Source, range_bytes: int, read_bytes: int) -> Iterator[tuple[ByteRange, str]]:
    """Cut after the first line that ends past ``range_bytes``; checksums are made on the way."""
    digest = hashlib.blake2b(digest_size=16)
    start = position = lines_before = num_lines = 0
    with source.open() as stream:
        while piece := stream.read(read_bytes):
            ahead = max(0, start + range_bytes - 1 - position)
            cut = piece.find(b"\n", ahead) + 1 if ahead < len(piece) else 0
            head = piece[:cut] if cut else piece
            digest.update(head)
            num_lines += head.count(b"\n")
            position += len(head)
            if cut:
                yield ByteRange(start, position, lines_before), digest.hexdigest()
                digest = hashlib.blake2b(digest_size=16)
                start, lines_before = position, num_lines
                stream.seek(position)
    if position > start:
        yield ByteRange(start, position, lines_before), digest.hexdigest()


def _row_group_ranges(source: Source, range_bytes: int) -> list[tuple[ByteRange, str]]:
    """Cut after the row group with which ``range_bytes`` are full; a damaged file is left whole, to be refused by its reader."""
    try:
        with source.open() as stream:
            metadata = pq.read_metadata(stream)
            groups = [metadata.row_group(number) for number in range(metadata.num_row_groups)]
    except (OSError, pa.ArrowException):
        return []
    ranges: list[tuple[ByteRange, str]] = []
    first = lines_before = num_rows = 0
    starts = [_start(group) for group in groups] + [source.num_bytes()]
    if starts != sorted(starts):
        return []
    with source.open() as stream:
        for number, group in enumerate(groups, start=1):
            num_rows += group.num_rows
            if starts[number] - starts[first] >= range_bytes or number == len(groups):
                byte_range = ByteRange(starts[first], starts[number], lines_before, (first, number))
                ranges.append((byte_range, range_checksum(stream, byte_range.start, byte_range.stop)))
                first, lines_before = number, num_rows
    return ranges


def _start(group: pq.RowGroupMetaData) -> int:
    """Return where the bytes of a row group begin."""
    columns = [group.column(number) for number in range(group.num_columns)]
    offsets = [column.dictionary_page_offset or column.data_page_offset for column in columns]
    return int(min(offsets, default=0))
