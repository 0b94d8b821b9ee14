"""The quickstart's Chinese part: its question, what is said of the answer. (The whole of it runs in `.ci/run`.)"""

from pathlib import Path

import pytest

from ragray import sample
from ragray.config import load_config
from ragray.errors import ConfigError
from ragray.examples import read_examples
from ragray.execute.inline import InlineExecutor
from ragray.quickstart import MOSTLY_ENGLISH, QUESTION_ZH, judge, quickstart
from ragray.retrieve.load import load_retriever
from ragray.stages.build import build_index
from ragray.stages.embed import embed_corpus
from ragray.stages.ingest import ingest
from ragray.types import Example

[ASKED] = [example for example in read_examples(sample.TEST_ZH) if example.id == QUESTION_ZH]
EXAMPLE = Example("one", "水在多少度结冰？", ("零度", "0度"), ())


def test_the_question_finds_its_passage_by_its_words_alone(tmp_path: Path) -> None:
    overrides = ["embed.model=hash:64", "retrieve.mode=lexical"]
    config, here = load_config(sample.QUICKSTART_ZH_CONFIG, overrides), InlineExecutor()
    corpus, embeddings, index = (tmp_path / name for name in ("corpus", "embeddings", "index"))
    ingest([str(sample.CORPUS_ZH)], corpus, config, here)
    embed_corpus(corpus, embeddings, config, here)
    build_index(embeddings, corpus, index, config, here)
    [found] = load_retriever(index, None, config).search([ASKED.question], 1)
    assert [hit.passage.id for hit in found.hits] == list(ASKED.gold_ids)


def test_the_chinese_part_searches_words_and_vectors_of_a_multilingual_encoder() -> None:
    config = load_config(sample.QUICKSTART_ZH_CONFIG)
    assert (config.embed.model, config.retrieve.mode) == ("multilingual-e5-small", "hybrid")


@pytest.mark.parametrize(
    ("answer", "passage", "said"),
    [
        ("零度。", "水在零度结冰。", "expected 零度: F1 100 %, passage [1] holds it"),
        ("零度 [1]", "水在零度结冰。", "expected 零度: F1 100 %, passage [1] holds it"),
        ("0度", "水在零度结冰。", "expected 零度: F1 100 %, passage [1] holds it"),
        ("在零度结冰", "冰比水轻。", "expected 零度: F1 57 %, passage [1] does not hold it"),
        ("zero", "水在零度结冰。", "expected 零度: F1 0 %, passage [1] holds it"),
        ("", "水在零度结冰。", "expected 零度: F1 0 %, passage [1] holds it"),
    ],
)
def test_an_answer_is_compared_with_what_is_accepted_and_so_is_its_passage(
    answer: str, passage: str, said: str
) -> None:
    assert judge(answer, passage, EXAMPLE, "another-generator") == said


def test_only_a_wrong_answer_of_the_english_generator_is_put_down_to_its_language() -> None:
    wrong = judge("zero", "水在零度结冰。", EXAMPLE, MOSTLY_ENGLISH)
    assert wrong.endswith(f"; {MOSTLY_ENGLISH} was trained mostly on English: name another with generate.model=...")
    assert judge("零度", "水在零度结冰。", EXAMPLE, MOSTLY_ENGLISH) == "expected 零度: F1 100 %, passage [1] holds it"


@pytest.mark.parametrize(
    ("overrides", "said"),
    [(["serve.keys_file=keys.json"], "without a key"), (["serve.host=0.0.0.0"], "asks for no key")],
    ids=["keys", "open to others"],
)
def test_what_its_service_would_refuse_is_said_before_anything_starts(
    overrides: list[str], said: str, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match=said):
        quickstart(tmp_path / "out", overrides)
    assert not (tmp_path / "out").exists()
