"""The fake encoder can be computed by hand; fingerprints say which vectors may meet, and what keeps two apart."""

import dataclasses
import hashlib

import numpy as np
import pytest

from ragray.config import EncoderConfig
from ragray.embed.encoder import EncoderFingerprint, HashEncoder, encoder_fingerprint
from ragray.embed.load import load_encoder
from ragray.errors import ConfigError, EncoderMismatchError, ModelNotFoundError

FINGERPRINT = EncoderFingerprint("minilm", "abc", 384, "mean", True, 256, "")


def one_word(word: str, dim: int) -> np.ndarray:
    """The vector of one word, after the description: an even hash counts -1, an odd one +1, the other bits choose where."""
    value = int.from_bytes(hashlib.blake2b(word.encode(), digest_size=8).digest(), "little")
    vector = np.zeros(dim, dtype=np.float32)
    vector[(value >> 1) % dim] = 1.0 if value % 2 else -1.0
    return vector


def test_a_hashed_text_is_the_normalised_sum_of_its_words() -> None:
    summed = 2 * one_word("seine", 32) + one_word("paris", 32)
    (vector,) = HashEncoder(32).encode(['Seine, "seine"; Paris?'])
    np.testing.assert_allclose(vector, summed / np.linalg.norm(summed), rtol=1e-6)


def test_hashed_vectors_are_the_same_in_every_process_and_batch() -> None:
    texts = ["a b c", "a", "d e"]
    together = HashEncoder(16).encode(texts)
    alone = np.concatenate([HashEncoder(16).encode([text]) for text in texts])
    assert together.tobytes() == alone.tobytes()
    assert together.dtype == np.float32


def test_hashed_vectors_have_length_one_and_that_of_no_words_has_length_zero() -> None:
    lengths = np.linalg.norm(HashEncoder(8).encode(["one", "two words", "and three words", ""]), axis=1)
    np.testing.assert_allclose(lengths, [1, 1, 1, 0], rtol=1e-6)


def test_encoding_nothing_gives_no_rows() -> None:
    assert HashEncoder(8).encode([]).shape == (0, 8)


def test_texts_that_share_words_are_nearer_than_texts_that_do_not() -> None:
    river, same, other = HashEncoder(256).encode(["a long river", "the river is long", "cats sleep"])
    assert river @ same > river @ other


def test_questions_are_hashed_as_passages_are() -> None:
    encoder = HashEncoder(8)
    np.testing.assert_array_equal(encoder.encode_questions(["a b"]), encoder.encode(["a b"]))


def test_the_dimension_of_the_fake_stands_in_its_name() -> None:
    encoder = load_encoder(EncoderConfig(model="hash:24"))
    assert encoder.encode(["text"]).shape == (1, 24)
    assert encoder_fingerprint(EncoderConfig(model="hash:24")) == encoder.fingerprint


@pytest.mark.parametrize("model", ["hash:", "hash:0", "hash:many", "hash:-4"])
def test_a_fake_without_a_dimension_is_refused(model: str) -> None:
    with pytest.raises(ConfigError, match="expected hash:DIM, for instance hash:64"):
        load_encoder(EncoderConfig(model=model))


def test_an_unknown_model_is_refused_before_anything_is_loaded() -> None:
    with pytest.raises(ModelNotFoundError, match="no model 'nonsense'"):
        encoder_fingerprint(EncoderConfig(model="nonsense"))


@pytest.mark.parametrize(
    "change",
    [
        {"weights": "xyz"},
        {"dim": 768},
        {"pooling": "cls"},
        {"normalize": False},
        {"max_length": 128},
        {"passage_prefix": "passage: "},
    ],
)
def test_whatever_decides_the_vectors_keeps_two_encoders_apart(change: dict[str, object]) -> None:
    ((key, value),) = change.items()
    other = dataclasses.replace(FINGERPRINT, model="other", **change)
    with pytest.raises(EncoderMismatchError) as caught:
        FINGERPRINT.require(other, here="the index", there="the run")
    mine = f"the index was made with encoder 'minilm' ({key}={getattr(FINGERPRINT, key)!r})"
    assert str(caught.value).startswith(f"{mine}, the run with 'other' ({key}={value!r})")


def test_of_several_differences_the_first_is_named() -> None:
    other = dataclasses.replace(FINGERPRINT, dim=768, pooling="cls")
    with pytest.raises(EncoderMismatchError, match=r"dim=384") as caught:
        FINGERPRINT.require(other, here="a", there="b")
    assert "pooling" not in str(caught.value)


def test_the_same_weights_under_another_name_are_the_same_encoder() -> None:
    FINGERPRINT.require(dataclasses.replace(FINGERPRINT, model="/a/copy"), here="a", there="b")
