"""Embedding a corpus: the encoder's own vectors, and after a crash, damage or change only what must be computed."""

import json
import shutil
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from ragray.config import Config, load_config
from ragray.corpus.table import Corpus
from ragray.embed.blocks import BLOCK_FOLDER, Embeddings
from ragray.embed.encoder import HashEncoder
from ragray.embed.passage_text import passage_text
from ragray.errors import ArtifactError, ConfigError, EncoderMismatchError
from ragray.execute.processes import ProcessExecutor
from ragray.stages import embed as module
from ragray.types import Passage
from tests.embed.poisonous import ENDLESS, KILLS, RAISES, PoisonousEmbedBlocks
from tests.executors import INLINE, UNUSED, Interfering
from tests.helpers import some_passages, write_corpus

embed_corpus = partial(module.embed_corpus, executor=INLINE)

PASSAGES = some_passages(100)


def config(*overrides: str) -> Config:
    return load_config(None, ["embed.model=hash:64", "embed.block_rows=16", "embed.num_workers=1", *overrides])


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_corpus(tmp_path_factory.mktemp("corpus"), PASSAGES, shard_rows=40)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, corpus: Path) -> Path:
    folder = tmp_path_factory.mktemp("embeddings")
    assert embed_corpus(corpus, folder, config("embed.num_workers=2")).num_computed == 100
    return folder


@pytest.fixture
def out(finished: Path, tmp_path: Path) -> Path:
    """A copy of finished embeddings, to be spoilt."""
    return Path(shutil.copytree(finished, tmp_path / "embeddings"))


def vectors_of(folder: Path) -> np.ndarray:
    return np.concatenate([vectors for _, vectors in Embeddings.open(folder).iter_blocks()])


def hashed(dim: int, passages: list[Passage] = PASSAGES) -> np.ndarray:
    return HashEncoder(dim).encode([passage_text(passage) for passage in passages]).astype(np.float16)


def state(folder: Path) -> dict[str, tuple[int, bytes]]:
    return {path.name: (path.stat().st_mtime_ns, path.read_bytes()) for path in (folder / BLOCK_FOLDER).iterdir()}


def test_embeddings_hold_the_encoders_vectors_in_corpus_order(finished: Path, corpus: Path) -> None:
    embeddings = Embeddings.open(finished)
    assert [i for ids, _ in embeddings.iter_blocks() for i in ids] == [passage.id for passage in PASSAGES]
    np.testing.assert_array_equal(vectors_of(finished), hashed(64))
    assert embeddings.corpus == Corpus.open(corpus).fingerprint
    assert embeddings.encoder == HashEncoder(64).fingerprint


def test_a_second_run_computes_nothing_and_needs_no_worker(out: Path, corpus: Path) -> None:
    before = state(out)
    report = embed_corpus(corpus, out, config("embed.num_workers=3", "embed.batch_tokens=64"), executor=UNUSED)
    assert (report.num_passages, report.num_computed, report.reused) == (100, 0, True)
    assert state(out) == before


def test_only_blocks_that_are_missing_or_damaged_are_computed_again(out: Path, corpus: Path) -> None:
    before, files = state(out), Embeddings.open(out).manifest.files
    names = sorted(before)
    missing, damaged = out / BLOCK_FOLDER / names[1], out / BLOCK_FOLDER / names[2]
    missing.unlink()
    content = bytearray(damaged.read_bytes())
    content[len(content) // 2] ^= 0x40
    damaged.write_bytes(content)
    assert pq.read_metadata(damaged).num_rows == 8
    assert embed_corpus(corpus, out, config()).num_computed == 16 + 8
    after = state(out)
    assert all(after[name] == before[name] for name in names if name not in names[1:3])
    assert [after[name][1] for name in names] == [before[name][1] for name in names]
    assert Embeddings.open(out).manifest.files == files


def test_a_block_that_was_damaged_before_there_was_a_manifest_is_computed_again(out: Path, corpus: Path) -> None:
    before = state(out)
    (out / "manifest.json").write_text("{")
    path = out / BLOCK_FOLDER / sorted(before)[2]
    content = bytearray(path.read_bytes())
    column = pq.read_metadata(path).row_group(0).column(1)
    content[column.data_page_offset + column.total_compressed_size // 2] ^= 0x40
    path.write_bytes(content)
    assert embed_corpus(corpus, out, config()).num_computed == 8
    assert {name: content for name, (_, content) in state(out).items()} == {name: it[1] for name, it in before.items()}


def test_vectors_of_another_encoder_are_refused_and_the_first_ones_stay(out: Path, corpus: Path) -> None:
    before = state(out)
    message = r"made with encoder 'hash:64' \(dim=64\), this run with 'hash:32' \(dim=32\); choose another --out"
    with pytest.raises(EncoderMismatchError, match=message):
        embed_corpus(corpus, out, config("embed.model=hash:32"))
    assert Embeddings.open(out).num_rows == 100
    (out / "manifest.json").unlink()
    with pytest.raises(EncoderMismatchError, match=message):
        embed_corpus(corpus, out, config("embed.model=hash:32"))
    assert state(out) == before


def test_what_killed_writers_left_behind_is_removed(out: Path, corpus: Path) -> None:
    (out / "manifest.json").unlink()
    blocks = state(out)
    (out / BLOCK_FOLDER / ".block-00000.parquet.abc.tmp").write_text("half")
    (out / BLOCK_FOLDER / "block-00000-000000000-otherplan.parquet").write_text("of another plan")
    report = embed_corpus(corpus, out, config("embed.question_prefix=query: ", "embed.num_workers=5"))
    assert (report.num_computed, state(out)) == (0, blocks)
    assert Embeddings.open(out).encoder_config.question_prefix == "query: "


def test_another_corpus_starts_over(out: Path, tmp_path: Path) -> None:
    corpus = write_corpus(tmp_path / "corpus", PASSAGES[50:], shard_rows=40)
    assert embed_corpus(corpus, out, config()).num_computed == 50
    np.testing.assert_array_equal(vectors_of(out), hashed(64)[50:])


def test_paths_may_be_relative_to_where_the_command_is_run(
    tmp_path: Path, tiny_encoder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(tiny_encoder, tmp_path / "encoder")
    write_corpus(tmp_path / "corpus", PASSAGES[:10])
    monkeypatch.chdir(tmp_path)
    embed_corpus(Path("corpus"), Path("embeddings"), config("embed.model=encoder"))
    embeddings = Embeddings.open(Path("embeddings"))
    assert (embeddings.num_rows, embeddings.encoder.dim) == (10, 16)
    assert embeddings.encoder_config.model == str(tmp_path / "encoder")


def test_an_encoder_that_is_at_fault_is_an_error_of_one_line(tmp_path: Path) -> None:
    corpus = write_corpus(tmp_path / "corpus", [Passage(f"p{n}", RAISES) for n in range(10)])
    executor = Interfering(task=PoisonousEmbedBlocks)
    with pytest.raises(ConfigError, match=r"^block-\S+: 10 of its 10 passages cannot be embedded, the first is 'p0'"):
        embed_corpus(corpus, tmp_path / "embeddings", config(), executor=executor)
    assert not (tmp_path / "embeddings" / "manifest.json").exists()


def test_the_folder_of_another_artefact_is_not_overwritten(tmp_path: Path) -> None:
    corpus = write_corpus(tmp_path / "corpus", PASSAGES)
    with pytest.raises(ArtifactError, match="choose another --out"):
        embed_corpus(corpus, corpus, config())
    assert Corpus.open(corpus).num_passages == 100


def test_poisonous_passages_go_to_quarantine_even_if_they_kill_the_process(tmp_path: Path) -> None:
    poison = {3: RAISES, 8: KILLS, 20: ENDLESS}
    passages = [Passage(p.id, f"{p.text} {poison.get(row, '')}") for row, p in enumerate(PASSAGES[:24])]
    corpus = write_corpus(tmp_path / "corpus", passages)
    executor = Interfering(ProcessExecutor(), task=PoisonousEmbedBlocks)
    out = tmp_path / "embeddings"
    report = embed_corpus(corpus, out, config("embed.block_rows=12", "embed.max_crashes=1"), executor=executor)
    assert (report.num_passages, report.num_quarantined) == (21, 3)
    embeddings = Embeddings.open(out)
    assert (embeddings.num_rows, embeddings.num_quarantined) == (21, 3)
    kept = [i for ids, _ in embeddings.iter_blocks() for i in ids]
    assert kept == [p.id for row, p in enumerate(passages) if row not in poison]
    lines = [json.loads(line) for line in (out / "quarantine.jsonl").read_text(encoding="utf-8").splitlines()]
    assert [(line["id"], line["shard"], line["row"]) for line in lines] == [
        (f"p{row}", "part-00000.parquet", row) for row in poison
    ]
    assert [line["reason"] for line in lines] == [
        "ValueError: no such token",
        "it kills the process that encodes it",
        "its vector is not finite in float16",
    ]
    assert not (out / "attempts").exists()
    again = embed_corpus(corpus, out, config("embed.block_rows=12"))
    assert (again.num_computed, again.num_passages, again.num_quarantined) == (0, 21, 3)
