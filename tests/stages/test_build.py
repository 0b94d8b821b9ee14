"""Building an index: whole, in parts, again, after damage; what does not belong together is refused."""

import json
import shutil
from dataclasses import replace
from functools import partial
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from ragray.artifact.manifest import publish, read_manifest, unpublish
from ragray.config import Config, EncoderConfig, load_config
from ragray.corpus.table import Corpus
from ragray.embed.blocks import (
    BLOCK_FOLDER,
    REFUSED_KEY,
    Refused,
    embeddings_facts,
    plan_blocks,
    read_block,
    write_block,
)
from ragray.embed.encoder import HashEncoder
from ragray.embed.passage_text import passage_text
from ragray.errors import ArtifactError, CorruptArtifactError, IndexBudgetError
from ragray.index.search.reader import IndexReader
from ragray.index.store.lifecycle import TRAINED, promote, rollback
from ragray.index.store.segment import FAISS_FILE
from ragray.index.store.snapshot import CURRENT, SEGMENTS, SNAPSHOTS, publish_snapshot, read_snapshot
from ragray.index.write.delete import delete_passages
from ragray.stages import build as module
from ragray.types import Passage
from tests.executors import INLINE, UNUSED
from tests.helpers import index_of, some_passages, write_corpus, write_embeddings

build_index = partial(module.build_index, executor=INLINE)
without_work = partial(module.build_index, executor=UNUSED)

PASSAGES = some_passages(100)
QUESTIONS = HashEncoder(64).encode([passage_text(passage) for passage in PASSAGES])


def config(*overrides: str) -> Config:
    return load_config(None, ["index.segment_rows=30", "index.lexical=none", *overrides])


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_corpus(tmp_path_factory.mktemp("corpus"), PASSAGES, shard_rows=40)


@pytest.fixture(scope="module")
def embeddings(tmp_path_factory: pytest.TempPathFactory, corpus: Path) -> Path:
    return write_embeddings(tmp_path_factory.mktemp("embeddings"), corpus, block_rows=7)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, embeddings: Path, corpus: Path) -> Path:
    folder = tmp_path_factory.mktemp("index")
    assert not build_index(embeddings, corpus, folder, config()).reused
    return folder


@pytest.fixture
def out(finished: Path, tmp_path: Path) -> Path:
    """A copy of a finished index, to be spoilt."""
    return Path(shutil.copytree(finished, tmp_path / "index"))


def segments(folder: Path) -> list[Path]:
    return sorted((folder / SEGMENTS).iterdir())


def times(paths: list[Path]) -> dict[Path, int]:
    return {file: file.stat().st_mtime_ns for path in paths for file in path.iterdir()}


def assert_whole(folder: Path) -> None:
    found = IndexReader.open(folder).search(QUESTIONS, 1)
    assert [hits[0].passage for hits in found.hits] == PASSAGES
    assert found.rows_NK[:, 0].tolist() == list(range(100))


def test_segments_are_built_apart_and_found_as_one_index(finished: Path, tmp_path: Path) -> None:
    assert_whole(finished)
    one = IndexReader.open(index_of(tmp_path, PASSAGES)).search(QUESTIONS, 5)
    four = IndexReader.open(finished).search(QUESTIONS, 5)
    assert four.hits == one.hits
    assert four.scores_NK.tobytes() == one.scores_NK.tobytes()


def test_the_snapshot_says_what_the_index_is_made_of(finished: Path) -> None:
    snapshot = read_snapshot(finished)
    assert [segment.num_rows for segment in snapshot.segments] == [25, 25, 25, 25]
    assert (snapshot.parent, snapshot.factory, snapshot.search_params.nprobe, snapshot.recall_at_10) == (
        None,
        "Flat",
        0,
        None,
    )
    assert (snapshot.encoder, snapshot.dim) == (HashEncoder(64).fingerprint, 64)


def test_a_second_run_has_nothing_to_do(out: Path, embeddings: Path, corpus: Path) -> None:
    before = times(segments(out))
    report = without_work(embeddings, corpus, out, config())
    assert report.reused
    assert report.snapshot == read_snapshot(out)
    assert len(list((out / SNAPSHOTS).iterdir())) == 1
    assert times(segments(out)) == before


def test_what_was_changed_since_the_build_is_not_undone_by_building_again(
    out: Path, embeddings: Path, corpus: Path, caplog: pytest.LogCaptureFixture
) -> None:
    built = read_snapshot(out).name
    changed = delete_passages(out, ids=[PASSAGES[3].id]).snapshot
    with caplog.at_level("INFO", logger="ragray"):
        report = without_work(embeddings, corpus, out, config())
    assert report.reused and report.snapshot == changed == read_snapshot(out)
    assert f"changed since (now {changed.name})" in caplog.text
    promote(out, built)
    assert_whole(out)


def test_embeddings_that_lack_other_passages_make_other_segments(
    out: Path, embeddings: Path, corpus: Path, tmp_path: Path
) -> None:
    """A passage that was refused once, and not when the folder was made again: the manifest's fingerprint is the same."""
    before = read_snapshot(out)
    again = tmp_path / "embeddings"
    shutil.copytree(embeddings, again)
    manifest = read_manifest(again, "embeddings")
    path = again / manifest.files[0].path
    table = pq.read_table(path)
    refused = [{"row": 0, "id": table["id"][0].as_py(), "reason": "a test"}]
    metadata = {**(table.schema.metadata or {}), REFUSED_KEY: json.dumps(refused).encode()}
    pq.write_table(table.slice(1).replace_schema_metadata(metadata), path)
    files = [again / entry.path for entry in manifest.files]
    facts = {**manifest.facts, "num_rows": 99, "num_quarantined": 1}
    publish(again, kind="embeddings", fingerprint=manifest.fingerprint, facts=facts, files=files)
    report = build_index(again, corpus, out, config())
    assert not report.reused and report.snapshot.num_live == 99
    assert not {ref.name for ref in before.segments} & {ref.name for ref in report.snapshot.segments}
    rollback(out)
    assert_whole(out)


def test_an_interrupted_build_is_resumed_and_builds_only_the_missing_segments(
    out: Path, embeddings: Path, corpus: Path
) -> None:
    shutil.rmtree(out / SNAPSHOTS)
    (out / CURRENT).unlink()
    first, second, third, fourth = segments(out)
    shutil.rmtree(second)
    unpublish(third)
    shutil.copytree(fourth, out / SEGMENTS / f".{second.name}.0a1b2c3d.tmp")
    before = times([first, fourth])
    report = build_index(embeddings, corpus, out, config())
    assert not report.reused
    assert segments(out) == [first, second, third, fourth]
    assert times([first, fourth]) == before
    assert_whole(out)


def test_a_damaged_segment_of_the_current_snapshot_is_built_again(out: Path, embeddings: Path, corpus: Path) -> None:
    first, second, *others = segments(out)
    path = second / FAISS_FILE
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    before, parent = times([first, *others]), read_snapshot(out).name
    report = build_index(embeddings, corpus, out, config())
    assert (report.reused, report.snapshot.parent) == (False, parent)
    assert times([first, *others]) == before
    assert_whole(out)


@pytest.mark.parametrize("content", [b"{", b'{"name": "x"}'])
def test_an_unreadable_snapshot_is_replaced_by_a_new_one(
    out: Path, embeddings: Path, corpus: Path, content: bytes
) -> None:
    (out / SNAPSHOTS / f"{read_snapshot(out).name}.json").write_bytes(content)
    assert not without_work(embeddings, corpus, out, config()).reused
    assert_whole(out)


def test_ivf_records_its_recall_and_paths_may_be_relative(
    tmp_path: Path, embeddings: Path, corpus: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(embeddings, tmp_path / "embeddings")
    shutil.copytree(corpus, tmp_path / "corpus")
    monkeypatch.chdir(tmp_path)
    settings = config("index.type=ivf", "index.nlist=4", "index.nprobe=1", "index.min_recall=0", "index.lexical=plain")
    snapshot = build_index(Path("embeddings"), Path("corpus"), Path("index"), settings).snapshot
    assert (snapshot.factory, snapshot.search_params.nprobe, snapshot.lexical) == ("IVF4,Flat", 1, "plain.3")
    assert snapshot.recall_at_10 is not None
    assert 0 < snapshot.recall_at_10 < 1
    changed = snapshot.model_copy(
        update={"name": "000002-all", "search_params": replace(snapshot.search_params, nprobe=4)}
    )
    publish_snapshot(tmp_path / "index", changed, expected=snapshot.name)
    assert_whole(tmp_path / "index")


def test_a_build_that_the_budgets_refuse_publishes_nothing_and_goes_on_from_its_segments(
    tmp_path: Path, embeddings: Path, corpus: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "index"
    lists = ["index.type=ivf", "index.nlist=4"]
    with pytest.raises(
        IndexBudgetError, match=r"recall@10 0\.\d+ at best .* nothing was published: raise index\.nprobe"
    ):
        build_index(embeddings, corpus, folder, config(*lists, "index.nprobe=1"))
    assert not (folder / CURRENT).exists()
    assert len(list((folder / TRAINED).iterdir())) == 1
    before = times(segments(folder))
    monkeypatch.setattr(module, "train_empty_index", None)
    shutil.rmtree(segments(folder)[0])
    report = build_index(embeddings, corpus, folder, config(*lists))
    assert report.snapshot.recall_at_10 is not None
    assert report.snapshot.recall_at_10 >= 0.95
    assert {path: time for path, time in times(segments(folder)).items() if path.parent != segments(folder)[0]} == {
        path: time for path, time in before.items() if path.parent != segments(folder)[0]
    }
    assert not (folder / TRAINED).exists()
    again = without_work(embeddings, corpus, folder, config(*lists, "index.min_recall=0.5"))
    assert (again.reused, again.snapshot.segments) == (False, report.snapshot.segments)


def test_embeddings_without_a_vector_are_refused(tmp_path: Path, corpus: Path) -> None:
    whole = Corpus.open(corpus)
    blocks = plan_blocks(whole.shards, 1000)
    encoder = HashEncoder(64)
    for block in blocks:
        ids = read_block(block)["id"]
        refused = [Refused(row, id_.as_py(), "too odd") for row, id_ in enumerate(ids)]
        write_block(tmp_path, block, ids.slice(0, 0), encoder.encode([]), refused)
    facts = embeddings_facts(
        num_rows=0, corpus=whole.fingerprint, encoder=encoder.fingerprint, config=EncoderConfig(), num_quarantined=100
    )
    files = [tmp_path / BLOCK_FOLDER / block.name for block in blocks]
    publish(tmp_path, kind="embeddings", fingerprint="none", facts=facts, files=files)
    with pytest.raises(ArtifactError, match="holds no vector, 100 passages are in its quarantine"):
        without_work(tmp_path, corpus, tmp_path / "index", config())


def test_embeddings_of_another_corpus_are_refused(tmp_path: Path, embeddings: Path) -> None:
    other = write_corpus(tmp_path / "corpus", some_passages(99))
    with pytest.raises(ArtifactError, match=r"made from another corpus than .* run: ragray embed"):
        without_work(embeddings, other, tmp_path / "index", config())


def test_an_error_in_a_task_reaches_the_user_as_one_line(tmp_path: Path, embeddings: Path, corpus: Path) -> None:
    changed = [Passage("other", "text") if row == 60 else passage for row, passage in enumerate(PASSAGES)]
    folder = write_corpus(tmp_path / "corpus", changed, shard_rows=40)
    manifest = read_manifest(folder, "corpus")
    claimed = Corpus.open(corpus).fingerprint
    publish(folder, kind="corpus", fingerprint=claimed, facts=manifest.facts, files=manifest.files)
    with pytest.raises(CorruptArtifactError, match=r"^\S+: row \d embeds passage 'p60', the corpus has 'other'.*$"):
        build_index(embeddings, folder, tmp_path / "index", config("index.segment_rows=50"))
    assert not (tmp_path / "index" / CURRENT).exists()
