"""The local retriever: questions in, passages out, by vectors, words or both, and no encoder but the index's own."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from ragray.config import Config, IndexConfig, RetrieveConfig, load_config
from ragray.embed.encoder import HashEncoder
from ragray.errors import ConfigError, EncoderMismatchError, InputError, ModelNotFoundError, NotAnArtifactError
from ragray.index.search.reader import IndexReader
from ragray.index.search.spread import spread_of
from ragray.retrieve.fuse import fuse_ranks, fuse_scores
from ragray.retrieve.load import load_retriever
from ragray.retrieve.pairs import with_pairs
from ragray.retrieve.retriever import LocalRetriever, Mode
from ragray.types import Hit, Passage, RetrievalResult
from tests.helpers import index_of, some_passages

PASSAGES = [Passage("seine", "the river seine flows through paris"), Passage("cat", "cats sleep most of the day")]


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> Path:
    passages = [*PASSAGES, *some_passages(20)]
    return index_of(tmp_path_factory.mktemp("index"), passages, IndexConfig(lexical="english", segment_rows=16))


@pytest.fixture(scope="module")
def retriever(index: Path) -> LocalRetriever:
    return LocalRetriever.open(index, HashEncoder(64))


def test_each_question_gets_its_best_passages_best_first(retriever: LocalRetriever) -> None:
    results = retriever.search(["which river flows through paris", "how long do cats sleep"], 3)
    river, cat = (result.hits for result in results)
    assert (river[0].passage, cat[0].passage) == tuple(PASSAGES)
    assert [hit.score for hit in river] == sorted((hit.score for hit in river), reverse=True)
    assert len(river) == len(cat) == 3


def test_the_score_is_the_inner_product_of_question_and_passage(retriever: LocalRetriever) -> None:
    [result] = retriever.search([PASSAGES[0].text], 1)
    [hit] = result.hits
    assert hit.score == pytest.approx(1, abs=1e-3)


def test_more_passages_than_there_are_cannot_be_had(retriever: LocalRetriever) -> None:
    [result] = retriever.search(["the river"], 1000)
    assert len(result.hits) == 22


@pytest.mark.parametrize("mode", ["dense", "lexical", "hybrid"])
def test_a_question_that_is_no_text_is_refused(retriever: LocalRetriever, mode: Mode) -> None:
    with pytest.raises(InputError, match=r"query 1: character 7 \('.udcff'\) cannot be written as UTF-8"):
        retriever.search(["the river", "river \udcff"], 3, mode=mode)


@pytest.mark.parametrize("mode", ["dense", "lexical", "hybrid"])
def test_a_question_of_which_nothing_can_be_seen_is_refused(retriever: LocalRetriever, mode: Mode) -> None:
    with pytest.raises(InputError, match="query 1: is blank"):
        retriever.search(["the river", " \u200b"], 3, mode=mode)


def test_a_filter_that_cannot_be_read_is_said_before_a_model_is_looked_for(index: Path) -> None:
    with pytest.raises(InputError, match="id =="):
        load_retriever(index, None, load_config(None, ["retrieve.where=id ==", "embed.model=no-such-model"]))


def test_no_questions_get_no_answers(retriever: LocalRetriever) -> None:
    assert retriever.search([], 3) == []


def test_retriever_and_results_name_the_snapshot(retriever: LocalRetriever) -> None:
    assert retriever.snapshot == "000001-test"
    assert [result.snapshot for result in retriever.search(["the river", "cats"], 1)] == ["000001-test"] * 2


def test_another_encoder_than_the_indexs_own_is_refused_before_any_search(index: Path) -> None:
    with pytest.raises(
        EncoderMismatchError, match=r"snapshot 000001-test .*'hash:64' \(dim=64\).*'hash:32' \(dim=32\)"
    ):
        LocalRetriever.open(index, HashEncoder(32))


def test_a_folder_that_is_no_index_is_refused(tmp_path: Path) -> None:
    with pytest.raises(NotAnArtifactError, match="run: ragray index build"):
        LocalRetriever.open(tmp_path, HashEncoder(64))


def test_without_a_run_an_index_is_searched_with_the_encoder_it_was_made_with(index: Path) -> None:
    loaded = load_retriever(index, None, Config())
    direct = LocalRetriever(IndexReader.open(index), HashEncoder(64))
    assert loaded.search(["the river seine"], 5) == direct.search(["the river seine"], 5)


def test_an_encoder_in_the_configuration_must_be_the_indexs_own(index: Path) -> None:
    assert load_retriever(index, None, load_config(None, ["embed.model=hash:64"])).snapshot == "000001-test"
    with pytest.raises(EncoderMismatchError, match="dim=16"):
        load_retriever(index, None, load_config(None, ["embed.model=hash:16"]))


QUESTIONS = ["which river flows through paris", "how long do cats sleep", "title3 barden"]


def retriever_of(index: Path, **settings: str | int) -> LocalRetriever:
    return LocalRetriever(IndexReader.open(index), HashEncoder(64), RetrieveConfig.model_validate(settings))


def hits_of(results: Sequence[RetrievalResult]) -> list[list[Hit]]:
    return [list(result.hits) for result in results]


def ranked(found: Sequence[Sequence[Hit]]) -> list[list[tuple[Passage, float]]]:
    """Passages and the scores that they were ranked by."""
    return [[(hit.passage, hit.score) for hit in hits] for hits in found]


def test_lexical_search_finds_the_passages_that_share_words_and_no_others(index: Path) -> None:
    found = hits_of(retriever_of(index, mode="lexical").search(QUESTIONS[:2], 10))
    assert ranked(found) == ranked(IndexReader.open(index).search_text(QUESTIONS[:2], 10).hits)
    assert [[hit.passage for hit in hits] for hits in found] == [[PASSAGES[0]], [PASSAGES[1]]]


def test_hybrid_search_is_the_fusion_of_the_candidates_of_both(index: Path) -> None:
    reader = IndexReader.open(index)
    vectors = HashEncoder(64).encode_questions(QUESTIONS)
    for candidates, k, depth in ((5, 3, 5), (3, 7, 7)):
        parts = [
            reader.search(vectors, depth, texts=QUESTIONS),
            reader.search_text(QUESTIONS, depth, vectors_ND=vectors),
        ]
        by_ranks = retriever_of(index, mode="hybrid", candidates=candidates, fusion="rrf", rrf_k=9)
        assert ranked(hits_of(by_ranks.search(QUESTIONS, k))) == ranked(fuse_ranks(parts, k, rrf_k=9).hits)
        by_scores = retriever_of(index, mode="hybrid", candidates=candidates, dense_weight=0.25, pair_weight=0)
        found = hits_of(by_scores.search(QUESTIONS, k))
        spread = spread_of(index, reader.snapshot)
        assert ranked(found) == ranked(fuse_scores(parts, 0.25, spread, k).hits)
        by_pairs = retriever_of(index, mode="hybrid", candidates=candidates, dense_weight=0.25, pair_weight=0.8)
        fused = fuse_scores(parts, 0.25, spread, 2 * depth)
        wanted = with_pairs(fused, QUESTIONS, reader.snapshot.lexical, 0.75 * 0.8, k)
        assert ranked(hits_of(by_pairs.search(QUESTIONS, k))) == ranked(wanted.hits)
    assert ranked(found)[0][0][0] == PASSAGES[0]


def test_a_question_without_known_words_is_answered_by_its_vector_alone(index: Path) -> None:
    hybrid, dense = retriever_of(index, mode="hybrid"), retriever_of(index)
    [by_both], [by_vector] = (hits_of(each.search(["qqq"], 4)) for each in (hybrid, dense))
    assert [hit.passage for hit in by_both] == [hit.passage for hit in by_vector]


@pytest.mark.parametrize("mode", ["dense", "lexical", "hybrid"])
def test_a_call_may_ask_for_another_mode_and_filter_than_the_settings(index: Path, mode: Mode) -> None:
    asked = retriever_of(index).search(QUESTIONS, 5, mode=mode, where="n in (1, 3)")
    assert asked == retriever_of(index, mode=mode, where="n in (1, 3)").search(QUESTIONS, 5)
    assert {hit.passage.id for result in asked for hit in result.hits} <= {"p1", "p3"}
    back = retriever_of(index, mode=mode, where="n in (1, 3)").search(QUESTIONS, 5, mode="dense", where="")
    assert back == retriever_of(index).search(QUESTIONS, 5)


class Backwards:
    """A reranker that turns the candidates round and remembers how many there were."""

    def __init__(self) -> None:
        self.seen: list[int] = []

    def rerank(self, queries: Sequence[str], hits: Sequence[Sequence[Hit]], k: int) -> list[list[Hit]]:
        self.seen += [len(found) for found in hits]
        return [list(found)[::-1][:k] for found in hits]


@pytest.mark.parametrize("mode", ["dense", "hybrid"])
def test_a_reranker_gets_the_candidates_and_gives_the_result(index: Path, mode: Mode) -> None:
    settings, reranker = RetrieveConfig(mode=mode, candidates=8), Backwards()
    reranked = LocalRetriever(IndexReader.open(index), HashEncoder(64), settings, reranker)
    plain = retriever_of(index, mode=mode, candidates=8)
    assert hits_of(reranked.search(QUESTIONS, 3)) == [hits[::-1][:3] for hits in hits_of(plain.search(QUESTIONS, 8))]
    assert hits_of(reranked.search(QUESTIONS, 11)) == [hits[::-1] for hits in hits_of(plain.search(QUESTIONS, 11))]
    assert reranker.seen == [8, 8, 8, 11, 11, 11]


def test_lexical_mode_needs_no_encoder_and_loads_none(index: Path, tmp_path: Path) -> None:
    config = load_config(None, ["retrieve.mode=lexical", "embed.model=there-is-no-such-model"])
    loaded = load_retriever(index, None, config)
    assert hits_of(loaded.search(QUESTIONS, 3)) == [
        [replace(hit, dense=None) for hit in hits]
        for hits in hits_of(retriever_of(index, mode="lexical").search(QUESTIONS, 3))
    ]
    with pytest.raises(ConfigError, match=r"without a question encoder; only retrieve\.mode=lexical works"):
        loaded.search(QUESTIONS, 3, mode="hybrid")


def test_a_configuration_that_cannot_work_is_refused_before_the_first_question(index: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="expected a value at position 6, found the end"):
        retriever_of(index, where="n == ")
    without = index_of(tmp_path, PASSAGES, IndexConfig(lexical="none"))
    for mode in ("lexical", "hybrid"):
        with pytest.raises(InputError, match="lexical part"):
            load_retriever(without, None, load_config(None, [f"retrieve.mode={mode}"]))
    with pytest.raises(InputError, match="lexical part"):
        retriever_of(without).search(QUESTIONS, 3, mode="lexical")
    with pytest.raises(ModelNotFoundError, match="no model 'nowhere'"):
        load_retriever(index, None, load_config(None, ["retrieve.rerank_model=nowhere"]))


def test_a_mode_that_there_is_not_is_refused(index: Path) -> None:
    with pytest.raises(ConfigError, match="'fuzzy': expected dense, lexical or hybrid"):
        retriever_of(index).search(QUESTIONS, 3, mode="fuzzy")  # type: ignore[arg-type] # refused, as is tested


@pytest.mark.parametrize("mode", ["dense", "lexical", "hybrid"])
def test_every_mode_gives_the_inner_product_beside_its_own_score(retriever: LocalRetriever, mode: Mode) -> None:
    question = "which river flows through paris"
    encoder = HashEncoder(64)
    [hits] = hits_of(retriever.search([question], 3, mode=mode))
    for hit in hits:
        passage = encoder.encode([hit.passage.text])[0].astype("float16").astype("float32")
        if not hit.passage.title:
            assert hit.dense == pytest.approx(float(passage @ encoder.encode_questions([question])[0]), abs=1e-3)
    if mode == "dense":
        assert [hit.dense for hit in hits] == pytest.approx([hit.score for hit in hits], abs=1e-6)


def test_without_an_encoder_there_is_no_inner_product(index: Path) -> None:
    words = LocalRetriever(IndexReader.open(index), None, RetrieveConfig(mode="lexical"))
    [hits] = hits_of(words.search(["which river flows through paris"], 3))
    assert {hit.dense for hit in hits} == {None}
