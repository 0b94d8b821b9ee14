"""Syncing and compacting: only what is new is embedded, nothing that is gone comes back, kills cost little."""

import shutil
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

from ragray.artifact.lock import exclusive
from ragray.artifact.manifest import unpublish
from ragray.config import Config, IndexConfig, load_config
from ragray.embed.blocks import BLOCK_FOLDER
from ragray.embed.encoder import HashEncoder
from ragray.embed.passage_text import passage_text
from ragray.errors import (
    ArtifactBusyError,
    ArtifactError,
    EncoderMismatchError,
    NotAnArtifactError,
    RagrayError,
    SnapshotConflictError,
)
from ragray.index.search.reader import IndexReader
from ragray.index.store.lifecycle import SYNC_FOLDER, collect_garbage, promote
from ragray.index.store.snapshot import (
    SEGMENTS,
    SNAPSHOT_FORMAT,
    current_name,
    names,
    publish_snapshot,
    read_snapshot,
    successor,
)
from ragray.index.write.delete import delete_passages
from ragray.stages import compact, sync
from ragray.stages.sync import SyncReport
from ragray.text.analyzer import newest
from ragray.types import Hit, Passage
from tests.embed.poisonous import RAISES, PoisonousEmbedBlocks
from tests.executors import INLINE, UNUSED, Interfering
from tests.helpers import index_of, sentence, some_passages, write_corpus, write_embeddings, write_index

sync_index = partial(sync.sync_index, executor=INLINE)
compact_index = partial(compact.compact_index, executor=INLINE)

PASSAGES = some_passages(60)
SETTINGS = IndexConfig(segment_rows=25, lexical="plain")


def edited() -> list[Passage]:
    """Of the 60 passages: 5 gone, 3 with another text, 2 with other metadata, 1 under another id; 4 new ones."""
    passages = {passage.id: passage for passage in PASSAGES[:-5]}
    for number in (3, 27, 40):
        passages[f"p{number}"] = replace(passages[f"p{number}"], text=sentence(1000 + number))
    for number in (5, 50):
        passages[f"p{number}"] = replace(passages[f"p{number}"], metadata={"checked": "yes"})
    moved = replace(passages.pop("p10"), id="moved")
    return [*passages.values(), moved, *(Passage(f"new{n}", sentence(2000 + n), document_id="new") for n in range(4))]


EDITED = edited()
TEXTS = [passage_text(passage) for passage in [*PASSAGES, *EDITED]]
QUESTIONS = HashEncoder(64).encode(TEXTS)


def config(*overrides: str) -> Config:
    return load_config(None, ["index.segment_rows=25", "embed.block_rows=2", *overrides])


def corpus_of(folder: Path, passages: Sequence[Passage]) -> Path:
    return write_corpus(folder / "new-corpus", passages, shard_rows=20)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return index_of(tmp_path_factory.mktemp("finished"), PASSAGES, SETTINGS)


@pytest.fixture(scope="module")
def synced(finished: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, SyncReport]:
    folder = tmp_path_factory.mktemp("synced")
    index = Path(shutil.copytree(finished, folder / "index"))
    return index, sync_index(index, corpus_of(folder, EDITED), config())


@pytest.fixture
def index(finished: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(finished, tmp_path / "index"))


def answers(index: Path) -> list[list[list[Hit]]]:
    """The hits of every question, by vectors, by words and under a filter; equal scores in the order of the ids."""
    reader = IndexReader.open(index)
    count = max(1, reader.snapshot.num_live)
    results = [reader.search(QUESTIONS, count), reader.search(QUESTIONS, count, where="checked == yes")]
    results.append(reader.search_text(TEXTS, count))
    return [[sorted(hits, key=lambda hit: (-hit.score, hit.passage.id)) for hits in result.hits] for result in results]


def found(index: Path) -> dict[str, Passage]:
    """Every passage that any way of searching returns, by its id."""
    return {hit.passage.id: hit.passage for result in answers(index) for hits in result for hit in hits}


def by_id(passages: Sequence[Passage]) -> dict[str, Passage]:
    return {passage.id: passage for passage in passages}


def test_only_what_has_no_vector_is_embedded(synced: tuple[Path, SyncReport]) -> None:
    index, report = synced
    assert (report.added, report.changed, report.deleted, report.unchanged) == (5, 5, 6, 49)
    assert (report.embedded, report.quarantined, report.reused) == (7, 0, False)
    assert report.snapshot == read_snapshot(index)
    assert (report.snapshot.num_live, report.snapshot.num_rows, report.snapshot.parent) == (59, 70, names(index)[0])
    assert [ref.num_rows for ref in report.snapshot.segments] == [20, 20, 20, 10]
    assert not (index / SYNC_FOLDER).exists()


def test_a_synced_index_holds_the_new_corpus_and_nothing_else(synced: tuple[Path, SyncReport]) -> None:
    assert found(synced[0]) == by_id(EDITED)


def test_after_a_sync_and_after_a_compaction_answers_are_those_of_a_fresh_build(
    synced: tuple[Path, SyncReport], tmp_path: Path
) -> None:
    index = Path(shutil.copytree(synced[0], tmp_path / "index"))
    fresh = answers(index_of(tmp_path / "fresh", EDITED, SETTINGS))
    assert answers(index) == fresh
    report = compact_index(index, config())
    assert (report.num_forgotten, report.num_segments_before, report.reused) == (11, 4, False)
    assert [ref.num_rows for ref in report.snapshot.segments] == [19, 20, 20]
    assert (report.snapshot.num_rows, report.snapshot.lexical) == (59, "plain.3")
    assert answers(index) == fresh
    again = compact_index(index, config())
    assert (again.reused, again.snapshot) == (True, report.snapshot)
    collect_garbage(index, keep=0, min_age_s=0)
    assert len(list((index / SEGMENTS).iterdir())) == 3
    assert answers(index) == fresh


def test_the_same_corpus_again_has_nothing_to_do(synced: tuple[Path, SyncReport], tmp_path: Path) -> None:
    report = sync_index(synced[0], corpus_of(tmp_path, EDITED[::-1]), config(), executor=UNUSED)
    assert (report.reused, report.unchanged, report.snapshot) == (True, 59, read_snapshot(synced[0]))
    assert len(names(synced[0])) == 2
    assert not (synced[0] / SYNC_FOLDER).exists()


def test_what_has_a_vector_already_needs_no_encoder(index: Path, tmp_path: Path) -> None:
    passages = [replace(passage, document_id="one") for passage in PASSAGES[:30]]
    report = sync_index(index, corpus_of(tmp_path, passages), config(), executor=UNUSED)
    assert (report.changed, report.deleted, report.embedded) == (30, 30, 0)
    assert [ref.num_rows for ref in report.snapshot.segments] == [20, 20, 20, 15, 15]
    assert found(index) == by_id(passages)


def test_deleting_alone_adds_no_segment(index: Path, tmp_path: Path) -> None:
    report = sync_index(index, corpus_of(tmp_path, PASSAGES[10:]), config(), executor=UNUSED)
    assert (report.deleted, len(report.snapshot.segments)) == (10, 3)
    assert found(index) == by_id(PASSAGES[10:])


def test_a_sync_that_was_killed_goes_on_where_it_was(index: Path, tmp_path: Path) -> None:
    corpus = corpus_of(tmp_path, EDITED)
    with pytest.raises(KeyboardInterrupt):
        sync_index(index, corpus, config(), executor=Interfering(stop_after=3))
    assert found(index) == by_id(PASSAGES)
    written = {path.name: path.stat().st_mtime_ns for path in index.glob(f"{SYNC_FOLDER}/*/embeddings/blocks/*")}
    assert len(written) == 3
    kept = []

    def look(out: Path) -> None:
        kept.append({path.name: path.stat().st_mtime_ns for path in (out / BLOCK_FOLDER).iterdir()})

    assert sync_index(index, corpus, config(), executor=Interfering(then=look)).embedded == 7
    assert len(kept[0]) == 4
    assert written.items() <= kept[0].items()
    assert found(index) == by_id(EDITED)


def test_while_one_sync_runs_a_second_one_and_a_deletion_are_refused(index: Path, tmp_path: Path) -> None:
    corpus = corpus_of(tmp_path, EDITED)
    with exclusive(index):
        for work in (
            lambda: sync_index(index, corpus, config()),
            lambda: compact_index(index, config()),
            lambda: delete_passages(index, ids=["p1"]),
        ):
            with pytest.raises(ArtifactBusyError):
                work()
    assert len(names(index)) == 1


def test_a_sync_never_hides_what_another_writer_published(index: Path, tmp_path: Path) -> None:
    corpus = corpus_of(tmp_path, EDITED)

    def overtake(out: Path) -> None:
        base = read_snapshot(index)
        publish_snapshot(index, successor(index, base, "other", base.segments), expected=base.name)

    with pytest.raises(SnapshotConflictError, match="run again on top of the new one"):
        sync_index(index, corpus, config(), executor=Interfering(then=overtake))
    assert (read_snapshot(index).source, found(index)) == ("other", by_id(PASSAGES))
    promote(index, names(index)[0])
    delete_passages(index, ids=["p57"])  # it is not in the new corpus, so that the same passages are to be embedded
    assert sync_index(index, corpus, config(), executor=UNUSED).snapshot.parent == names(index)[2]  # and are already
    assert found(index) == by_id(EDITED)


def test_a_compaction_that_was_killed_keeps_the_segments_that_are_finished(
    synced: tuple[Path, SyncReport], tmp_path: Path
) -> None:
    index = Path(shutil.copytree(synced[0], tmp_path / "index"))
    before = current_name(index)
    done = compact_index(index, config()).snapshot
    promote(index, before)
    lost, *kept = (index / SEGMENTS / ref.name for ref in done.segments)
    unpublish(lost)
    times = [path.stat().st_mtime_ns for path in kept]
    again = compact_index(index, config()).snapshot
    assert again.segments == done.segments
    assert [path.stat().st_mtime_ns for path in kept] == times
    promote(index, before)
    assert compact_index(index, config(), executor=UNUSED).snapshot.segments == done.segments
    assert found(index) == by_id(EDITED)


@pytest.mark.parametrize(
    ("asked", "changed"),
    [
        ("index.segment_rows=40", {"num_segments": 2}),
        ("index.lexical=english", {"lexical": "english.3", "format_version": SNAPSHOT_FORMAT}),
        ("index.fold_traditional=true", {"lexical": newest("plain", fold_traditional=True)}),
        ("index.chinese_words=true", {"lexical": newest("plain", chinese_words=True)}),
        ("index.type=ivf", {"factory": "IVF4,Flat"}),
        ("index.exact_up_to_rows=10", {"factory": "IVF4,Flat"}),
        ("index.lexical=plain", {}),
        ("index.type=flat", {}),
        ("index.train_rows=1000", {}),
    ],
)
def test_a_compact_index_is_written_anew_where_the_configuration_asks_for_something_else(
    index: Path, asked: str, changed: dict[str, object]
) -> None:
    settings = load_config(None, ["index.min_recall=0", "index.nlist=4", "index.segment_rows=25", asked])
    report = compact_index(index, settings)
    found = {**report.snapshot.model_dump(), "num_segments": len(report.snapshot.segments)}
    assert report.reused is not bool(changed)
    assert {key: found[key] for key in changed} == changed


def test_an_error_in_a_task_of_a_compaction_reaches_the_user_as_one_line(
    synced: tuple[Path, SyncReport], tmp_path: Path
) -> None:
    index = Path(shutil.copytree(synced[0], tmp_path / "index"))
    unpublish(index / SEGMENTS / read_snapshot(index).segments[2].name)
    with pytest.raises(NotAnArtifactError, match="no segment here"):
        compact_index(index, config())
    assert len(names(index)) == 2


def test_an_approximate_index_is_synced_with_its_quantizer_and_compacted_with_a_new_one(tmp_path: Path) -> None:
    passages = some_passages(400)
    settings = config(
        "index.type=ivf", "index.nlist=4", "index.nprobe=4", "index.segment_rows=200", "index.min_recall=0"
    )
    index = index_of(tmp_path, passages, settings.index)
    report = sync_index(index, corpus_of(tmp_path, [*passages[100:], *EDITED[-4:]]), settings)
    assert (report.snapshot.factory, report.embedded, report.deleted) == ("IVF4,Flat", 4, 100)
    wanted = by_id([*passages[100:], *EDITED[-4:]])
    for _ in range(2):
        reader = IndexReader.open(index)
        hits = reader.search(HashEncoder(64).encode([passage_text(p) for p in wanted.values()]), 1).hits
        assert [hit.passage for [hit] in hits] == list(wanted.values())
        compact_index(index, settings)
    assert read_snapshot(index).num_rows == 304
    assert read_snapshot(index).recall_at_10 == 1


def test_a_passage_that_the_encoder_refuses_is_missing_and_keeps_nothing_else_out(index: Path, tmp_path: Path) -> None:
    sync_index = partial(sync.sync_index, executor=Interfering(task=PoisonousEmbedBlocks))
    good = [*PASSAGES[:20], Passage("good", "a harmless text")]
    corpus = corpus_of(tmp_path, [*good, Passage("poison", f"a text {RAISES}")])
    report = sync_index(index, corpus, config())
    assert (report.added, report.deleted, report.embedded, report.quarantined) == (2, 40, 1, 1)
    assert found(index) == by_id(good)
    report = sync_index(index, corpus, config())
    assert (report.added, report.embedded, report.quarantined, report.reused) == (1, 0, 1, True)
    assert len(names(index)) == 2


def test_another_encoder_is_refused_and_the_indexs_own_is_the_default(index: Path, tmp_path: Path) -> None:
    corpus = corpus_of(tmp_path, EDITED)
    with pytest.raises(EncoderMismatchError, match=r"hash:64.*hash:32"):
        sync_index(index, corpus, config("embed.model=hash:32"))
    with pytest.raises(EncoderMismatchError):
        sync_index(index, corpus, config("embed.model=all-minilm-l6-v2"))
    assert len(names(index)) == 1


def test_a_graph_is_frozen(tmp_path: Path) -> None:
    corpus = write_corpus(tmp_path / "corpus", PASSAGES)
    embeddings = write_embeddings(tmp_path / "embeddings", corpus)
    index = write_index(tmp_path / "index", embeddings, corpus, IndexConfig(type="hnsw"))
    with pytest.raises(ArtifactError, match=r"frozen; build a new index .* ragray index compact"):
        sync_index(index, corpus_of(tmp_path, EDITED), config())
    delete_passages(index, ids=["p1"])
    compacted = compact_index(index, config("index.type=flat")).snapshot
    assert (compacted.factory, compacted.num_rows) == ("Flat", 59)
    assert sync_index(index, corpus_of(tmp_path, PASSAGES[2:]), config()).snapshot.num_live == 58


def test_an_index_without_passages_is_synced_but_not_compacted_and_what_was_deleted_is_embedded_anew(
    index: Path, tmp_path: Path
) -> None:
    sync_index(index, corpus_of(tmp_path / "none", []), config())
    assert found(index) == {}
    with pytest.raises(ArtifactError, match=r"all passages .* are deleted; sync it with a corpus"):
        compact_index(index, config())
    assert sync_index(index, corpus_of(tmp_path, PASSAGES[:3]), config()).embedded == 3
    assert found(index) == by_id(PASSAGES[:3])
    assert compact_index(index, config()).snapshot.num_rows == 3


def test_a_folder_that_is_no_index_is_refused_and_left_alone(tmp_path: Path) -> None:
    corpus = corpus_of(tmp_path, EDITED)
    for work in (lambda: sync_index(tmp_path / "x", corpus, config()), lambda: compact_index(tmp_path / "x", config())):
        with pytest.raises(RagrayError, match="not an index"):
            work()
    assert not (tmp_path / "x").exists()
