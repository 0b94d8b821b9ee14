"""Search equals brute force, however the rows are cut into segments and shards; deleted rows never come back."""

from pathlib import Path

import numpy as np
import pytest

from ragray.config import IndexConfig
from ragray.embed.encoder import HashEncoder
from ragray.embed.shards import passage_text
from ragray.errors import EncoderMismatchError
from ragray.index.search import IndexReader, SearchResult, merge
from ragray.index.segment import Segment
from ragray.index.snapshot import SEGMENTS, current_name
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
        scores = (vectors_ND[live].astype(np.float32) * query_D).sum(axis=1)
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
    assert_same(reader.search(QUESTIONS, k), brute_force(CORPORA[name], k))


@pytest.mark.parametrize("name", CORPORA)
@pytest.mark.parametrize("num_shards", [2, 4, 6])
def test_shards_merged_are_the_whole_index_to_the_last_bit(
    indices: dict[tuple[str, int], Path], name: str, num_shards: int
) -> None:
    index = indices[name, 4]
    parts = [
        IndexReader.open(index, shard=shard, num_shards=num_shards).search(QUESTIONS, 5) for shard in range(num_shards)
    ]
    whole = IndexReader.open(index).search(QUESTIONS, 5)
    assert_same(merge(parts, 5), whole)
    assert merge(parts, 5).hits == whole.hits


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
    assert_same(IndexReader.open(index).search(QUESTIONS, 5), brute_force(DIFFERENT, 5, deleted))


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
    found = IndexReader.open(index).search(QUESTIONS, 8)
    assert [len(hits) for hits in found.hits] == [4] * len(QUESTIONS)
    np.testing.assert_array_equal(found.rows_NK[:, :4], brute_force(DIFFERENT[:5], 8, {2}).rows_NK)
    assert (found.rows_NK[:, 4:] == -1).all()
    assert (found.scores_NK[:, 4:] == -np.inf).all()
    assert (found.vectors_NKD[:, 4:] == 0).all()


@pytest.mark.parametrize("num_segments", SEGMENT_ROWS)
def test_no_questions_find_nothing(indices: dict[tuple[str, int], Path], num_segments: int) -> None:
    found = IndexReader.open(indices["different", num_segments]).search(QUESTIONS[:0], 5)
    assert (found.hits, found.rows_NK.shape, found.vectors_NKD.shape) == ([], (0, 5), (0, 5, DIM))


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
    assert_same(reader.search(QUESTIONS, 5), brute_force(CORPORA[name], 5))


def test_ivf_that_searches_one_list_finds_what_that_list_holds_and_scores_it_exactly(tmp_path: Path) -> None:
    index = index_of(tmp_path, DIFFERENT, IndexConfig(type="ivf", nlist=8, nprobe=1))
    reader = IndexReader.open(index)
    found, exact = reader.search(QUESTIONS, 5), brute_force(DIFFERENT, ROWS)
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
    assert_same(IndexReader.open(index).search(QUESTIONS, 5), brute_force(DIFFERENT, 5, set(range(100))))
