"""A source. In: where a file is, on this machine or behind a URI, and which bytes of it. Out: its bytes, size and identity."""

from __future__ import annotations

import contextlib
import hashlib
import io
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING

from ragray.artifact.digest import file_checksum
from ragray.errors import InputError, MissingPackageError, RagrayError, first_line

if TYPE_CHECKING:
    from fsspec import AbstractFileSystem

COMPRESSIONS = (".gz", ".zst")
STREAMED_FORMATS = (".jsonl", ".csv", ".tsv", ".json")
"""Formats that are read from their first byte to their last, and so may be compressed as a whole."""
ONE_DOCUMENT_FORMATS = (".txt", ".md", ".html", ".htm", ".pdf")
FORMATS = (
    *(name + compression for name in STREAMED_FORMATS for compression in ("", *COMPRESSIONS)),
    ".parquet",
    ".arrow",
    *ONE_DOCUMENT_FORMATS,
)
REMOTE_BUFFER_BYTES = 1 << 20
_LOCAL_URI = re.compile(r"(?:file|local)://")
_USER = re.compile(r"(?<=://)[^/@]*@")


@dataclass(frozen=True, slots=True)
class ByteRange:
    """A stretch of a large file: its bytes, the lines (or rows) before it and, of Parquet, its row groups."""

    start: int
    stop: int
    lines_before: int
    row_groups: tuple[int, int] = (0, 0)


@dataclass(frozen=True, slots=True)
class Source:
    """One file to read, or a byte range of it.

    ``location`` is an absolute path or a URI of any fsspec filesystem, ``name`` its path below what the user gave (the id
    of a text file).
    """

    location: str
    name: str
    byte_range: ByteRange | None = None

    @property
    def label(self) -> str:
        """Its location as it stands in messages and in a quarantine: storable, without user, password or query."""
        if not self.is_remote:
            return self.location.encode("utf-8", "replace").decode()
        return _without_query(_USER.sub("", self.location))

    @property
    def is_remote(self) -> bool:
        """Whether fsspec reads it."""
        return is_uri(self.location)

    @property
    def suffix(self) -> str:
        """Its entry of `FORMATS`, or nothing where it is not supported."""
        location = _without_query(self.location.partition("::")[0]) if self.is_remote else self.location
        return next((suffix for suffix in sorted(FORMATS, key=len) if location.lower().endswith(suffix)), "")

    @property
    def format(self) -> str:
        """Its entry of `FORMATS` without the compression."""
        return self.suffix.removesuffix(self.compression)

    @property
    def compression(self) -> str:
        """Its entry of `COMPRESSIONS`, or nothing."""
        return next((suffix for suffix in COMPRESSIONS if self.suffix.endswith(suffix)), "")

    @contextlib.contextmanager
    def open(self) -> Iterator[IO[bytes]]:
        """Open the whole file for reading; it can seek."""
        if not self.is_remote:
            with Path(self.location).open("rb") as stream:
                yield stream
        else:
            filesystem, path = open_filesystem(self.location)  # an archive is closed with the last reference to it
            with io.BufferedReader(
                filesystem.open(path, "rb"), REMOTE_BUFFER_BYTES
            ) as stream:  # whose lines have a limit
                yield stream

    def exists(self) -> bool:
        """Return whether this process sees the source."""
        if not self.is_remote:
            return Path(self.location).is_file()
        with reaching(self.label):
            filesystem, path = open_filesystem(self.location)
            return bool(filesystem.exists(path))

    def num_bytes(self) -> int:
        """Return the size of the whole file."""
        if not self.is_remote:
            return Path(self.location).stat().st_size
        with reaching(self.label):
            filesystem, path = open_filesystem(self.location)
            return int(filesystem.size(path) or 0)

    def checksum(self, *, fresh: bool = False) -> str:
        """Return what changes with the content.

        Of a local file that is a hash of its bytes (of its byte range alone, where it has one). A remote file is not read for it:
        it is fsspec's ``checksum``, made from what the filesystem says of the file (an ETag or a time, and the size).
        ``fresh`` asks again what a listing may have said long ago.
        """
        if self.byte_range is not None:
            with self.open() as stream:
                return range_checksum(stream, self.byte_range.start, self.byte_range.stop)
        if not self.is_remote:
            return file_checksum(Path(self.location))
        with reaching(self.label):
            filesystem, path = open_filesystem(self.location)
            if fresh:
                filesystem.invalidate_cache()
            return f"{filesystem.checksum(path):x}"


def is_uri(location: str) -> bool:
    """Return whether a location names a filesystem other than this machine's."""
    return "://" in location and not _LOCAL_URI.match(location)


def local_path(location: str) -> Path:
    """Return the path that a location without a foreign filesystem means."""
    return Path(_LOCAL_URI.sub("", location)).expanduser()


def range_checksum(stream: IO[bytes], start: int, stop: int) -> str:
    """BLAKE2b-128 of some bytes of a file, read in pieces."""
    digest = hashlib.blake2b(digest_size=16)
    stream.seek(start)
    while start < stop and (piece := stream.read(min(1 << 20, stop - start))):
        digest.update(piece)
        start += len(piece)
    return digest.hexdigest()


def open_filesystem(location: str) -> tuple[AbstractFileSystem, str]:
    """Return the filesystem of a URI and the path on it.

    Raises:
        MissingPackageError: the package that speaks this protocol is not installed.
        InputError: no package speaks it.
    """
    import fsspec

    protocol = location.partition("://")[0]
    try:
        filesystem, path = fsspec.core.url_to_fs(location)
    except ImportError as err:
        package = getattr(err.__cause__ or err, "name", None) or protocol
        raise MissingPackageError(
            f"{protocol}:// needs a package that is not installed; run: pip install {package.replace('_', '-')}"
        ) from err
    except ValueError as err:
        raise InputError(f"{_USER.sub('', location)}: {err}; use a path or a URI that fsspec knows") from err
    return filesystem, path


@contextlib.contextmanager
def reaching(label: str) -> Iterator[None]:
    """Turn whatever a remote filesystem raises, each has errors of its own, into an `InputError`."""
    try:
        yield
    except RagrayError:
        raise
    except Exception as err:
        raise InputError(
            f"{label}: cannot be reached ({first_line(err)}); check the address and its credentials"
        ) from err


def _without_query(location: str) -> str:
    return location.partition("?")[0] if location.startswith(("http://", "https://")) else location
