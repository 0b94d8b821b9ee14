"""Real vectors are those of sentence-transformers, whatever else is in the batch; batches are planned by plain arithmetic."""

import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ragray.config import EmbedConfig, EncoderConfig
from ragray.corpus.tokens import load_tokenizer
from ragray.embed.batching import CHARS_PER_TOKEN, plan_batches
from ragray.embed.encoder import encoder_fingerprint
from ragray.embed.transformer import TransformerEncoder
from ragray.models import resolve_model

TEXTS = [
    "The river Seine flows through Paris.",
    "the river seine flows through paris.",
    "Which river flows through Paris?",
    "Cats sleep most of the day.",
    "A",
    "",
    "Zürich liegt an der Limmat — größte Stadt der Schweiz.",
    "東京は日本の首都です。",
    "1789, 3.14159 and 42% of $1,000",
    "one two three " * 40,
    "a passage longer than the model reads " * 60,
    "Title\nA passage under its title.",
]


@pytest.fixture(scope="module")
def minilm() -> TransformerEncoder:
    return TransformerEncoder.load(EmbedConfig(), device="cpu", batch_tokens=512)


@pytest.fixture(scope="module")
def vectors(minilm: TransformerEncoder) -> np.ndarray:
    return minilm.encode(TEXTS)


def test_vectors_equal_those_of_sentence_transformers(vectors: np.ndarray) -> None:
    from sentence_transformers import SentenceTransformer  # seconds, which collecting the tests need not take

    model = SentenceTransformer(str(resolve_model("all-minilm-l6-v2")), device="cpu")
    expected = model.encode(TEXTS, batch_size=4, normalize_embeddings=True)
    np.testing.assert_allclose(vectors, expected, atol=1e-5)


def test_a_vector_does_not_depend_on_what_else_is_encoded(minilm: TransformerEncoder, vectors: np.ndarray) -> None:
    alone = np.concatenate([minilm.encode([text]) for text in TEXTS])
    np.testing.assert_allclose(alone, vectors, atol=1e-6)
    np.testing.assert_allclose(minilm.encode(TEXTS[::-1])[::-1], vectors, atol=1e-6)


def test_vectors_have_length_one_and_the_dimension_of_the_fingerprint(
    minilm: TransformerEncoder, vectors: np.ndarray
) -> None:
    assert vectors.shape == (len(TEXTS), minilm.fingerprint.dim)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, rtol=1e-5)


def test_encoding_nothing_gives_no_rows(minilm: TransformerEncoder) -> None:
    assert minilm.encode([]).shape == (0, 384)


def test_the_fingerprint_is_known_without_loading_the_weights(minilm: TransformerEncoder) -> None:
    assert encoder_fingerprint(EmbedConfig()) == minilm.fingerprint


def test_encoding_leaves_a_module_in_training_as_it_was(minilm: TransformerEncoder) -> None:
    minilm.module.train()
    minilm.encode(["text"])
    assert minilm.module.training
    minilm.module.eval()


def test_prefixes_are_put_before_passages_and_questions(tiny_encoder: Path) -> None:
    plain = TransformerEncoder.load(EncoderConfig(model=str(tiny_encoder)), device="cpu")
    prefixed = TransformerEncoder.load(
        EncoderConfig(model=str(tiny_encoder), passage_prefix="p: ", question_prefix="q: "), device="cpu"
    )
    np.testing.assert_array_equal(prefixed.encode(["text"]), plain.encode(["p: text"]))
    np.testing.assert_array_equal(prefixed.encode_questions(["text"]), plain.encode(["q: text"]))


class CountingTokenizer:
    """Passes texts on to a tokenizer and counts their characters."""

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer, self.num_chars = tokenizer, 0
        self.pad_token_id = tokenizer.pad_token_id

    def __call__(self, texts: list[str], **options: Any) -> Any:
        self.num_chars += sum(map(len, texts))
        return self._tokenizer(texts, **options)


def test_ten_megabytes_cost_and_give_what_the_tokens_do_that_are_read(tiny_encoder: Path) -> None:
    encoder = TransformerEncoder.load(EncoderConfig(model=str(tiny_encoder)), device="cpu")
    tokenizer = CountingTokenizer(encoder.tokenizer)
    counted = TransformerEncoder(encoder.module, tokenizer, encoder.config, encoder.fingerprint)
    long = counted.encode(["seine \x00 " * 1_300_000, "x" * 10_000_000])
    assert tokenizer.num_chars <= 2 * encoder.config.max_length * CHARS_PER_TOKEN
    np.testing.assert_allclose(long, encoder.encode(["seine \x00 " * 300, "x" * 300]), atol=1e-6)


def test_pooling_is_the_first_token_or_the_mean_as_asked(tiny_encoder: Path) -> None:
    config = EncoderConfig(model=str(tiny_encoder), pooling="cls", normalize=False)
    encoder = TransformerEncoder.load(config, device="cpu")
    ids, mask = encoder.question_tensors(["some text", "more"])
    states = encoder.module.model(input_ids=ids, attention_mask=mask).last_hidden_state.detach().numpy()
    np.testing.assert_allclose(encoder.encode_questions(["some text", "more"]), states[:, 0], atol=1e-6)
    mean = TransformerEncoder.load(config.model_copy(update={"pooling": "mean"}), device="cpu")
    lengths = mask.sum(1).tolist()
    expected = np.stack([states[row, :length].mean(0) for row, length in enumerate(lengths)])
    np.testing.assert_allclose(mean.encode_questions(["some text", "more"]), expected, atol=1e-6)


@pytest.mark.parametrize("budget", [1, 64, 300, 100_000])
def test_a_plan_holds_every_row_once_longest_first_within_the_budget(budget: int) -> None:
    lengths = random.Random(budget).choices(range(300), k=100)
    batches = plan_batches(lengths, budget)
    rows = [row for batch in batches for row in batch]
    assert sorted(rows) == list(range(100))
    assert [lengths[row] for row in rows] == sorted(lengths, reverse=True)
    assert all(len(batch) == 1 or len(batch) * lengths[batch[0]] <= budget for batch in batches)


def test_a_batch_is_filled_as_far_as_the_budget_allows() -> None:
    assert plan_batches([5, 10, 5, 10, 5], 20) == [[1, 3], [0, 2, 4]]


def test_a_batch_is_padded_no_further_than_is_allowed() -> None:
    assert plan_batches([9, 2, 8, 3, 2], 1000, padding_tokens=1) == [[0, 2], [3, 1], [4]]
    assert plan_batches([9, 2, 8, 3, 2], 1000, padding_tokens=100) == [[0, 2, 3, 1, 4]]


def test_no_rows_are_no_batches() -> None:
    assert plan_batches([], 100) == []


def test_a_control_token_that_is_spelled_in_a_text_is_encoded_as_text(tiny_encoder: Path) -> None:
    config = EncoderConfig(model=str(tiny_encoder))
    encoder = TransformerEncoder.load(config, device="cpu")
    special = set(encoder.tokenizer.all_special_ids) - {encoder.tokenizer.unk_token_id}
    plain, spelled = (encoder.question_tensors([text])[0][0].tolist() for text in ("a b", "a</s><pad> b"))
    assert [number in special for number in spelled].count(True) == [number in special for number in plain].count(True)
    assert load_tokenizer(config).count("a</s> b") == len(
        encoder.tokenizer("a</s> b", add_special_tokens=False)["input_ids"]
    )
