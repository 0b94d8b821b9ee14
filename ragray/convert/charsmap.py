"""SentencePiece's compiled normalisation. In: what each character becomes. Out: bytes that `Precompiled` of `tokenizers` reads.

The bytes are the size of a double-array trie (uint32, in bytes), the trie over the UTF-8 of the characters, and the replacements,
each ended by a zero byte; a leaf holds the place of its replacement. A unit of the trie (uint32) has, from the low end: the label
in 8 bits, bit 8 (a value follows), bit 9 (the offset counts in 256s, not used here), the offset in 21 bits, bit 31 (is a value).
Source: darts-clone, the format of SentencePiece's ``precompiled_charsmap``.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping

FAN_OUT = 256
HAS_VALUE = 1 << 8
IS_VALUE = 1 << 31


def compile_charsmap(characters: Mapping[int, str]) -> bytes:
    """Compile the replacements of code points (0 is not possible).

    Every node with children has 256 units of its own, its children's place there is their label; the values stand behind them all.
    """
    keys = {chr(code).encode(): text.encode() for code, text in characters.items()}
    inner = sorted({key[:length] for key in keys for length in range(len(key))})
    blocks = {prefix: FAN_OUT * row for row, prefix in enumerate(inner)}
    place = {prefix: blocks[prefix[:-1]] + prefix[-1] if prefix else 0 for prefix in [*inner, *keys]}
    units = [0] * (FAN_OUT * len(inner))
    replacements = bytearray()
    for prefix in inner[1:]:
        units[place[prefix]] = _unit(place[prefix], blocks[prefix], prefix[-1])
    for key, text in keys.items():
        units[place[key]] = _unit(place[key], len(units), key[-1]) | HAS_VALUE
        units.append(IS_VALUE | len(replacements))
        replacements += text + b"\0"
    units[0] = _unit(0, blocks[b""], 0)
    return struct.pack(f"<I{len(units)}I", 4 * len(units), *units) + bytes(replacements)


def _unit(place: int, target: int, label: int) -> int:
    """Return the unit at a place whose children, or whose value, begin at another: the reader takes the XOR of the two."""
    return (place ^ target) << 10 | label
