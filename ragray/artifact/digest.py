"""Digests. In: a JSON-like value, or a file. Out: the hexadecimal digest that names its content."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path


def fingerprint(value: object) -> str:
    """Hash a JSON-like value into 16 hex digits; the order of mapping keys does not matter. Names of files need not be UTF-8."""
    text = json.dumps(value, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).hexdigest()


def file_checksum(path: Path) -> str:
    """BLAKE2b-128 of a file's content, read in pieces."""
    digest = hashlib.blake2b(digest_size=16)
    with path.open("rb") as stream:
        while piece := stream.read(1 << 20):
            digest.update(piece)
    return digest.hexdigest()
