"""Entailment: shared words are a rule that can be computed by hand; a model's answer is its own most probable label."""

from pathlib import Path

import pytest
import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer, BertConfig, BertForSequenceClassification

from ragray.errors import ModelNotFoundError
from ragray.evaluate.measures.entailment import Claim, LexicalEntailment, NliModel, load_entailment
from tests.helpers import sentence

LABELS = {0: "contradiction", 1: "neutral", 2: "entailment"}


def save_model(folder: Path, tokenizer: Path, labels: dict[int, str]) -> Path:
    torch.manual_seed(4)
    found = AutoTokenizer.from_pretrained(tokenizer)
    config = BertConfig(
        vocab_size=len(found), hidden_size=16, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2,
        max_position_embeddings=64, pad_token_id=0, initializer_range=0.9, id2label=labels,
        label2id={name: number for number, name in labels.items()},
    )  # fmt: skip
    BertForSequenceClassification(config).save_pretrained(folder)
    found.save_pretrained(folder)
    return folder


@pytest.mark.parametrize(
    ("premise", "statement", "holds"),
    [
        ("The Seine flows through Paris.", "The Seine flows through Paris", True),
        ("Through Paris there flows the Seine", "the seine flows through paris!", True),
        ("The Seine flows through Rouen.", "The Seine flows through Paris", False),
        ("塞纳河流过巴黎市", "塞纳河流过巴黎", True),
        ("anything", "the", False),
        ("", "Paris", False),
    ],
)
def test_shared_words_support_a_statement_where_four_fifths_stand_in_the_premise(
    premise: str, statement: str, holds: bool
) -> None:
    assert LexicalEntailment().holds([Claim(premise, "where?", statement)]) == [holds]


def test_a_model_supports_what_it_finds_most_probably_entailed(tiny_encoder: Path, tmp_path: Path) -> None:
    """A short statement is read behind its question."""
    folder = save_model(tmp_path, tiny_encoder, LABELS)
    claims = [Claim(sentence(n) * 4, "which?", "it is" if n % 2 else sentence(n + 1)) for n in range(20)]
    model, tokenizer = AutoModelForSequenceClassification.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    expected = []
    for claim in claims:
        said = f"which? {claim.statement}" if claim.statement == "it is" else claim.statement
        tokens = tokenizer(claim.premise, said, truncation=True, max_length=64, return_tensors="pt")
        expected.append(int(model(**tokens).logits.argmax()) == 2)
    entailment = load_entailment(str(folder))
    assert entailment.holds(claims) == expected
    assert set(expected) == {True, False}
    assert str(folder) in entailment.how


def test_a_model_without_a_label_for_entailment_is_refused(tiny_encoder: Path, tmp_path: Path) -> None:
    folder = save_model(tmp_path, tiny_encoder, {0: "good", 1: "bad"})
    with pytest.raises(ModelNotFoundError, match=r"evaluate\.entailment=.*good, bad.*lexical"):
        NliModel.load(str(folder))
