"""Questions are encoded once while they are remembered, and have the vectors that they have without a cache."""

from collections.abc import Sequence

import numpy as np

from ragray.embed.encoder import HashEncoder, Vectors
from ragray.retrieve.question_cache import CachingEncoder, normalised


class Counting(HashEncoder):
    """Keeps what it encoded."""

    def __init__(self) -> None:
        super().__init__(16)
        self.batches: list[list[str]] = []

    def encode_questions(self, texts: Sequence[str]) -> Vectors:
        self.batches.append(list(texts))
        return super().encode_questions(texts)


def test_a_question_has_the_vector_that_it_has_without_a_cache_asked_anew_or_again() -> None:
    cached, plain = CachingEncoder(Counting()), HashEncoder(16)
    for texts in (["who?", "where?", "who?"], ["where?", "when was it?"], ["who?"]):
        np.testing.assert_array_equal(cached.encode_questions(texts), plain.encode_questions(texts))
    assert cached.fingerprint == plain.fingerprint
    assert cached.num_question_tokens(["where is it?"]) == 3


def test_only_what_is_not_remembered_is_encoded_and_that_once() -> None:
    encoder = Counting()
    cached = CachingEncoder(encoder)
    cached.encode_questions(["who?", "where?", "who?"])
    cached.encode_questions(["where?", "when?"])
    cached.encode_questions(["when?"])
    assert encoder.batches == [["who?", "where?"], ["when?"]]
    assert (cached.hits, cached.misses) == (2, 3)


def test_a_question_is_the_same_whatever_its_white_space_but_not_whatever_its_case() -> None:
    encoder = Counting()
    cached = CachingEncoder(encoder)
    one = cached.encode_questions(["  who\n is it? "])
    np.testing.assert_array_equal(cached.encode_questions(["who is it?"]), one)
    cached.encode_questions(["Who is it?"])
    assert encoder.batches == [[normalised("who is it?")], ["Who is it?"]]


def test_those_asked_for_last_are_kept() -> None:
    encoder = Counting()
    cached = CachingEncoder(encoder, remembered=2)
    for question in ("a", "b", "a", "c", "a", "b"):
        cached.encode_questions([question])
    assert [question for [question] in encoder.batches] == ["a", "b", "c", "b"]


def test_passages_are_not_kept() -> None:
    cached = CachingEncoder(Counting())
    cached.encode(["a passage"])
    assert (cached.hits, cached.misses) == (0, 0)
