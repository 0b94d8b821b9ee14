"""The cross-encoder: scores are the model's own, one pair at a time, and candidates come back in their order."""

from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer, BertConfig, BertForSequenceClassification

from ragray.errors import ModelNotFoundError
from ragray.retrieve.rerank import CrossEncoder
from ragray.types import Hit, Passage
from tests.helpers import sentence

HITS = [Hit(Passage(f"p{n}", sentence(n) * (n % 4 + 1), "title" if n % 2 else ""), float(-n)) for n in range(13)]
QUERIES = ["which river is long?", "cats"]


def save_cross_encoder(folder: Path, tokenizer: Path, *, labels: int = 1) -> Path:
    """Save a cross-encoder of two layers and random weights, without dropout."""
    torch.manual_seed(labels)
    found = AutoTokenizer.from_pretrained(tokenizer)
    config = BertConfig(
        vocab_size=len(found), hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2,
        max_position_embeddings=64, pad_token_id=0, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0,
        initializer_range=0.5, num_labels=labels,
    )  # fmt: skip
    BertForSequenceClassification(config).save_pretrained(folder)
    found.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def folder(tiny_encoder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_cross_encoder(tmp_path_factory.mktemp("cross-encoder"), tiny_encoder)


def one_by_one(folder: Path, query: str, texts: list[str]) -> list[float]:
    """The last logit of every pair alone, as transformers computes it."""
    model, tokenizer = AutoModelForSequenceClassification.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    tokens = [tokenizer(query, text, truncation=True, max_length=64, return_tensors="pt") for text in texts]
    with torch.no_grad():
        return [float(model(**each).logits[0, -1]) for each in tokens]


def text_of(hit: Hit) -> str:
    return f"{hit.passage.title}\n{hit.passage.text}" if hit.passage.title else hit.passage.text


@pytest.mark.parametrize(("labels", "batch_size"), [(1, 1), (1, 100), (2, 4)])
def test_scores_are_those_of_the_model_for_each_pair_alone(
    tmp_path: Path, tiny_encoder: Path, labels: int, batch_size: int
) -> None:
    saved = save_cross_encoder(tmp_path, tiny_encoder, labels=labels)
    reranker = CrossEncoder.load(str(saved), device="cpu", batch_size=batch_size)
    texts = [text_of(hit) for hit in HITS]
    scores = reranker.scores([(QUERIES[0], text) for text in texts])
    np.testing.assert_allclose(scores, one_by_one(saved, QUERIES[0], texts), atol=1e-5)


def test_candidates_come_back_best_first_with_the_models_scores(folder: Path) -> None:
    reranker = CrossEncoder.load(str(folder), device="cpu")
    ranked = reranker.rerank(QUERIES, [HITS, HITS[3:5]], 5)
    for query, candidates, found in zip(QUERIES, [HITS, HITS[3:5]], ranked, strict=True):
        scores = one_by_one(folder, query, [text_of(hit) for hit in candidates])
        order = np.argsort(-np.array(scores), kind="stable")[:5]
        assert [hit.passage for hit in found] == [candidates[place].passage for place in order]
        assert [hit.score for hit in found] == pytest.approx([scores[place] for place in order], abs=1e-5)


def test_the_same_passage_twice_keeps_its_order_and_no_candidates_stay_none(folder: Path) -> None:
    twins = [Hit(Passage(name, "the same text"), 0.0) for name in ("b", "a", "c")]
    reranker = CrossEncoder.load(str(folder), device="cpu")
    [found, nothing] = reranker.rerank(["river", "cats"], [twins, []], 3)
    assert [hit.passage.id for hit in found] == ["b", "a", "c"]
    assert nothing == []


def test_a_long_passage_is_cut_to_what_the_model_can_read(folder: Path) -> None:
    reranker = CrossEncoder.load(str(folder), device="cpu")
    assert np.isfinite(reranker.scores([("q", "word " * 5000), ("q " * 5000, "word")])).all()


def test_a_model_that_scores_no_pairs_is_refused(tmp_path: Path, tiny_encoder: Path) -> None:
    with pytest.raises(
        ModelNotFoundError, match=r"rerank_model=.* is BertModel with 2 labels, expected a sequence-class"
    ):
        CrossEncoder.load(str(tiny_encoder))
    three = save_cross_encoder(tmp_path, tiny_encoder, labels=3)
    with pytest.raises(ModelNotFoundError, match=r"with 3 labels, expected .* one label or two"):
        CrossEncoder.load(str(three))
    with pytest.raises(ModelNotFoundError, match="no model 'nowhere'"):
        CrossEncoder.load("nowhere")
