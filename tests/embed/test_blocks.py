"""Blocks cover a corpus once, hold what was written into them, and one that is not whole counts as missing."""

import random
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from ragray.corpus.table import ROW_GROUP_ROWS, Corpus
from ragray.embed.blocks import (
    BLOCK_FOLDER,
    Block,
    Embeddings,
    load_block,
    missing_blocks,
    plan_blocks,
    read_block,
    write_block,
)
from ragray.embed.passage_text import encoder_text, passage_text
from ragray.errors import ConfigError, CorruptArtifactError, NotAnArtifactError
from ragray.types import Passage
from tests.helpers import sentence, some_passages, write_corpus, write_embeddings


@pytest.mark.parametrize("seed", range(20))
def test_blocks_cover_every_row_of_every_shard_once_and_in_order(seed: int) -> None:
    draw = random.Random(seed)
    shards = [(Path(f"/part-{n}"), draw.randint(0, 50)) for n in range(draw.randint(0, 6))]
    size = draw.randint(1, 20)
    blocks = plan_blocks(shards, size)
    covered = [(block.shard, row) for block in blocks for row in range(block.start, block.stop)]
    assert covered == [(str(path), row) for path, rows in shards for row in range(rows)]
    assert all(1 <= block.num_rows <= size for block in blocks)
    assert sorted(block.name for block in blocks) == [block.name for block in blocks]
    assert len({block.name for block in blocks}) == len(blocks)


@pytest.mark.parametrize(
    ("start", "stop"),
    [
        (0, 5),
        (ROW_GROUP_ROWS - 2, ROW_GROUP_ROWS + 3),
        (ROW_GROUP_ROWS, ROW_GROUP_ROWS + 1),
        (8190, 8200),
        (8199, 8200),
    ],
)
def test_a_block_is_read_from_whatever_row_groups_it_lies_in(start: int, stop: int, three_groups: Path) -> None:
    table = read_block(Block(str(three_groups), start, stop, "block"))
    assert table.column_names == ["id", "title", "text"]
    assert table["id"].to_pylist() == [f"p{row}" for row in range(start, stop)]


@pytest.fixture(scope="module")
def three_groups(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A shard of three row groups."""
    passages = [Passage(f"p{n}", "text") for n in range(8200)]
    corpus = Corpus.open(write_corpus(tmp_path_factory.mktemp("corpus"), passages, shard_rows=10_000))
    return corpus.shards[0][0]


def block_of(tmp_path: Path, rows: int, dim: int = 4) -> tuple[Block, np.ndarray]:
    block = Block("shard", 7, 7 + rows, "block-00000-000000007.parquet")
    vectors = np.random.default_rng(0).normal(size=(rows, dim)).astype(np.float32)
    write_block(tmp_path, block, ids_of(rows), vectors)
    return block, vectors


def ids_of(rows: int) -> pa.ChunkedArray:
    return pa.chunked_array([[f"p{row}" for row in range(rows)]])


def test_a_block_comes_back_as_it_was_written_in_half_precision(tmp_path: Path) -> None:
    block, vectors = block_of(tmp_path, 10)
    ids, read = load_block(tmp_path / BLOCK_FOLDER / block.name)
    assert ids == [f"p{row}" for row in range(10)]
    np.testing.assert_array_equal(read, vectors.astype(np.float16))
    assert read.dtype == np.float16


def test_a_block_that_is_not_there_or_not_whole_is_missing(tmp_path: Path) -> None:
    block, _ = block_of(tmp_path, 10)
    assert missing_blocks(tmp_path, [block]) == []
    other = Block("shard", 0, 7, "block-00000-000000000.parquet")
    assert missing_blocks(tmp_path, [other, block]) == [other]
    assert missing_blocks(tmp_path, [Block("shard", 7, 18, block.name)]) == [Block("shard", 7, 18, block.name)]


@pytest.mark.parametrize("kept", [0, 3, 100, -1])
def test_a_truncated_block_is_missing(tmp_path: Path, kept: int) -> None:
    block, _ = block_of(tmp_path, 10)
    path = tmp_path / BLOCK_FOLDER / block.name
    path.write_bytes(path.read_bytes()[:kept])
    assert missing_blocks(tmp_path, [block]) == [block]


@pytest.mark.parametrize(("place", "value"), [(0, 0), (55, 0), (23, 255)])
def test_a_block_with_a_damaged_footer_is_missing(tmp_path: Path, place: int, value: int) -> None:
    block, _ = block_of(tmp_path, 10)
    path = tmp_path / BLOCK_FOLDER / block.name
    content = bytearray(path.read_bytes())
    footer = len(content) - 8 - int.from_bytes(content[-8:-4], "little")
    content[footer + place] = value
    path.write_bytes(content)
    assert missing_blocks(tmp_path, [block]) == [block]


@pytest.mark.parametrize("value", [70_000.0, -70_000.0, np.nan, np.inf])
def test_a_vector_that_half_precision_cannot_hold_is_refused_with_its_passage(tmp_path: Path, value: float) -> None:
    vectors = np.ones((3, 2), dtype=np.float32)
    vectors[1, 1] = value
    with pytest.raises(ConfigError, match=r"passage 'p1' .* float16 .* embed\.normalize=true"):
        write_block(tmp_path, Block("shard", 0, 3, "block"), ids_of(3), vectors)
    assert not (tmp_path / BLOCK_FOLDER / "block").exists()


def test_the_encoder_sees_the_title_on_a_line_of_its_own() -> None:
    assert encoder_text("Paris", "A city.") == "Paris\nA city."
    assert encoder_text("", "A city.") == "A city."
    assert passage_text(Passage("p", "A city.", "Paris")) == "Paris\nA city."


def test_finished_embeddings_give_back_ids_in_corpus_order(tmp_path: Path) -> None:
    passages = some_passages(50)
    corpus = write_corpus(tmp_path / "corpus", passages, shard_rows=20)
    embeddings = Embeddings.open(write_embeddings(tmp_path / "embeddings", corpus, block_rows=8))
    assert [len(ids) for ids, _ in embeddings.iter_blocks()] == [8, 8, 4, 8, 8, 4, 8, 2]
    assert [i for ids, _ in embeddings.iter_blocks() for i in ids] == [passage.id for passage in passages]
    assert (embeddings.num_rows, embeddings.corpus) == (50, Corpus.open(corpus).fingerprint)
    assert (embeddings.encoder.model, embeddings.encoder_config.model) == ("hash:64", "hash:64")


def test_embeddings_that_never_finished_are_none(tmp_path: Path) -> None:
    with pytest.raises(NotAnArtifactError, match="run: ragray embed CORPUS"):
        Embeddings.open(tmp_path)


@pytest.mark.parametrize("damage", ["missing", "flipped"])
def test_embeddings_with_a_damaged_block_are_refused(tmp_path: Path, damage: str) -> None:
    corpus = write_corpus(tmp_path / "corpus", [Passage("p", sentence(1))])
    path = Embeddings.open(write_embeddings(tmp_path / "embeddings", corpus)).blocks[0]
    content = bytearray(path.read_bytes())
    content[10] ^= 1
    path.unlink()
    if damage == "flipped":
        path.write_bytes(content)
    with pytest.raises(CorruptArtifactError, match=path.name):
        Embeddings.open(tmp_path / "embeddings")
