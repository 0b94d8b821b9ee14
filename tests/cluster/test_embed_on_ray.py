"""Embedding on a real cluster: the encoder's own vectors, and after a crash, damage or change only what must be computed."""

import os
import shutil
import signal
import threading
import time
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from transformers import AutoModel, AutoTokenizer

from ragray.cluster import embed as cluster_embed
from ragray.cluster.embed import embed_corpus
from ragray.config import Config, load_config
from ragray.corpus.table import Corpus
from ragray.embed.encoder import HashEncoder
from ragray.embed.shards import BLOCK_FOLDER, Embeddings, load_block, passage_text
from ragray.errors import ArtifactError, ConfigError
from tests.helpers import some_passages, write_corpus
from tests.processes import actors_of_this_process

pytestmark = pytest.mark.usefixtures("ray_session")

PASSAGES = some_passages(100)


def config(*overrides: str) -> Config:
    return load_config(None, ["embed.model=hash:64", "embed.block_rows=16", "embed.num_workers=1", *overrides])


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_corpus(tmp_path_factory.mktemp("corpus"), PASSAGES, shard_rows=40)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, corpus: Path, ray_session: None) -> Path:
    folder = tmp_path_factory.mktemp("embeddings")
    assert embed_corpus(corpus, folder, config("embed.num_workers=2")).num_computed == 100
    return folder


@pytest.fixture
def out(finished: Path, tmp_path: Path) -> Path:
    """A copy of finished embeddings, to be spoilt."""
    return Path(shutil.copytree(finished, tmp_path / "embeddings"))


def vectors_of(folder: Path) -> np.ndarray:
    return np.concatenate([vectors for _, vectors in Embeddings.open(folder).iter_blocks()])


def hashed(dim: int) -> np.ndarray:
    return HashEncoder(dim).encode([passage_text(passage) for passage in PASSAGES]).astype(np.float16)


def state(folder: Path) -> dict[str, tuple[int, bytes]]:
    return {path.name: (path.stat().st_mtime_ns, path.read_bytes()) for path in (folder / BLOCK_FOLDER).iterdir()}


def test_embeddings_hold_the_encoders_vectors_in_corpus_order(finished: Path, corpus: Path) -> None:
    embeddings = Embeddings.open(finished)
    assert [i for ids, _ in embeddings.iter_blocks() for i in ids] == [passage.id for passage in PASSAGES]
    np.testing.assert_array_equal(vectors_of(finished), hashed(64))
    assert embeddings.corpus == Corpus.open(corpus).fingerprint
    assert embeddings.encoder == HashEncoder(64).fingerprint


def test_a_second_run_computes_nothing_and_needs_no_cluster(
    out: Path, corpus: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = state(out)
    monkeypatch.setattr(cluster_embed, "session", None)
    report = embed_corpus(corpus, out, config("embed.num_workers=3", "embed.batch_tokens=64"))
    assert (report.num_passages, report.num_computed, report.reused) == (100, 0, True)
    assert state(out) == before


def test_an_interrupted_run_is_resumed_and_computes_only_the_missing_blocks(out: Path, corpus: Path) -> None:
    before, manifest = state(out), (out / "manifest.json").read_text(encoding="utf-8")
    lost = sorted(before)[1], sorted(before)[-1]
    for path in (out / BLOCK_FOLDER / lost[0], out / BLOCK_FOLDER / lost[1], out / "manifest.json"):
        path.unlink()
    report = embed_corpus(corpus, out, config())
    after = state(out)
    assert report.num_computed == sum(len(load_block(out / BLOCK_FOLDER / name)[0]) for name in lost)
    assert {name: entry for name, entry in after.items() if name not in lost} == {
        name: entry for name, entry in before.items() if name not in lost
    }
    assert [after[name][1] for name in lost] == [before[name][1] for name in lost]
    assert Embeddings.open(out).manifest.files == Embeddings.open(out).manifest.model_validate_json(manifest).files


def test_a_damaged_block_of_a_finished_run_is_computed_again(out: Path, corpus: Path) -> None:
    path = sorted((out / BLOCK_FOLDER).iterdir())[2]
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0x40
    path.write_bytes(content)
    assert pq.read_metadata(path).num_rows == 8
    assert embed_corpus(corpus, out, config()).num_computed == 8
    np.testing.assert_array_equal(vectors_of(out), hashed(64))


def test_another_encoder_starts_over_and_leaves_no_block_of_the_first(out: Path, corpus: Path) -> None:
    report = embed_corpus(corpus, out, config("embed.model=hash:32", "embed.block_rows=30"))
    assert report.num_computed == 100
    np.testing.assert_array_equal(vectors_of(out), hashed(32))
    assert sorted(state(out)) == [path.name for path in Embeddings.open(out).blocks]


def test_another_corpus_starts_over(out: Path, tmp_path: Path) -> None:
    corpus = write_corpus(tmp_path / "corpus", PASSAGES[50:], shard_rows=40)
    assert embed_corpus(corpus, out, config()).num_computed == 50
    np.testing.assert_array_equal(vectors_of(out), hashed(64)[50:])


def test_an_actor_that_is_killed_at_work_loses_nothing(tmp_path: Path, corpus: Path) -> None:
    out, killed = tmp_path / "embeddings", []

    def kill_at_work() -> None:
        while not killed:
            done = len(list((out / BLOCK_FOLDER).glob("block-*")))
            if done >= 3 and (pids := actors_of_this_process("BlockEncoder")):
                os.kill(pids[0], signal.SIGKILL)
                killed.append(done)
            time.sleep(0.01)

    killer = threading.Thread(target=kill_at_work, daemon=True)
    killer.start()
    embed_corpus(corpus, out, config("embed.block_rows=1"))
    killer.join(timeout=10)
    assert 3 <= killed[0] < 100
    np.testing.assert_array_equal(vectors_of(out), hashed(64))


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


def test_a_vector_that_cannot_be_stored_is_an_error_that_names_its_passage(
    tmp_path: Path, tiny_encoder: Path, corpus: Path
) -> None:
    model = AutoModel.from_pretrained(tiny_encoder)
    model.encoder.layer[-1].output.LayerNorm.weight.data *= 1e6
    model.save_pretrained(tmp_path / "loud")
    AutoTokenizer.from_pretrained(tiny_encoder).save_pretrained(tmp_path / "loud")
    loud = config(f"embed.model={tmp_path / 'loud'}", "embed.normalize=false")
    with pytest.raises(ConfigError, match=r"^block-\S+: passage 'p\d+' .* set embed\.normalize=true"):
        embed_corpus(corpus, tmp_path / "embeddings", loud)
    assert not (tmp_path / "embeddings" / "manifest.json").exists()


def test_the_folder_of_another_artefact_is_not_overwritten(tmp_path: Path) -> None:
    corpus = write_corpus(tmp_path / "corpus", PASSAGES)
    with pytest.raises(ArtifactError, match="choose another --out"):
        embed_corpus(corpus, corpus, config())
    assert Corpus.open(corpus).num_passages == 100
