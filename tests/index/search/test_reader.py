"""Search equals brute force, however the rows are cut into segments and shards; deleted rows never come back."""

import multiprocessing
import shutil
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from ragray.config import IndexConfig, IndexType
from ragray.embed.encoder import HashEncoder
from ragray.embed.passage_text import passage_text
from ragray.errors import EncoderMismatchError, InputError, NotAnArtifactError
from ragray.index.search.reader import FEW_ROWS, MAX_RESULTS, IndexReader, follow_current
from ragray.index.search.result import SearchResult, merge
from ragray.index.store.segment import Segment
from ragray.index.store.snapshot import CURRENT, SEGMENTS, SNAPSHOTS, current_name
from ragray.types import Passage
from tests.helpers import index_of, sentence, some_passages, write_index

ROWS, DIM = 200, 64
DIFFERENT = some_passages(ROWS)
EQUAL = [Passage(f"p{n}", "all the same") for n in range(ROWS)]
NEARLY_EQUAL = [Passage(f"p{n}", "same" if n in (3, 77, 150) else "same words") for n in range(ROWS)]
QUESTIONS = HashEncoder(DIM).encode([sentence(10_000 + n) for n in range(30)] + ["same", "words", "unknown", ""])


def brute_force(passages: list[Passage], k: int, deleted: set[int] | None = None) -> SearchResult:
    """Score every row in half precision, sort by score and row."""
    vectors_ND = HashEncoder(DIM).encode([passage_text(passage) for passage in passages]).astype(np.float16)
    live = np.array([row for row in range(len(passages)) if row not in (deleted or set())])
    found = []
    for query_D in QUESTIONS:
        scores = np.einsum("nd,d->n", vectors_ND[live].astype(np.float32), query_D)
        order = np.lexsort((live, -scores))[:k]
        found.append((live[order], scores[order]))
    rows_NK = np.stack([rows for rows, _ in found])
    return SearchResult(rows_NK, np.stack([scores for _, scores in found]), vectors_ND[rows_NK], [])


def assert_same(found: SearchResult, expected: SearchResult) -> None:
    np.testing.assert_array_equal(found.rows_NK, expected.rows_NK)
    assert found.scores_NK.tobytes() == expected.scores_NK.tobytes()
    assert found.vectors_NKD.tobytes() == expected.vectors_NKD.tobytes()


CORPORA = {"different": DIFFERENT, "equal": EQUAL, "nearly equal": NEARLY_EQUAL}
SEGMENT_ROWS = {1: 1000, 4: 50, 7: 29}


@pytest.fixture(scope="module")
def indices(tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[str, int], Path]:
    root = tmp_path_factory.mktemp("indices")
    return {
        (name, count): index_of(root / f"{name}-{count}", passages, IndexConfig(segment_rows=rows))
        for name, passages in CORPORA.items()
        for count, rows in SEGMENT_ROWS.items()
    }


@pytest.fixture(scope="module")
def one_segment(indices: dict[tuple[str, int], Path]) -> IndexReader:
    return IndexReader.open(indices["different", 1])


@pytest.mark.parametrize("num_segments", SEGMENT_ROWS)
@pytest.mark.parametrize("name", CORPORA)
@pytest.mark.parametrize("k", [1, 5, 150])
def test_search_is_brute_force_with_ties_to_the_lower_row_however_many_segments(
    indices: dict[tuple[str, int], Path], name: str, num_segments: int, k: int
) -> None:
    reader = IndexReader.open(indices[name, num_segments])
    assert len(reader.snapshot.segments) == num_segments
    assert_same(reader.search(QUESTIONS, k, with_vectors=True), brute_force(CORPORA[name], k))


@pytest.mark.parametrize("name", CORPORA)
@pytest.mark.parametrize("num_shards", [2, 4, 6])
def test_shards_merged_are_the_whole_index_to_the_last_bit(
    indices: dict[tuple[str, int], Path], name: str, num_shards: int
) -> None:
    index = indices[name, 4]
    parts = [
        IndexReader.open(index, shard=shard, num_shards=num_shards).search(QUESTIONS, 5, with_vectors=True)
        for shard in range(num_shards)
    ]
    whole = IndexReader.open(index).search(QUESTIONS, 5, with_vectors=True)
    assert_same(merge(parts, 5), whole)
    assert merge(parts, 5).hits == whole.hits


def test_vectors_come_along_only_where_they_are_asked_for(one_segment: IndexReader) -> None:
    found, whole = one_segment.search(QUESTIONS, 5), one_segment.search(QUESTIONS, 5, with_vectors=True)
    assert found.vectors_NKD.shape == (len(QUESTIONS), 5, 0)
    assert whole.vectors_NKD.shape == (len(QUESTIONS), 5, DIM)
    assert found.hits == whole.hits
    assert all(hit.dense == hit.score for hits in found.hits for hit in hits)


@pytest.mark.parametrize("num_shards", [1, 3])
def test_what_words_find_carries_the_inner_product_with_the_questions_vector(tmp_path: Path, num_shards: int) -> None:
    index = index_of(tmp_path, DIFFERENT, IndexConfig(segment_rows=50, lexical="plain"))
    readers = [IndexReader.open(index, shard=shard, num_shards=num_shards) for shard in range(num_shards)]
    texts = [sentence(n) for n in range(20)]
    vectors_ND = HashEncoder(DIM).encode(texts)
    found = merge([reader.search_text(texts, 7, vectors_ND=vectors_ND) for reader in readers], 7)
    assert found.both is not None
    assert np.array_equal(found.both.lexical_NK, found.scores_NK)
    assert found.both.dense_NK.tolist() == [[hit.dense for hit in hits] for hits in found.hits]
    exact = IndexReader.open(index).search(vectors_ND, ROWS)
    for number, hits in enumerate(found.hits):
        assert len(hits) == 7
        by_id = {hit.passage.id: hit.score for hit in exact.hits[number]}
        assert [hit.dense for hit in hits] == [by_id[hit.passage.id] for hit in hits]
    without = IndexReader.open(index).search_text(texts, 7)
    assert [[(h.passage, h.score) for h in hits] for hits in without.hits] == [
        [(h.passage, h.score) for h in hits] for hits in found.hits
    ]
    assert {hit.dense for hits in without.hits for hit in hits} == {None}
    with pytest.raises(EncoderMismatchError, match="has 64 dimensions"):
        readers[0].search_text(texts, 7, vectors_ND=vectors_ND[:, 1:])


def test_a_question_finds_the_same_alone_and_among_others(one_segment: IndexReader) -> None:
    together = one_segment.search(QUESTIONS, 5)
    for number in range(len(QUESTIONS)):
        alone = one_segment.search(QUESTIONS[number : number + 1], 5)
        assert alone.hits == together.hits[number : number + 1]
        assert alone.scores_NK.tobytes() == together.scores_NK[number].tobytes()


def test_hits_are_the_passages_of_the_rows_with_their_scores(one_segment: IndexReader) -> None:
    found = one_segment.search(QUESTIONS, 5)
    for rows, scores, hits in zip(found.rows_NK, found.scores_NK, found.hits, strict=True):
        assert [hit.passage for hit in hits] == [DIFFERENT[row] for row in rows]
        assert [hit.score for hit in hits] == scores.tolist()


@pytest.mark.parametrize(
    "config", [IndexConfig(), IndexConfig(segment_rows=50), IndexConfig(type="ivf", nlist=4, nprobe=4)]
)
def test_deleted_rows_never_come_back(tmp_path: Path, config: IndexConfig) -> None:
    deleted = set(brute_force(DIFFERENT, 3).rows_NK.ravel().tolist()) | set(range(50, 100))
    index = index_of(tmp_path, DIFFERENT, config, deleted=deleted)
    assert_same(IndexReader.open(index).search(QUESTIONS, 5, with_vectors=True), brute_force(DIFFERENT, 5, deleted))


@pytest.mark.parametrize("config", [IndexConfig(segment_rows=20), IndexConfig(type="ivf", nlist=2, nprobe=2)])
def test_an_index_of_deleted_rows_finds_nothing(tmp_path: Path, config: IndexConfig) -> None:
    found = IndexReader.open(index_of(tmp_path, DIFFERENT[:50], config, deleted=range(50))).search(QUESTIONS, 3)
    assert found.hits == [[]] * len(QUESTIONS)
    assert (found.rows_NK == -1).all()
    assert (found.scores_NK == -np.inf).all()


@pytest.mark.parametrize("segment_rows", [1000, 2])
def test_where_fewer_rows_are_left_than_asked_for_the_hits_are_short_and_the_rest_is_row_minus_one(
    tmp_path: Path, segment_rows: int
) -> None:
    index = index_of(tmp_path, DIFFERENT[:5], IndexConfig(segment_rows=segment_rows), deleted={2})
    found = IndexReader.open(index).search(QUESTIONS, 8, with_vectors=True)
    assert [len(hits) for hits in found.hits] == [4] * len(QUESTIONS)
    np.testing.assert_array_equal(found.rows_NK[:, :4], brute_force(DIFFERENT[:5], 8, {2}).rows_NK)
    assert (found.rows_NK[:, 4:] == -1).all()
    assert (found.scores_NK[:, 4:] == -np.inf).all()
    assert (found.vectors_NKD[:, 4:] == 0).all()


@pytest.mark.parametrize("num_segments", SEGMENT_ROWS)
def test_no_questions_find_nothing(indices: dict[tuple[str, int], Path], num_segments: int) -> None:
    found = IndexReader.open(indices["different", num_segments]).search(QUESTIONS[:0], 5)
    assert (found.hits, found.rows_NK.shape) == ([], (0, 5))


def test_a_shard_without_segments_finds_nothing(indices: dict[tuple[str, int], Path]) -> None:
    found = IndexReader.open(indices["different", 1], shard=1, num_shards=2).search(QUESTIONS, 5)
    assert found.hits == [[]] * len(QUESTIONS)
    assert (found.rows_NK == -1).all()


@pytest.mark.parametrize("shape", [(3, DIM + 1), (3, 1), (DIM,)])
def test_questions_of_another_dimension_are_refused(one_segment: IndexReader, shape: tuple[int, ...]) -> None:
    with pytest.raises(EncoderMismatchError, match="has 64 dimensions"):
        one_segment.search(np.ones(shape, dtype=np.float32), 5)


@pytest.mark.parametrize("name", CORPORA)
def test_ivf_that_searches_all_its_lists_is_exact(tmp_path: Path, name: str) -> None:
    config = IndexConfig(type="ivf", nlist=8, nprobe=8, segment_rows=100)
    reader = IndexReader.open(index_of(tmp_path, CORPORA[name], config))
    assert_same(reader.search(QUESTIONS, 5, with_vectors=True), brute_force(CORPORA[name], 5))


def test_ivf_that_searches_one_list_finds_what_that_list_holds_and_scores_it_exactly(tmp_path: Path) -> None:
    index = index_of(tmp_path, DIFFERENT, IndexConfig(type="ivf", nlist=8, nprobe=1))
    reader = IndexReader.open(index)
    found, exact = reader.search(QUESTIONS, 5, with_vectors=True), brute_force(DIFFERENT, ROWS)
    (ref,) = reader.snapshot.segments
    ivf = Segment.open(index / SEGMENTS / ref.name, num_rows=ROWS, dim=DIM).index
    _, lists = ivf.quantizer.search(QUESTIONS, 1)
    sizes = [ivf.invlists.list_size(int(number)) for number in lists[:, 0]]
    assert min(sizes) < ROWS
    assert [len(hits) for hits in found.hits] == [min(5, size) for size in sizes]
    for number, hits in enumerate(found.hits):
        scores = dict(zip(exact.rows_NK[number].tolist(), exact.scores_NK[number].tolist(), strict=True))
        rows = found.rows_NK[number, : len(hits)].tolist()
        assert [hit.score for hit in hits] == [scores[row] for row in rows]


def test_an_open_reader_keeps_its_snapshot_when_another_is_published(tmp_path: Path) -> None:
    index = index_of(tmp_path, DIFFERENT)
    reader = IndexReader.open(index)
    before = reader.search(QUESTIONS, 5)
    write_index(index, tmp_path / "embeddings", tmp_path / "corpus", name="000002-test", deleted=range(100))
    assert (reader.snapshot.name, current_name(index)) == ("000001-test", "000002-test")
    assert_same(reader.search(QUESTIONS, 5), before)
    assert_same(IndexReader.open(index, snapshot="000001-test").search(QUESTIONS, 5), before)
    assert_same(
        IndexReader.open(index).search(QUESTIONS, 5, with_vectors=True), brute_force(DIFFERENT, 5, set(range(100)))
    )


def search_shard(index: Path, shard: int) -> SearchResult:
    return IndexReader.open(index, shard=shard, num_shards=4).search(QUESTIONS, 5)


def test_four_segments_in_four_processes_return_what_one_exact_index_returns_ties_included(
    indices: dict[tuple[str, int], Path],
) -> None:
    with ProcessPoolExecutor(4, multiprocessing.get_context("spawn")) as processes:
        for name in CORPORA:
            parts = list(processes.map(search_shard, [indices[name, 4]] * 4, range(4)))
            one = IndexReader.open(indices[name, 1])
            assert (one.snapshot.factory, len(one.snapshot.segments)) == ("Flat", 1)
            assert_same(merge(parts, 5), one.search(QUESTIONS, 5))
            assert merge(parts, 5).hits == one.search(QUESTIONS, 5).hits


TYPES: tuple[IndexType, ...] = ("flat", "ivf", "ivf_sq", "ivf_pq", "ivf_rabitq", "hnsw")
DELETED = set(range(150, 160))


@pytest.fixture(scope="module")
def of_type(tmp_path_factory: pytest.TempPathFactory) -> dict[IndexType, Path]:
    """Two segments of every type, all of whose lists are searched, with deleted rows."""
    root = tmp_path_factory.mktemp("types")
    return {
        name: index_of(
            root / name,
            DIFFERENT,
            IndexConfig(type=name, nlist=8 * name.startswith("ivf"), nprobe=8, over_retrieve=20, segment_rows=100),
            deleted=DELETED,
        )
        for name in TYPES
    }


@pytest.mark.parametrize("few_rows", [FEW_ROWS, 0])
@pytest.mark.parametrize("name", TYPES)
def test_filters_and_tombstones_hold_in_every_type_and_what_is_left_is_scored_exactly(
    of_type: dict[IndexType, Path], name: IndexType, few_rows: int
) -> None:
    opened = IndexReader.open(of_type[name])
    reader = IndexReader(opened.index, opened.snapshot, opened.segments, 1, few_rows=few_rows)
    asked = (
        30 if name == "ivf_pq" else len(QUESTIONS)
    )  # fast-scan passes over rows whose estimate is the least there is
    odd = {row for row in range(ROWS) if row % 2}
    for where, left in (("", set(range(ROWS))), ("n >= 0", odd), ("n >= 120", odd - set(range(120))), ("n == 7", {7})):
        expected = brute_force(DIFFERENT, 5, set(range(ROWS)) - (left - DELETED))
        size = expected.rows_NK.shape[1]
        found = reader.search(QUESTIONS[:asked], 5, where=where)
        assert found.rows_NK[:, :size].tolist() == expected.rows_NK[:asked].tolist()
        assert found.scores_NK[:, :size].tolist() == expected.scores_NK[:asked].tolist()
        assert (found.rows_NK[:, size:] == -1).all()
    assert reader.search(QUESTIONS, 5, where="n == 151").hits == [[]] * len(QUESTIONS)


@pytest.mark.parametrize("name", TYPES)
def test_a_query_of_zeros_finds_the_first_rows_in_every_type(of_type: dict[IndexType, Path], name: IndexType) -> None:
    found = IndexReader.open(of_type[name]).search(np.zeros((2, DIM), dtype=np.float32), 155, where="id != p0")
    assert found.rows_NK.tolist() == [[*range(1, 150), *range(160, 166)]] * 2
    assert not found.scores_NK.any()


def test_a_filter_is_evaluated_once(one_segment: IndexReader) -> None:
    assert one_segment.allowed("n >= 50") is one_segment.allowed("n >= 50")
    assert not np.array_equal(one_segment.allowed("n >= 50")[0], one_segment.allowed("n >= 52")[0])


def test_rows_without_texts_and_several_threads_find_the_same(indices: dict[tuple[str, int], Path]) -> None:
    reader = IndexReader.open(indices["different", 4], threads=2)
    rows_NK, scores_NK = reader.search_rows(QUESTIONS, 5)
    expected = brute_force(DIFFERENT, 5)
    np.testing.assert_array_equal(rows_NK, expected.rows_NK)
    assert scores_NK.tobytes() == expected.scores_NK.tobytes()


def test_questions_that_are_not_finite_are_refused(one_segment: IndexReader) -> None:
    broken = QUESTIONS.copy()
    broken[3, 2] = np.nan
    with pytest.raises(InputError, match="query 3: its vector holds NaN"):
        one_segment.search(broken, 5)


@pytest.mark.parametrize("k", [0, -1, 10**9, 10**20])
def test_no_results_or_more_than_fit_into_memory_are_refused_alike_by_vectors_and_by_words(
    one_segment: IndexReader, k: int
) -> None:
    with pytest.raises(InputError, match=f"k={k}: .* at least one result and at most 1,000,000"):
        one_segment.search(QUESTIONS, k)
    with pytest.raises(InputError, match=f"k={k}: .* at least one result and at most 1,000,000"):
        one_segment.search_text(["same"], k)
    assert len(one_segment.search(QUESTIONS[:1], MAX_RESULTS).hits[0]) == ROWS


def test_once_open_a_reader_needs_no_file_any_more(tmp_path: Path) -> None:
    index = index_of(tmp_path, DIFFERENT, IndexConfig(segment_rows=50, lexical="plain"), deleted=DELETED)
    reader, words = IndexReader.open(index), [sentence(3), sentence(70)]
    vectors, texts = reader.search(QUESTIONS, 5, where="n >= 5"), reader.search_text(words, 5)
    assert texts.hits[0][0].passage == DIFFERENT[3]
    fresh = IndexReader.open(index)
    shutil.rmtree(index)
    for opened in (reader, fresh):
        assert_same(opened.search(QUESTIONS, 5, where="n >= 5"), vectors)
        assert opened.search_text(words, 5).hits == texts.hits


def test_opening_follows_current_when_what_it_named_was_collected_meanwhile(tmp_path: Path) -> None:
    index = index_of(tmp_path, DIFFERENT[:20])
    write_index(index, tmp_path / "embeddings", tmp_path / "corpus", name="000002-test", deleted=range(10))
    (index / CURRENT).write_text("000001-test\n", encoding="utf-8")

    def open_late(name: str) -> IndexReader:
        if name == "000001-test":  # between a look at CURRENT and the opening, another process promotes and collects
            (index / CURRENT).write_text("000002-test\n", encoding="utf-8")
            (index / SNAPSHOTS / "000001-test.json").unlink()
            shutil.rmtree(next((index / SEGMENTS).glob("000001-test*")))
        return IndexReader.open(index, snapshot=name)

    assert follow_current(index, open_late).snapshot.name == "000002-test"
    with pytest.raises(NotAnArtifactError, match="has no snapshot '000001-test'"):
        IndexReader.open(index, snapshot="000001-test")
    (index / CURRENT).write_text("000003-test\n", encoding="utf-8")
    with pytest.raises(NotAnArtifactError, match="has no snapshot '000003-test'"):
        IndexReader.open(index)


def test_a_filter_on_a_field_that_no_passage_has_warns_once(
    of_type: dict[IndexType, Path], caplog: pytest.LogCaptureFixture
) -> None:
    reader = IndexReader.open(of_type["flat"])
    for _ in range(2):
        assert reader.search(QUESTIONS, 5, where="m == 7").hits == [[]] * len(QUESTIONS)
    assert [record.getMessage() for record in caplog.records] == [
        "filter 'm == 7': no passage has the field 'm'; there are id, document_id, title, n"
    ]
