"""Segments hold every vector of the embeddings once, beside its passage; training is done once and can be taken up again."""

import itertools
from pathlib import Path
from typing import get_args

import faiss
import numpy as np
import pytest

from ragray.artifact.manifest import publish
from ragray.config import EncoderConfig, IndexConfig, IndexType
from ragray.corpus.table import Corpus
from ragray.embed.blocks import (
    BLOCK_FOLDER,
    Embeddings,
    Refused,
    embeddings_facts,
    plan_blocks,
    read_block,
    write_block,
)
from ragray.embed.encoder import HashEncoder
from ragray.embed.passage_text import encoder_text, passage_text
from ragray.errors import CorruptArtifactError
from ragray.index.plan.choose import plan_index
from ragray.index.store.segment import Segment
from ragray.index.write.build import build_segment, plan_segments, sample_rows, train_empty_index, trained_like
from ragray.types import Passage
from tests.helpers import some_passages, write_corpus, write_embeddings

ROWS, DIM = 100, 64
PASSAGES = some_passages(ROWS)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_corpus(tmp_path_factory.mktemp("corpus"), PASSAGES, shard_rows=30)


@pytest.fixture(scope="module")
def embeddings(tmp_path_factory: pytest.TempPathFactory, corpus: Path) -> Embeddings:
    return Embeddings.open(write_embeddings(tmp_path_factory.mktemp("embeddings"), corpus, block_rows=7))


@pytest.mark.parametrize("segment_rows", [1, 6, 7, 33, 99, 100, 1000])
def test_segments_of_equal_size_cover_all_rows_in_order(
    corpus: Path, embeddings: Embeddings, segment_rows: int
) -> None:
    plans = plan_segments(embeddings, Corpus.open(corpus), segment_rows, "key")
    rows = [row for plan in plans for row in range(plan.start, plan.stop)]
    assert rows == list(range(ROWS))
    sizes = [plan.num_rows for plan in plans]
    assert max(sizes) <= segment_rows
    assert max(sizes) - min(sizes) <= 1
    assert len({plan.name for plan in plans}) == len(plans)


def test_a_segment_names_the_blocks_that_hold_its_rows_and_no_others(corpus: Path, embeddings: Embeddings) -> None:
    for plan in plan_segments(embeddings, Corpus.open(corpus), 33, "key"):
        spans = [(span.first, span.stop) for span in plan.blocks]
        assert spans[0][0] <= plan.start < spans[0][1]
        assert spans[-1][0] < plan.stop <= spans[-1][1]
        assert all(left[1] == right[0] for left, right in itertools.pairwise(spans))


@pytest.mark.parametrize("segment_rows", [1000, 23])
def test_built_segments_hold_the_passages_of_the_corpus_beside_their_vectors(
    tmp_path: Path, corpus: Path, embeddings: Embeddings, segment_rows: int
) -> None:
    vectors_ND = HashEncoder(DIM).encode([passage_text(passage) for passage in PASSAGES]).astype(np.float16)
    for plan in plan_segments(embeddings, Corpus.open(corpus), segment_rows, "key"):
        build_segment(plan, tmp_path / plan.name, faiss.IndexFlatIP(DIM))
        segment = Segment.open(tmp_path / plan.name, num_rows=plan.num_rows, dim=DIM)
        assert segment.read(range(plan.num_rows)) == PASSAGES[plan.start : plan.stop]
        np.testing.assert_array_equal(segment.vectors_ND, vectors_ND[plan.start : plan.stop])


def test_a_segment_reads_only_the_shards_that_hold_its_rows(tmp_path: Path, embeddings: Embeddings) -> None:
    corpus = Corpus.open(write_corpus(tmp_path / "corpus", PASSAGES, shard_rows=30))
    *_, last = plan_segments(embeddings, corpus, 25, "key")
    for path, _ in corpus.shards[:2]:
        path.unlink()
    build_segment(last, tmp_path / "segment", faiss.IndexFlatIP(DIM))
    assert Segment.open(tmp_path / "segment", num_rows=25, dim=DIM).read(range(25)) == PASSAGES[75:]


@pytest.mark.parametrize("wrong", [0, 6, 7, 42, 99])
def test_a_vector_of_another_passage_is_found_and_named(tmp_path: Path, embeddings: Embeddings, wrong: int) -> None:
    changed = [Passage("other", "text") if row == wrong else passage for row, passage in enumerate(PASSAGES)]
    corpus = write_corpus(tmp_path / "corpus", changed, shard_rows=30)
    (plan,) = plan_segments(embeddings, Corpus.open(corpus), ROWS, "key")
    with pytest.raises(CorruptArtifactError) as caught:
        build_segment(plan, tmp_path / "segment", faiss.IndexFlatIP(DIM))
    block = embeddings.blocks[next(n for n, span in enumerate(plan.blocks) if span.first <= wrong < span.stop)]
    assert str(caught.value).startswith(f"{block}: row ")
    assert f"embeds passage 'p{wrong}', the corpus has 'other' there; embed this corpus again" in str(caught.value)
    assert not (tmp_path / "segment").exists()


def test_embeddings_that_stand_for_more_passages_than_the_corpus_has_are_found(
    tmp_path: Path, embeddings: Embeddings
) -> None:
    corpus = Corpus.open(write_corpus(tmp_path / "corpus", PASSAGES[:90], shard_rows=30))
    with pytest.raises(
        CorruptArtifactError, match=r"100 vectors of 100 passages, expected 100 of 90.*embed this corpus again"
    ):
        plan_segments(embeddings, corpus, ROWS, "key")


REFUSED = [0, 1, 2, 6, 7, 40, *range(49, 63), 99]
"""Among them the first row, the last, and two whole blocks of seven."""


@pytest.mark.parametrize("segment_rows", [1000, 9])
def test_passages_that_were_refused_by_the_encoder_are_left_out(
    tmp_path: Path, corpus: Path, segment_rows: int
) -> None:
    opened = Corpus.open(corpus)
    embeddings = Embeddings.open(embeddings_without(tmp_path / "embeddings", opened, REFUSED))
    kept = [passage for row, passage in enumerate(PASSAGES) if row not in REFUSED]
    found = []
    for plan in plan_segments(embeddings, opened, segment_rows, "key"):
        build_segment(plan, tmp_path / plan.name, faiss.IndexFlatIP(DIM))
        segment = Segment.open(tmp_path / plan.name, num_rows=plan.num_rows, dim=DIM)
        found += segment.read(range(plan.num_rows))
        expected = HashEncoder(DIM).encode([passage_text(p) for p in kept[plan.start : plan.stop]])
        np.testing.assert_array_equal(segment.vectors_ND, expected.astype(np.float16))
    assert found == kept
    assert len(sample_rows(embeddings, 50, 0)) == 50


def embeddings_without(folder: Path, corpus: Corpus, refused: list[int]) -> Path:
    """Write embeddings in blocks of seven rows a shard, as `ragray embed` does when it refuses some rows."""
    blocks, first = plan_blocks(corpus.shards, 7), 0
    for block in blocks:
        left_out = [row - first for row in refused if first <= row < first + block.num_rows]
        table = read_block(block)
        kept = table.filter([row not in left_out for row in range(block.num_rows)])
        pairs = zip(kept["title"].to_pylist(), kept["text"].to_pylist(), strict=True)
        vectors_ND = HashEncoder(DIM).encode([encoder_text(title, text) for title, text in pairs])
        lost = [Refused(row, table["id"][row].as_py(), "too odd") for row in left_out]
        write_block(folder, block, kept["id"], vectors_ND, lost)
        first += block.num_rows
    facts = embeddings_facts(
        num_rows=ROWS - len(refused),
        corpus=corpus.fingerprint,
        encoder=HashEncoder(DIM).fingerprint,
        config=EncoderConfig(model=f"hash:{DIM}"),
        num_quarantined=len(refused),
    )
    files = [folder / BLOCK_FOLDER / block.name for block in blocks]
    publish(folder, kind="embeddings", fingerprint="refused", facts=facts, files=files)
    return folder


def trained(embeddings: Embeddings, config: IndexConfig) -> faiss.Index:
    plan = plan_index(ROWS, DIM, config)
    return train_empty_index(plan, sample_rows(embeddings, plan.train_rows, config.seed), config)


@pytest.mark.parametrize("rows", [1, 13, 99, 100, 1000])
def test_a_sample_has_as_many_rows_as_asked_for_each_once_and_always_the_same(
    embeddings: Embeddings, rows: int
) -> None:
    sample_SD = sample_rows(embeddings, rows, seed=1)
    all_ND = {vector.tobytes() for _, vectors in embeddings.iter_blocks() for vector in vectors.astype(np.float32)}
    assert len(sample_SD) == len({vector.tobytes() for vector in sample_SD} & all_ND) == min(rows, ROWS)
    np.testing.assert_array_equal(sample_SD, sample_rows(embeddings, rows, seed=1))


def test_an_exact_index_needs_no_training_and_an_ivf_is_trained_the_same_every_time(embeddings: Embeddings) -> None:
    exact = trained(embeddings, IndexConfig())
    assert (exact.is_trained, exact.ntotal, exact.metric_type) == (True, 0, faiss.METRIC_INNER_PRODUCT)
    one, two = (trained(embeddings, IndexConfig(type="ivf", nlist=4)) for _ in range(2))
    assert (one.is_trained, one.ntotal, one.metric_type) == (True, 0, faiss.METRIC_INNER_PRODUCT)
    assert faiss.serialize_index(one).tobytes() == faiss.serialize_index(two).tobytes()


def test_an_ivf_can_be_trained_on_a_sample_of_as_many_rows_as_lists(embeddings: Embeddings) -> None:
    assert trained(embeddings, IndexConfig(type="ivf", nlist=40, train_rows=40)).is_trained


@pytest.mark.parametrize("type_", get_args(IndexType))
def test_an_index_like_that_of_a_segment_is_empty_and_finds_what_the_first_did(
    tmp_path: Path, corpus: Path, embeddings: Embeddings, type_: IndexType
) -> None:
    (plan,) = plan_segments(embeddings, Corpus.open(corpus), ROWS, "key")
    empty = trained(embeddings, IndexConfig(type=type_, nlist=0 if type_ in ("flat", "hnsw") else 4))
    before = faiss.serialize_index(empty).tobytes()
    build_segment(plan, tmp_path / "segment", empty)
    segment = Segment.open(tmp_path / "segment", num_rows=ROWS, dim=DIM)
    again = trained_like(segment)
    assert (again.ntotal, again.is_trained, again.metric_type) == (0, True, faiss.METRIC_INNER_PRODUCT)
    assert faiss.serialize_index(again).tobytes() == before
    again.add(segment.vectors_ND.astype(np.float32))
    if type_ == "hnsw":  # a graph depends on how many rows were added at a time
        return
    queries_ND = segment.vectors_ND[::7].astype(np.float32)
    ours, theirs = again.search(queries_ND, 5)[0], segment.index.search(queries_ND, 5)[0]
    np.testing.assert_allclose(ours, theirs, rtol=1e-4)
