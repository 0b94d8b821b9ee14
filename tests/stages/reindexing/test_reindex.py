"""The passages of an index with other weights: what the stages make of the same corpus; what was killed goes on; no Ray."""

from pathlib import Path

import numpy as np
import pytest
import torch

from ragray.config import EncoderConfig, IndexConfig, load_config
from ragray.corpus.table import Corpus
from ragray.embed.saving import save_encoder
from ragray.embed.transformer import TransformerEncoder
from ragray.errors import ArtifactError
from ragray.index.search.reader import IndexReader
from ragray.index.store.snapshot import SEGMENTS, SNAPSHOTS, find_current, read_snapshot
from ragray.stages.reindexing.linked import keep_snapshots, link_snapshot
from ragray.stages.reindexing.reindex import CORPUS, EMBEDDINGS, Reindexing, export_corpus, reindex
from tests import helpers
from tests.executors import INLINE, UNUSED, Interfering

DELETED = (3, 17)
PASSAGES = helpers.some_passages(40)
LIVE = [passage for row, passage in enumerate(PASSAGES) if row not in DELETED]


@pytest.fixture(scope="module")
def before(tiny_encoder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An index of two segments, two of whose passages are deleted."""
    folder = tmp_path_factory.mktemp("before")
    corpus = helpers.write_corpus(folder / "corpus", PASSAGES)
    config = EncoderConfig(model=str(tiny_encoder), max_length=64, passage_prefix="p: ", question_prefix="q: ")
    embeddings = helpers.write_embeddings(folder / "embeddings", corpus, config=config)
    index = IndexConfig(segment_rows=20, lexical="plain")
    return helpers.write_index(folder / "index", embeddings, corpus, index, deleted=DELETED)


@pytest.fixture(scope="module")
def trained(tiny_encoder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same encoder after some training."""
    encoder = TransformerEncoder.load(EncoderConfig(model=str(tiny_encoder), max_length=64), device="cpu")
    torch.manual_seed(5)
    with torch.no_grad():
        for parameter in encoder.module.parameters():
            parameter += 0.1 * torch.randn_like(parameter)
    folder = tmp_path_factory.mktemp("trained") / "passage_encoder"
    save_encoder(encoder, folder)
    return folder


def planned(before: Path, trained: Path, folder: Path, *, lexical: bool = False) -> Reindexing:
    return Reindexing(
        index=before,
        snapshot=read_snapshot(before).name,
        weights=trained,
        out=folder / "index",
        work=folder,
        scratch=folder / "step",
        config=load_config(None, ["embed.block_rows=8"]),
        lexical=lexical,
    )


def files_of(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def test_the_new_index_holds_the_live_passages_with_vectors_of_the_new_weights(
    before: Path, trained: Path, tmp_path: Path
) -> None:
    """In their order, in as many segments, searched by meaning and by words; all else of the encoder stays."""
    untouched = files_of(before)
    name = reindex(planned(before, trained, tmp_path, lexical=True), INLINE, INLINE)
    reader, old = IndexReader.open(tmp_path / "index"), read_snapshot(before)
    assert reader.snapshot.name == name and len(reader.snapshot.segments) == len(old.segments) == 2
    assert reader.snapshot.lexical == old.lexical
    assert reader.snapshot.encoder.weights != old.encoder.weights
    assert (reader.snapshot.encoder.passage_prefix, reader.snapshot.encoder_config.question_prefix) == ("p: ", "q: ")
    rows = np.arange(len(LIVE))[None]
    found = reader.result(rows, np.zeros(rows.shape, np.float32), with_vectors=True)
    assert [hit.passage for hit in found.hits[0]] == LIVE
    encoder = TransformerEncoder.load(reader.snapshot.encoder_config, device="cpu")
    texts = [f"{passage.title}\n{passage.text}" if passage.title else passage.text for passage in LIVE]
    np.testing.assert_allclose(found.vectors_NKD[0], encoder.encode(texts), atol=1e-3)
    assert [hit.passage for hit in reader.search_text([LIVE[9].text], 1).hits[0]] == [LIVE[9]]
    assert files_of(before) == untouched
    assert not (tmp_path / "step" / EMBEDDINGS).exists()


def test_what_was_killed_goes_on(before: Path, trained: Path, tmp_path: Path) -> None:
    plan, done = planned(before, trained, tmp_path), []

    def count(folder: Path) -> None:
        done.append(len(list((folder / "blocks").glob("block-*"))))

    with pytest.raises(KeyboardInterrupt):
        reindex(plan, Interfering(stop_after=2), INLINE)
    count(plan.scratch / EMBEDDINGS)
    with pytest.raises(KeyboardInterrupt):
        reindex(plan, Interfering(then=count), Interfering(stop_after=1))
    assert done == [2, 5]
    name = reindex(plan, UNUSED, INLINE)
    assert read_snapshot(plan.out).name == name


def test_weights_that_were_never_saved_are_named(before: Path, tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match=r"nowhere: these weights were never saved whole"):
        reindex(planned(before, tmp_path / "nowhere", tmp_path), UNUSED, UNUSED)


def test_the_corpus_is_written_once(before: Path, tmp_path: Path) -> None:
    snapshot = read_snapshot(before)
    corpus = Corpus.open(export_corpus(before, snapshot, tmp_path / CORPUS))
    assert list(corpus.iter_passages()) == LIVE
    assert corpus.num_documents == len({passage.document_id for passage in LIVE})
    written = files_of(tmp_path / CORPUS)
    export_corpus(before, snapshot, tmp_path / CORPUS)
    assert files_of(tmp_path / CORPUS) == written


def test_a_linked_snapshot_is_searched_like_the_one_that_it_shares_its_files_with(before: Path, tmp_path: Path) -> None:
    link_snapshot(before, read_snapshot(before), tmp_path / "linked")
    link_snapshot(before, read_snapshot(before), tmp_path / "linked")
    vectors = np.random.default_rng(0).standard_normal((3, read_snapshot(before).dim)).astype(np.float32)
    mine, linked = (IndexReader.open(index).search(vectors, 5) for index in (before, tmp_path / "linked"))
    np.testing.assert_array_equal(mine.scores_NK, linked.scores_NK)
    assert mine.hits == linked.hits


def test_snapshots_that_are_not_kept_leave_the_disk_and_never_the_users_index(
    before: Path, trained: Path, tmp_path: Path
) -> None:
    untouched, plan = files_of(before), planned(before, trained, tmp_path)
    link_snapshot(before, read_snapshot(before), plan.out)
    name = reindex(plan, INLINE, INLINE)
    assert name.startswith("000002-") and find_current(plan.out) == name
    keep_snapshots(plan.out, {name, plan.snapshot})
    assert len(list((plan.out / SEGMENTS).iterdir())) == 4
    keep_snapshots(plan.out, {name})
    assert [path.stem for path in (plan.out / SNAPSHOTS).iterdir()] == [name]
    assert len(list((plan.out / SEGMENTS).iterdir())) == 2
    assert IndexReader.open(plan.out).snapshot.name == name
    link_snapshot(before, read_snapshot(before), plan.out)
    assert find_current(plan.out) == name
    keep_snapshots(plan.out, {plan.snapshot})
    assert IndexReader.open(plan.out, snapshot=plan.snapshot).snapshot.num_live == len(LIVE)
    assert files_of(before) == untouched
