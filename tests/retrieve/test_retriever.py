"""The local retriever: questions in, passages out, and no encoder but the index's own."""

from pathlib import Path

import pytest

from ragray.config import Config, load_config
from ragray.embed.encoder import HashEncoder
from ragray.errors import EncoderMismatchError, NotAnArtifactError
from ragray.index.search import IndexReader
from ragray.retrieve.load import load_retriever
from ragray.retrieve.retriever import LocalRetriever
from ragray.types import Passage
from tests.helpers import index_of, some_passages

PASSAGES = [Passage("seine", "the river seine flows through paris"), Passage("cat", "cats sleep most of the day")]


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return index_of(tmp_path_factory.mktemp("index"), [*PASSAGES, *some_passages(20)])


@pytest.fixture(scope="module")
def retriever(index: Path) -> LocalRetriever:
    return LocalRetriever.open(index, HashEncoder(64))


def test_each_question_gets_its_best_passages_best_first(retriever: LocalRetriever) -> None:
    river, cat = retriever.search(["which river flows through paris", "how long do cats sleep"], 3)
    assert (river[0].passage, cat[0].passage) == tuple(PASSAGES)
    assert [hit.score for hit in river] == sorted((hit.score for hit in river), reverse=True)
    assert len(river) == len(cat) == 3


def test_the_score_is_the_inner_product_of_question_and_passage(retriever: LocalRetriever) -> None:
    ((hit,),) = retriever.search([PASSAGES[0].text], 1)
    assert hit.score == pytest.approx(1, abs=1e-3)


def test_questions_and_their_vectors_find_the_same(retriever: LocalRetriever) -> None:
    questions = ["the river", "of the day"]
    assert retriever.search(questions, 4) == retriever.search_vectors(HashEncoder(64).encode_questions(questions), 4)


def test_more_passages_than_there_are_cannot_be_had(retriever: LocalRetriever) -> None:
    ((*hits,),) = retriever.search(["the river"], 1000)
    assert len(hits) == 22


def test_no_questions_get_no_answers(retriever: LocalRetriever) -> None:
    assert retriever.search([], 3) == []


def test_it_says_which_snapshot_it_searches(retriever: LocalRetriever) -> None:
    assert retriever.snapshot == "000001-test"


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
