"""Finding duplicates. In: titles and texts, or ids. Out: 128-bit keys, and whether one was seen before. Pure."""

from __future__ import annotations

import hashlib


def content_hash(title: str, text: str) -> str:
    """Hash what a passage says, case and white space aside: BLAKE2b-128 as 32 hex digits."""
    folded = "\x00".join(" ".join(part.casefold().split()) for part in (title, text))
    return hashlib.blake2b(folded.encode(), digest_size=16).hexdigest()


def id_key(identity: str) -> bytes:
    """Hash an id of any length into a key."""
    return hashlib.blake2b(identity.encode(), digest_size=16).digest()


class SeenKeys:
    """Remembers 128-bit keys, about 100 bytes of memory each."""

    def __init__(self) -> None:
        self._keys: set[bytes] = set()

    def __contains__(self, key: bytes) -> bool:
        return key in self._keys

    def __len__(self) -> int:
        return len(self._keys)

    def add(self, key: bytes) -> bool:
        """Remember a key; say whether it is new."""
        before = len(self._keys)
        self._keys.add(key)
        return len(self._keys) > before
