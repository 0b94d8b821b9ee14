"""Prefixes are those of the model's own file of prompts unless they are set, and what was embedded without them stays so."""

import json
import logging
import shutil
from pathlib import Path

import numpy as np
import pytest

from ragray.config import EncoderConfig
from ragray.embed.encoder import encoder_fingerprint, with_prefixes
from ragray.embed.load import load_encoder
from ragray.embed.prompts import PROMPT_FILE, model_prefixes
from ragray.errors import ConfigError


@pytest.fixture
def prompted(tmp_path: Path, tiny_encoder: Path) -> Path:
    """A model folder whose authors wrote prompts beside the weights."""
    folder = shutil.copytree(tiny_encoder, tmp_path / "model")
    write_prompts(folder, {"prompts": {"query": "q: ", "document": "d: "}})
    return folder


def write_prompts(folder: Path, settings: object) -> None:
    (folder / PROMPT_FILE).write_text(json.dumps(settings), encoding="utf-8")


def prefixes(folder: Path, settings: object) -> tuple[str, str]:
    write_prompts(folder, settings)
    found = model_prefixes("model", folder)
    return found["passage_prefix"], found["question_prefix"]


INSTRUCTION = "Instruct: Find passages that answer the question\nQuery:"


@pytest.mark.parametrize(
    ("settings", "passage", "question"),
    [
        ({"prompts": {"query": "query: ", "passage": "passage: "}}, "passage: ", "query: "),
        ({"prompts": {"query": INSTRUCTION, "document": ""}, "default_prompt_name": None}, "", INSTRUCTION),
        ({"prompts": {"query": "Represent this sentence: "}}, "", "Represent this sentence: "),
        ({"prompts": {"corpus": "c: ", "passage": "p: ", "document": "d: "}}, "d: ", ""),
        ({"prompts": {"query": "q: ", "sts": "s: "}, "default_prompt_name": "sts"}, "s: ", "q: "),
        ({"prompts": {"query": None, "document": "d: "}}, "d: ", ""),
        ({"prompts": {}, "default_prompt_name": None}, "", ""),
        ({"similarity_fn_name": "cosine"}, "", ""),
    ],
)
def test_prefixes_are_the_prompts_for_queries_and_documents(
    tmp_path: Path, settings: object, passage: str, question: str
) -> None:
    assert prefixes(tmp_path, settings) == (passage, question)


@pytest.mark.parametrize("content", ["{", "[]", '{"prompts": ["query: "]}'])
def test_a_damaged_file_of_prompts_is_refused(tmp_path: Path, content: str) -> None:
    (tmp_path / PROMPT_FILE).write_text(content)
    with pytest.raises(ConfigError, match=f"{PROMPT_FILE}: .*restore the file"):
        model_prefixes("model", tmp_path)


def test_the_model_s_prompts_are_used_unless_prefixes_are_set(prompted: Path, tiny_encoder: Path) -> None:
    plain = load_encoder(EncoderConfig(model=str(tiny_encoder)), device="cpu")
    own = load_encoder(EncoderConfig(model=str(prompted)), device="cpu")
    np.testing.assert_array_equal(own.encode(["text"]), plain.encode(["d: text"]))
    np.testing.assert_array_equal(own.encode_questions(["text"]), plain.encode(["q: text"]))
    given = load_encoder(EncoderConfig(model=str(prompted), passage_prefix="", question_prefix="x "), device="cpu")
    np.testing.assert_array_equal(given.encode(["text"]), plain.encode(["text"]))
    np.testing.assert_array_equal(given.encode_questions(["text"]), plain.encode(["x text"]))


def test_the_fingerprint_holds_the_prefix_that_is_in_force(prompted: Path) -> None:
    assert encoder_fingerprint(EncoderConfig(model=str(prompted))).passage_prefix == "d: "
    assert encoder_fingerprint(EncoderConfig(model=str(prompted), passage_prefix="")).passage_prefix == ""


def test_settled_prefixes_are_read_from_no_file(prompted: Path) -> None:
    settled = with_prefixes(EncoderConfig(model=str(prompted)))
    assert (settled.passage_prefix, settled.question_prefix) == ("d: ", "q: ")
    (prompted / PROMPT_FILE).unlink()
    assert with_prefixes(settled) == settled
    assert with_prefixes(EncoderConfig(model="gone", passage_prefix="", question_prefix="")).passage_prefix == ""


def test_the_fake_has_no_prompts_and_keeps_what_is_set() -> None:
    assert with_prefixes(EncoderConfig(model="hash:8")).question_prefix == ""
    assert with_prefixes(EncoderConfig(model="hash:8", question_prefix="q: ")).question_prefix == "q: "


def test_a_model_that_pools_without_its_prompt_is_refused_where_it_has_one(prompted: Path) -> None:
    (prompted / "1_Pooling").mkdir()
    (prompted / "1_Pooling" / "config.json").write_text('{"pooling_mode": "mean", "include_prompt": false}')
    with pytest.raises(ConfigError, match=r"1_Pooling/config\.json: .*without the tokens of its prompt"):
        encoder_fingerprint(EncoderConfig(model=str(prompted)))
    encoder_fingerprint(EncoderConfig(model=str(prompted), passage_prefix="", question_prefix=""))


@pytest.mark.parametrize("name", ["intfloat/e5-large-v2", "multilingual-e5-base", "/models/my_E5"])
def test_an_e5_model_without_prompts_is_named_with_the_settings_it_needs(
    tmp_path: Path, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    assert set(model_prefixes(name, tmp_path).values()) == {""}
    [record] = caplog.records
    assert record.levelno == logging.WARNING
    assert record.message.startswith(f"embed.model={name}: ")
    assert "embed.passage_prefix='passage: ' and embed.question_prefix='query: '" in record.message


@pytest.mark.parametrize("name", ["all-minilm-l6-v2", "/data/e5f0/model", "base5", "BAAI/bge-m3"])
def test_other_models_without_prompts_are_not(tmp_path: Path, name: str, caplog: pytest.LogCaptureFixture) -> None:
    model_prefixes(name, tmp_path)
    assert caplog.records == []
