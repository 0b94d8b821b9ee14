"""Passages that an encoder cannot read are named once, with their share; a tokenizer of bytes reads everything."""

import logging
from pathlib import Path

import pytest
from tokenizers import Tokenizer, models, pre_tokenizers

from ragray.config import EncoderConfig, IngestConfig
from ragray.corpus.chunk import split_document
from ragray.corpus.table import ShardWriter, passages_to_table
from ragray.corpus.tokens import FileTokenizer, WordTokenizer, load_tokenizer, unknown_id
from ragray.corpus.unknown import SAMPLED_GROUPS, SAMPLED_ROWS, sampled_texts, warn_of_unknown_passages
from ragray.models import resolve_model
from ragray.types import Document, Passage
from tests.tiny import byte_tokenizer

IN_TEN_LANGUAGES = (
    "洱海是云南的一个高原湖泊，湖边住着白族人。",
    "佢哋朝早去街市買餸，晏晝返屋企煮飯。",
    "桜の花は四月の初めに咲き、十日ほどで散ります。",
    "부산항은 한국에서 가장 큰 항구 도시의 항구이다.",
    "ช้างเป็นสัตว์ประจำชาติของไทยและอาศัยอยู่ในป่า",
    "ताजमहल यमुना नदी के किनारे आगरा में स्थित है।",
    "تقع مدينة فاس القديمة في شمال المغرب وتشتهر بأسواقها.",
    "Die Elbe entspringt im Riesengebirge und mündet in die Nordsee.",
    "Sông Hương chảy qua thành phố Huế trước khi ra biển.",
    "The heron waits in shallow water and strikes at fish.",
)


def write_shards(folder: Path, texts: list[str], *, shard_rows: int = 1000) -> list[Path]:
    with ShardWriter(folder, shard_rows) as writer:
        for start in range(0, len(texts), 100):
            rows = [Passage(str(n), text, "title", "d") for n, text in enumerate(texts[start : start + 100], start)]
            writer.write(passages_to_table(rows))
    return writer.paths


@pytest.fixture(scope="module")
def minilm() -> FileTokenizer:
    return FileTokenizer(resolve_model("all-minilm-l6-v2"))


@pytest.mark.parametrize("text", [IN_TEN_LANGUAGES[0], IN_TEN_LANGUAGES[1], IN_TEN_LANGUAGES[4]])
def test_passages_in_a_script_that_the_encoder_lacks_are_named_with_what_to_choose(
    tmp_path: Path, minilm: FileTokenizer, text: str, caplog: pytest.LogCaptureFixture
) -> None:
    warn_of_unknown_passages(write_shards(tmp_path, [text] * 5), minilm, "all-minilm-l6-v2")
    [record] = caplog.records
    assert record.levelno == logging.WARNING
    unknown, total = minilm.count_unknown([f"title\n{text}"])
    assert record.message == (
        f"{100 * unknown / total:.0f}% of tokens unknown to all-minilm-l6-v2 in a sample of 5 passages: "
        "choose a multilingual encoder, such as embed.model=multilingual-e5-small"
    )


def test_passages_that_it_reads_are_not(
    tmp_path: Path, minilm: FileTokenizer, caplog: pytest.LogCaptureFixture
) -> None:
    texts = [*IN_TEN_LANGUAGES[-3:], *IN_TEN_LANGUAGES[-3:], "A crane 鶴 stands in the marsh."]
    warn_of_unknown_passages(write_shards(tmp_path, texts), minilm, "all-minilm-l6-v2")
    assert caplog.records == []


def test_the_multilingual_encoder_knows_every_token_in_ten_languages() -> None:
    tokenizer = load_tokenizer(EncoderConfig(model="multilingual-e5-small"))
    assert [tokenizer.count_unknown([text])[0] for text in IN_TEN_LANGUAGES] == [0] * len(IN_TEN_LANGUAGES)


def test_chinese_is_cut_at_sentences_into_passages_that_the_multilingual_encoder_reads_whole() -> None:
    tokenizer = load_tokenizer(EncoderConfig(model="multilingual-e5-small"))
    sentences = [f"第{n}个村子在山谷里，村民种水稻和茶树，每年秋天举行收获节。" for n in range(60)]
    passages = list(split_document(Document("d", "".join(sentences), "山村"), tokenizer, IngestConfig()))
    lengths = [tokenizer.count(f"passage: {passage.title}\n{passage.text}") + 2 for passage in passages]
    assert len(passages) > 1
    assert max(lengths) <= EncoderConfig().max_length
    assert all(passage.text.endswith("。") for passage in passages)


def test_a_tokenizer_of_bytes_and_the_fake_know_everything(tmp_path: Path) -> None:
    byte_tokenizer().save_pretrained(tmp_path)
    assert FileTokenizer(tmp_path).count_unknown(IN_TEN_LANGUAGES)[0] == 0
    assert WordTokenizer().count_unknown(["some words", "东京"]) == (0, 3)


def test_what_is_unknown_is_named_by_the_model_or_by_sentencepiece() -> None:
    words = Tokenizer(models.WordLevel({"yes": 0, "[?]": 1}, "[?]"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    assert unknown_id(words) == 1
    assert unknown_id(Tokenizer(models.Unigram([("a", -1.0), ("<unk>", 0.0)], 1, False))) == 1
    assert unknown_id(Tokenizer(models.BPE({"a": 0}, []))) is None


def test_a_sample_is_all_of_a_small_corpus_and_spread_over_a_large_one(tmp_path: Path) -> None:
    few = write_shards(tmp_path / "few", ["one", "two", "three"])
    assert sampled_texts(few) == ["title\none", "title\ntwo", "title\nthree"]
    many = sampled_texts(write_shards(tmp_path / "many", [str(n) for n in range(4000)], shard_rows=200))
    rows = [int(text.removeprefix("title\n")) for text in many]
    assert len(rows) <= SAMPLED_GROUPS * SAMPLED_ROWS
    assert rows == sorted(set(rows))
    assert {row // 1000 for row in rows} == {0, 1, 2, 3}


def test_no_passages_are_no_sample() -> None:
    assert sampled_texts([]) == []
