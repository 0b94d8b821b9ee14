"""Finding duplicates. In: titles, texts, metadata, ids. Out: 128-bit keys, and whether one was seen before, in bounded memory."""

from __future__ import annotations

import contextlib
import hashlib
import sqlite3
from collections.abc import Collection, Iterator
from pathlib import Path
from types import TracebackType
from urllib.parse import quote

from ragray.errors import ArtifactError

KEYS_IN_MEMORY = 100_000
CACHE_BYTES = 16 << 20
"""Pages of a table that sqlite keeps in memory."""


def content_hash(title: str, text: str) -> str:
    """Hash what a passage says, case and white space aside: BLAKE2b-128 as 32 hex digits."""
    folded = "\x00".join(" ".join(part.casefold().split()) for part in (title, text))
    return hashlib.blake2b(folded.encode(), digest_size=16).hexdigest()


def facts_key(metadata: Collection[tuple[str, str]], ignored: Collection[str] = ()) -> bytes:
    """Hash pairs of key and value, whatever their order, without those of the keys ``ignored``; nothing where none is left.

    ``*`` among the ignored keys stands for all of them.
    """
    if not metadata or "*" in ignored:
        return b""
    pairs = sorted(pair for pair in metadata if pair[0] not in ignored)
    return hashlib.blake2b(repr(pairs).encode(), digest_size=16).digest() if pairs else b""


def content_key(content: str, facts: bytes) -> bytes:
    """Return the key of a content hash under some metadata (see `facts_key`)."""
    key = bytes.fromhex(content)
    return hashlib.blake2b(key + facts, digest_size=16).digest() if facts else key


def id_key(identity: str) -> bytes:
    """Hash an id of any length into a key."""
    return hashlib.blake2b(identity.encode(), digest_size=16).digest()


@contextlib.contextmanager
def scratch_tables(path: Path, schema: str) -> Iterator[sqlite3.Connection]:
    """Open tables that live as long as the block, on disk and not in memory: nothing in them outlasts a crash.

    Raises:
        ArtifactError: the disk is full, or cannot be written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    path.unlink(missing_ok=True)
    try:
        # Without locks, which network file systems may lack: no other process knows of the file.
        tables = sqlite3.connect(f"file:{quote(str(path))}?nolock=1", uri=True, isolation_level=None)
        with contextlib.closing(tables):
            for setting in ("journal_mode=OFF", "synchronous=OFF", f"cache_size=-{CACHE_BYTES >> 10}"):
                tables.execute(f"PRAGMA {setting}")
            tables.executescript(f"{schema}; BEGIN;")
            yield tables
    except sqlite3.Error as err:
        raise ArtifactError(f"{path}: cannot be written ({err}); free some space there and run again") from err
    finally:
        path.unlink(missing_ok=True)


class SeenKeys:
    """Remembers 128-bit keys: some in memory, about 100 bytes each, and when these are too many all of them on disk.

    Use as a context manager.
    """

    def __init__(self, path: Path, keys_in_memory: int = KEYS_IN_MEMORY) -> None:
        self._path = path
        self._keys_in_memory = keys_in_memory
        self._new: set[bytes] = set()
        self._num_stored = 0
        self._open = contextlib.ExitStack()
        self._tables: sqlite3.Connection | None = None

    def __enter__(self) -> SeenKeys:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, err: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._open.__exit__(kind, err, trace)

    def __contains__(self, key: bytes) -> bool:
        if key in self._new:
            return True
        if self._tables is None:
            return False
        return self._tables.execute("SELECT 1 FROM keys WHERE key = ?", (key,)).fetchone() is not None

    def __len__(self) -> int:
        return self._num_stored + len(self._new)

    def add(self, key: bytes) -> bool:
        """Remember a key; say whether it is new."""
        if key in self:
            return False
        self.add_new(key)
        return True

    def add_new(self, key: bytes) -> None:
        """Remember a key that is known to be new."""
        self._new.add(key)
        if len(self._new) >= self._keys_in_memory:
            self._store()

    def _store(self) -> None:
        """Move the keys from memory to disk, in order: neighbours share a page."""
        if self._tables is None:
            schema = "CREATE TABLE keys (key BLOB PRIMARY KEY) WITHOUT ROWID"
            self._tables = self._open.enter_context(scratch_tables(self._path, schema))
        self._tables.executemany("INSERT INTO keys VALUES (?)", ((key,) for key in sorted(self._new)))
        self._num_stored += len(self._new)
        self._new.clear()
