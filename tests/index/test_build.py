"""Segments hold every row of the corpus once; vectors of other passages are found; recall is what counting gives."""

import itertools
from pathlib import Path

import faiss
import numpy as np
import pytest

from ragray.config import IndexConfig
from ragray.corpus.table import Corpus
from ragray.embed.encoder import HashEncoder
from ragray.embed.shards import Embeddings, passage_text
from ragray.errors import CorruptArtifactError
from ragray.index.build import build_segment, measure_recall, plan_segments, train_empty_index
from ragray.index.plan import plan_index
from ragray.index.segment import Segment
from ragray.types import Passage
from tests.helpers import block_rows, some_passages, write_corpus, write_embeddings

ROWS, DIM = 100, 64
PASSAGES = some_passages(ROWS)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_corpus(tmp_path_factory.mktemp("corpus"), PASSAGES, shard_rows=30)


@pytest.fixture(scope="module")
def embeddings(tmp_path_factory: pytest.TempPathFactory, corpus: Path) -> Embeddings:
    return Embeddings.open(write_embeddings(tmp_path_factory.mktemp("embeddings"), corpus, block_rows=7))


@pytest.mark.parametrize("segment_rows", [1, 6, 7, 33, 99, 100, 1000])
def test_segments_of_equal_size_cover_all_rows_in_order(embeddings: Embeddings, segment_rows: int) -> None:
    plans = plan_segments(embeddings, block_rows(embeddings), segment_rows, "key")
    rows = [row for plan in plans for row in range(plan.start, plan.stop)]
    assert rows == list(range(ROWS))
    sizes = [plan.num_rows for plan in plans]
    assert max(sizes) <= segment_rows
    assert max(sizes) - min(sizes) <= 1
    assert len({plan.name for plan in plans}) == len(plans)


def test_a_segment_names_the_blocks_that_hold_its_rows_and_no_others(embeddings: Embeddings) -> None:
    for plan in plan_segments(embeddings, block_rows(embeddings), 33, "key"):
        spans = [(first, first + rows) for _, first, rows in plan.blocks]
        assert spans[0][0] <= plan.start < spans[0][1]
        assert spans[-1][0] < plan.stop <= spans[-1][1]
        assert all(left[1] == right[0] for left, right in itertools.pairwise(spans))


@pytest.mark.parametrize("segment_rows", [1000, 23])
def test_built_segments_hold_the_passages_of_the_corpus_beside_their_vectors(
    tmp_path: Path, corpus: Path, embeddings: Embeddings, segment_rows: int
) -> None:
    vectors_ND = HashEncoder(DIM).encode([passage_text(passage) for passage in PASSAGES]).astype(np.float16)
    for plan in plan_segments(embeddings, block_rows(embeddings), segment_rows, "key"):
        build_segment(plan, corpus, tmp_path / plan.name, faiss.IndexFlatIP(DIM))
        segment = Segment.open(tmp_path / plan.name, num_rows=plan.num_rows, dim=DIM)
        assert segment.read(range(plan.num_rows)) == PASSAGES[plan.start : plan.stop]
        np.testing.assert_array_equal(segment.vectors_ND, vectors_ND[plan.start : plan.stop])


def test_a_segment_does_not_read_the_shards_before_its_rows(
    tmp_path: Path, embeddings: Embeddings, monkeypatch: pytest.MonkeyPatch
) -> None:
    corpus = write_corpus(tmp_path / "corpus", PASSAGES, shard_rows=30)
    opened = Corpus.open(corpus)
    for path, _ in opened.shards[:2]:
        path.unlink()
    monkeypatch.setattr(Corpus, "open", lambda folder: opened)
    *_, last = plan_segments(embeddings, block_rows(embeddings), 25, "key")
    build_segment(last, corpus, tmp_path / "segment", faiss.IndexFlatIP(DIM))
    segment = Segment.open(tmp_path / "segment", num_rows=25, dim=DIM)
    assert segment.read(range(25)) == PASSAGES[75:]


@pytest.mark.parametrize("wrong", [0, 6, 7, 42, 99])
def test_a_vector_of_another_passage_is_found_and_named(tmp_path: Path, embeddings: Embeddings, wrong: int) -> None:
    changed = [Passage("other", "text") if row == wrong else passage for row, passage in enumerate(PASSAGES)]
    corpus = write_corpus(tmp_path / "corpus", changed, shard_rows=30)
    (plan,) = plan_segments(embeddings, block_rows(embeddings), ROWS, "key")
    with pytest.raises(CorruptArtifactError) as caught:
        build_segment(plan, corpus, tmp_path / "segment", faiss.IndexFlatIP(DIM))
    block = embeddings.blocks[
        next(n for n, (_, first, rows) in enumerate(plan.blocks) if first <= wrong < first + rows)
    ]
    assert str(caught.value).startswith(f"{block}: row ")
    assert f"embeds passage 'p{wrong}', the corpus has 'other' there; embed this corpus again" in str(caught.value)
    assert not (tmp_path / "segment").exists()


def test_a_corpus_that_ends_before_its_embeddings_is_found(tmp_path: Path, embeddings: Embeddings) -> None:
    corpus = write_corpus(tmp_path / "corpus", PASSAGES[:90], shard_rows=30)
    (plan,) = plan_segments(embeddings, block_rows(embeddings), ROWS, "key")
    with pytest.raises(CorruptArtifactError, match="embed this corpus again"):
        build_segment(plan, corpus, tmp_path / "segment", faiss.IndexFlatIP(DIM))


def test_an_exact_index_needs_no_training_and_an_ivf_is_trained_the_same_every_time(embeddings: Embeddings) -> None:
    exact = train_empty_index(plan_index(ROWS, IndexConfig()), embeddings, IndexConfig())
    assert (exact.is_trained, exact.ntotal, exact.metric_type) == (True, 0, faiss.METRIC_INNER_PRODUCT)
    config = IndexConfig(type="ivf", nlist=4)
    one, two = (train_empty_index(plan_index(ROWS, config), embeddings, config) for _ in range(2))
    assert (one.is_trained, one.ntotal, one.metric_type) == (True, 0, faiss.METRIC_INNER_PRODUCT)
    assert faiss.serialize_index(one).tobytes() == faiss.serialize_index(two).tobytes()


def test_an_ivf_can_be_trained_on_a_sample_of_as_many_rows_as_lists(embeddings: Embeddings) -> None:
    config = IndexConfig(type="ivf", nlist=40, train_rows=40)
    assert train_empty_index(plan_index(ROWS, config), embeddings, config).is_trained


def ivf_of(vectors_ND: np.ndarray, nlist: int) -> faiss.Index:
    index = faiss.index_factory(vectors_ND.shape[1], f"IVF{nlist},Flat", faiss.METRIC_INNER_PRODUCT)
    index.cp.min_points_per_centroid = 1
    index.train(vectors_ND.astype(np.float32))
    index.add(vectors_ND.astype(np.float32))
    return index


def random_vectors(rows: int) -> np.ndarray:
    vectors_ND = np.random.default_rng(rows).normal(size=(rows, 16))
    return (vectors_ND / np.linalg.norm(vectors_ND, axis=1, keepdims=True)).astype(np.float16)


def test_recall_is_the_share_of_the_ten_nearest_other_rows_that_the_index_finds() -> None:
    vectors_ND = random_vectors(150)
    index = ivf_of(vectors_ND, 8)
    shares = []
    for row, query_D in enumerate(vectors_ND.astype(np.float32)):
        scores = vectors_ND.astype(np.float32) @ query_D
        scores[row] = -np.inf
        truth = set(np.argsort(-scores)[:10].tolist())
        _, found = index.search(query_D[None], 11, params=faiss.SearchParametersIVF(nprobe=2))
        shares.append(len(truth & set(found[0].tolist())) / 10)
    recall = measure_recall(index, vectors_ND, 2, seed=0)
    assert recall == pytest.approx(np.mean(shares), abs=1e-3)
    assert 0.1 < recall < 0.9


@pytest.mark.parametrize("rows", [2, 5, 300, 70_000])
def test_an_index_that_searches_all_its_lists_has_recall_one(rows: int) -> None:
    vectors_ND = random_vectors(rows)
    assert measure_recall(ivf_of(vectors_ND, 2), vectors_ND, 2, seed=0) == 1


def test_an_index_of_one_row_misses_nothing() -> None:
    assert measure_recall(ivf_of(random_vectors(1), 1), random_vectors(1), 1, seed=0) == 1


def test_which_of_equally_near_rows_is_found_does_not_count_against_recall() -> None:
    vectors_ND = np.repeat(random_vectors(8), 30, axis=0)
    assert measure_recall(ivf_of(vectors_ND, 4), vectors_ND, 4, seed=0) == 1
