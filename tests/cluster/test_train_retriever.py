"""Retriever training, as far as it needs no Ray: what is refused before a cluster is started."""

from pathlib import Path

import pytest

from ragray.cluster.train import train_rag
from ragray.config import Config, load_config
from ragray.errors import InputError, TrainingError
from ragray.retrieve.mining.triples import write_triples
from tests.train.retriever_rig import QUESTIONS


def config(*overrides: str) -> Config:
    return load_config(None, ["train.objective=contrastive", *overrides])


def test_examples_that_were_not_mined_are_refused(tiny_encoder_index: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="learns from what ragray mine wrote"):
        train_rag(tiny_encoder_index, [{"question": "who?", "answers": ["she"]}], tmp_path / "run", config())
    examples = tmp_path / "train.jsonl"
    examples.write_text('{"id": "1", "question": "who?", "answers": ["she"]}\n', encoding="utf-8")
    with pytest.raises(
        InputError, match=r"train\.jsonl:1: field 'positive': Field required; write the file with ragray mine"
    ):
        train_rag(tiny_encoder_index, examples, tmp_path / "run", config())


def test_an_encoder_without_weights_is_refused(hash_index: Path, tmp_path: Path) -> None:
    mined = tmp_path / "triples.jsonl"
    write_triples(mined, QUESTIONS[0])
    with pytest.raises(TrainingError, match="has no weights to train"):
        train_rag(hash_index, mined, tmp_path / "run", config())
