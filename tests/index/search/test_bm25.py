"""BM25 over segments equals BM25 over one corpus, as `bm25s` computes it; whatever does not fit is found when it is opened."""

import random
from collections.abc import Callable, Collection, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import bm25s
import numpy as np
import pytest
import Stemmer

from ragray.errors import CorruptArtifactError, InputError
from ragray.index.search.bm25 import LexicalIndex
from ragray.index.search.maxscore import K1, B
from ragray.index.store.postings import LEXICAL, LexicalWriter, Postings
from ragray.index.store.snapshot import SEGMENTS, SegmentRef, Snapshot
from ragray.index.store.tombstones import live_mask, with_tombstones
from ragray.text.analyzer import analyze
from tests.helpers import make_snapshot

WORDS = [
    "running", "runs", "runner", "the", "of", "and", "river", "rivers", "bank", "banks", "paris", "city", "cities", "code",
    "codes", "fish", "Fishing", "cat", "cats",
]  # fmt: skip
QUERIES = ["the river", "running cats", "fishing cities of paris", "cat cat cat river", "codes", "unheard words", ""]
ROWS = 240


def texts_of(count: int, seed: int = 0) -> list[str]:
    """Texts of few words, so that every query meets many rows; some are empty, some occur twice."""
    chance = random.Random(seed)
    return [" ".join(chance.choices(WORDS, k=chance.randint(0, 14))) for _ in range(count)]


TEXTS = texts_of(ROWS)


def write(
    index: Path, texts: Sequence[str], *, segments: int = 1, deleted: Collection[int] = (), analyzer: str = "english"
) -> Snapshot:
    """Write the lexical parts of an index, and nothing else of it."""
    refs = []
    for number, rows in enumerate(np.array_split(np.arange(len(texts)), segments)):
        writer = LexicalWriter(analyzer)
        for start in range(0, len(rows), 17):
            writer.add([texts[row] for row in rows[start : start + 17]])
        writer.write(index / SEGMENTS / f"s{number}" / LEXICAL)
        ref = SegmentRef(name=f"s{number}", num_rows=len(rows))
        refs.append(with_tombstones(index, ref, [row - rows[0] for row in deleted if row in rows]))
    return make_snapshot("000001-test", refs, dim=8, lexical=analyzer)


def everything(index: Path, snapshot: Snapshot) -> dict[int, np.ndarray]:
    return {number: live_mask(index, ref) for number, ref in enumerate(snapshot.segments)}


def search(index: Path, snapshot: Snapshot, k: int, queries: Sequence[str] = QUERIES) -> tuple[np.ndarray, np.ndarray]:
    return LexicalIndex.open(index, snapshot).search(queries, k, everything(index, snapshot))


def reference(live: Sequence[int], query: str, analyzer: str = "english") -> dict[int, float]:
    """Scores of all rows that share a term with a query, by `bm25s` over the live rows alone."""
    stop_words, stemmer = ("en", Stemmer.Stemmer("english")) if analyzer.startswith("english") else (None, None)
    corpus = bm25s.tokenize([TEXTS[row] for row in live], stopwords=stop_words, stemmer=stemmer, show_progress=False)
    index = bm25s.BM25(method="lucene", k1=K1, b=B)
    index.index(corpus, show_progress=False)
    [terms] = bm25s.tokenize([query], stopwords=stop_words, stemmer=stemmer, return_ids=False, show_progress=False)
    terms = [term for term in terms if term in corpus.vocab]
    scores = index.get_scores(terms) if terms else np.zeros(len(live))
    return {row: float(score) for row, score in zip(live, scores, strict=True) if score > 0}


@pytest.mark.parametrize("analyzer", ["english", "plain", "english.2", "plain.2", "english.3", "plain.3"])
@pytest.mark.parametrize("segments", [1, 4])
@pytest.mark.parametrize(
    "deleted", [(), range(0, ROWS, 3), range(60, 120)], ids=["all", "two thirds", "one segment gone"]
)
def test_scores_are_those_of_bm25s_over_the_live_rows_of_one_corpus(
    tmp_path: Path, analyzer: str, segments: int, deleted: Collection[int]
) -> None:
    snapshot = write(tmp_path, TEXTS, segments=segments, deleted=deleted, analyzer=analyzer)
    rows_NK, scores_NK = search(tmp_path, snapshot, ROWS)
    live = [row for row in range(ROWS) if row not in deleted]
    for query, rows, scores in zip(QUERIES, rows_NK, scores_NK, strict=True):
        expected = reference(live, query, analyzer)
        found = {int(row): float(score) for row, score in zip(rows, scores, strict=True) if row >= 0}
        assert found == pytest.approx(expected, abs=1e-5)
        assert list(found) == sorted(found, key=lambda row: (-found[row], row))
        assert (rows[len(found) :] == -1).all() and np.isneginf(scores[len(found) :]).all()


@pytest.mark.parametrize("segments", [1, 4])
def test_the_first_k_are_the_first_k_of_all_and_ties_go_to_the_lower_row(tmp_path: Path, segments: int) -> None:
    texts = TEXTS[:40] * 6
    snapshot = write(tmp_path, texts, segments=segments)
    all_rows, all_scores = search(tmp_path, snapshot, len(texts))
    for k in (1, 2, 7, 100):
        rows_NK, scores_NK = search(tmp_path, snapshot, k)
        np.testing.assert_array_equal(rows_NK, all_rows[:, :k])
        np.testing.assert_array_equal(scores_NK, all_scores[:, :k])


def test_four_segments_give_the_very_same_numbers_as_one(tmp_path: Path) -> None:
    one, four = tmp_path / "one", tmp_path / "four"
    deleted = range(5, ROWS, 7)
    found = (
        search(one, write(one, TEXTS, deleted=deleted), 20),
        search(four, write(four, TEXTS, segments=4, deleted=deleted), 20),
    )
    np.testing.assert_array_equal(found[0][0], found[1][0])
    np.testing.assert_array_equal(found[0][1], found[1][1])


def test_many_rows_of_which_most_are_left_out_give_the_very_same_numbers_as_few(tmp_path: Path) -> None:
    """A segment of 20,000 rows is searched by `maxscore`; of 5,000 rows every posting is scored."""
    one, four, texts, deleted = tmp_path / "one", tmp_path / "four", texts_of(20_000, seed=4), range(3, 20_000, 90)
    found = [
        search(path, write(path, texts, segments=parts, deleted=deleted), 30) for path, parts in ((one, 1), (four, 4))
    ]
    np.testing.assert_array_equal(found[0][0], found[1][0])
    np.testing.assert_array_equal(found[0][1], found[1][1])


def test_a_reader_of_some_segments_scores_as_if_it_had_all(tmp_path: Path) -> None:
    snapshot = write(tmp_path, TEXTS, segments=4)
    index, masks = LexicalIndex.open(tmp_path, snapshot), everything(tmp_path, snapshot)
    whole = index.search(QUERIES, ROWS, masks)
    parts = [index.search(QUERIES, ROWS, {number: masks[number]}) for number in range(4)]
    for query in range(len(QUERIES)):
        scores = {
            row: score
            for rows, found in parts
            for row, score in zip(rows[query], found[query], strict=True)
            if row >= 0
        }
        assert scores == {row: score for row, score in zip(whole[0][query], whole[1][query], strict=True) if row >= 0}


def test_rows_that_are_not_allowed_are_not_found_and_change_no_score(tmp_path: Path) -> None:
    snapshot = write(tmp_path, TEXTS, segments=2)
    index, masks = LexicalIndex.open(tmp_path, snapshot), everything(tmp_path, snapshot)
    even = {number: mask & (np.arange(len(mask)) % 2 == 0) for number, mask in masks.items()}
    [all_rows], [all_scores] = index.search(["river bank"], ROWS, masks)
    [rows], [scores] = index.search(["river bank"], ROWS, even)
    wanted = (all_rows >= 0) & (all_rows % 2 == 0)
    np.testing.assert_array_equal(rows[rows >= 0], all_rows[wanted])
    np.testing.assert_array_equal(scores[rows >= 0], all_scores[wanted])


def test_a_query_is_scored_the_same_alone_and_among_others(tmp_path: Path) -> None:
    snapshot = write(tmp_path, TEXTS)
    together = search(tmp_path, snapshot, 5)
    for number, query in enumerate(QUERIES):
        alone = search(tmp_path, snapshot, 5, [query])
        np.testing.assert_array_equal(alone[0][0], together[0][number])
        np.testing.assert_array_equal(alone[1][0], together[1][number])


def test_threads_may_search_at_once(tmp_path: Path) -> None:
    snapshot = write(tmp_path, TEXTS, segments=2)
    index, masks = LexicalIndex.open(tmp_path, snapshot), everything(tmp_path, snapshot)
    alone = [index.search([query], 9, masks)[1].tolist() for query in QUERIES]
    with ThreadPoolExecutor(8) as threads:
        for _ in range(5):
            assert list(threads.map(lambda query: index.search([query], 9, masks)[1].tolist(), QUERIES)) == alone


def test_english_leaves_stop_words_out_and_stems_and_plain_does_neither(tmp_path: Path) -> None:
    english, plain = (len(analyze(["the running of the runs"], name)[1]) for name in ("english", "plain"))
    assert (english, plain) == (1, 4)
    snapshot = write(tmp_path, ["the cats", "a cat"], analyzer="plain")
    assert search(tmp_path, snapshot, 2, ["cats", "The"])[0].tolist() == [[0, -1], [0, -1]]


def test_posting_lists_hold_what_the_texts_hold(tmp_path: Path) -> None:
    write(tmp_path, ["fish fish cat", "", "cat", "fish"])
    part = Postings.open(tmp_path / SEGMENTS / "s0" / LEXICAL, 4)
    [fish, cat] = (
        part.of(term) for term in analyze(["fish"], "english")[1].tolist() + analyze(["cat"], "english")[1].tolist()
    )
    assert (part.rows_P[fish].tolist(), part.counts_P[fish].tolist()) == ([0, 3], [2, 1])
    assert (part.rows_P[cat].tolist(), part.counts_P[cat].tolist()) == ([0, 2], [1, 1])
    assert part.lengths_N.tolist() == [3, 0, 1, 1]
    assert all(isinstance(array, np.memmap) for array in (part.terms_T, part.rows_P, part.counts_P, part.lengths_N))


def test_more_occurrences_than_a_count_can_hold_count_as_the_most_it_can(tmp_path: Path) -> None:
    write(tmp_path, ["fish " * 70_000, "cat"])
    part = Postings.open(tmp_path / SEGMENTS / "s0" / LEXICAL, 2)
    assert (part.counts_P.max(), part.lengths_N.max()) == (65_535, 70_000)


@pytest.mark.parametrize("texts", [["", "?", "a"], ["the of and"]])
def test_a_segment_without_any_term_is_searched_and_finds_nothing(tmp_path: Path, texts: list[str]) -> None:
    rows_NK, scores_NK = search(tmp_path, write(tmp_path, texts), 3)
    assert (rows_NK == -1).all() and np.isneginf(scores_NK).all()


def test_a_snapshot_whose_rows_are_all_deleted_finds_nothing(tmp_path: Path) -> None:
    assert (search(tmp_path, write(tmp_path, TEXTS, deleted=range(ROWS)), 3)[0] == -1).all()


def test_a_query_that_is_no_text_for_a_tokenizer_finds_nothing(tmp_path: Path) -> None:
    garbage = ["\x00\x01", "\ud800 \udfff", "🐟", " " * 10_000, "\u2028"]
    assert (search(tmp_path, write(tmp_path, TEXTS), 3, garbage)[0] == -1).all()


def test_no_queries_give_no_rows(tmp_path: Path) -> None:
    assert search(tmp_path, write(tmp_path, TEXTS), 3, [])[0].shape == (0, 3)


def test_a_snapshot_without_a_lexical_part_says_how_to_get_one(tmp_path: Path) -> None:
    snapshot = write(tmp_path, TEXTS).model_copy(update={"lexical": "none"})
    with pytest.raises(InputError, match=r"000001-test was built without a lexical part.*index\.lexical=english"):
        LexicalIndex.open(tmp_path, snapshot)


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-40])


def replace(change: Callable[[np.ndarray], np.ndarray]) -> Callable[[Path], None]:
    return lambda path: np.save(path, change(np.load(path, allow_pickle=False)))


@pytest.mark.parametrize(
    ("name", "damage", "message"),
    [
        ("rows", Path.unlink, "rows.npy: cannot be read"),
        ("rows", cut, "rows.npy: cannot be read"),
        ("lengths", lambda path: path.write_bytes(b""), "lengths.npy: cannot be read"),
        (
            "rows",
            replace(lambda found: found.astype(np.int64)),
            "rows.npy: holds int64 of shape .*, expected a list of int32",
        ),
        ("rows", replace(lambda found: found[None]), r"rows.npy: holds int32 of shape \(1, "),
        ("rows", replace(lambda found: found[:-1]), "entries, rows.npy"),
        ("counts", replace(lambda found: found[:-1]), "counts.npy has "),
        ("lengths", replace(lambda found: found[:-1]), "lengths.npy has 239 rows, the snapshot says 240"),
        ("terms", replace(lambda found: found[::-1].copy()), "terms.npy is not in order"),
        ("terms", replace(lambda found: found[:-1]), "starts.npy does not fit"),
        ("starts", replace(lambda found: found[::-1].copy()), "starts.npy does not divide"),
        ("starts", replace(lambda found: found + 1), "starts.npy does not divide"),
        ("starts", replace(lambda found: found[:0]), "starts.npy does not fit"),
    ],
)
def test_a_part_that_does_not_fit_is_refused_and_named(
    tmp_path: Path, name: str, damage: Callable[[Path], None], message: str
) -> None:
    snapshot = write(tmp_path, TEXTS)
    damage(tmp_path / SEGMENTS / "s0" / LEXICAL / f"{name}.npy")
    with pytest.raises(CorruptArtifactError, match=rf"{message}.*build the index again"):
        LexicalIndex.open(tmp_path, snapshot)


@pytest.mark.parametrize("segments", [1, 3])
def test_given_rows_score_what_search_gives_them_and_never_more_than_the_limit(tmp_path: Path, segments: int) -> None:
    snapshot = write(tmp_path, TEXTS, segments=segments, deleted=[3, 100])
    rows_NK, scores_NK = search(tmp_path, snapshot, 30)
    found_NK, limit_N = LexicalIndex.open(tmp_path, snapshot).scores(QUERIES, rows_NK)
    assert np.array_equal(found_NK, np.where(rows_NK < 0, 0, scores_NK))
    assert (found_NK <= limit_N[:, None]).all() and limit_N[:5].all()
    assert limit_N[-2:].tolist() == [0, 0]  # words of no row, and no words


def test_a_passage_that_repeats_nothing_but_the_query_comes_near_the_limit(tmp_path: Path) -> None:
    snapshot = write(tmp_path, ["river " * 2000, "bank " * 2000, "paris"])
    scores_NK, limit_N = LexicalIndex.open(tmp_path, snapshot).scores(["river"], np.array([[0, 1]]))
    assert scores_NK[0, 0] == pytest.approx(limit_N[0], rel=0.01) and scores_NK[0, 1] == 0
