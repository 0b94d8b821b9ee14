"""Of a block with poison in it every other text gets its own vector; an encoder that is broken by itself blames no text."""

import random
from collections.abc import Callable, Sequence

import numpy as np
import pytest

from ragray.config import EncoderConfig
from ragray.embed.encoder import HashEncoder, Vectors
from ragray.embed.isolate_failures import NOT_FINITE, SpoiltEncoderError, probe, sift
from ragray.errors import ConfigError
from tests.embed.poisonous import BREAKS, ENDLESS, RAISES, PoisonousEncoder
from tests.helpers import sentence

ENCODER = PoisonousEncoder(HashEncoder(16))


class Oddity(HashEncoder):
    """A hash encoder that does something else for the texts of one block."""

    def __init__(self, odd: Callable[[Sequence[str]], None]) -> None:
        super().__init__(8)
        self._odd = odd

    def encode(self, texts: Sequence[str]) -> Vectors:
        self._odd(texts)
        return super().encode(texts)


@pytest.mark.parametrize("seed", range(10))
def test_every_text_but_the_poisonous_ones_gets_the_vector_it_has_alone(seed: int) -> None:
    draw = random.Random(seed)
    texts = [sentence(n) for n in range(draw.randint(1, 40))]
    raising = set(draw.sample(range(len(texts)), draw.randint(0, len(texts))))
    texts = [f"{text} {RAISES}" if row in raising else text for row, text in enumerate(texts)]
    sifted = sift(ENCODER, texts, known={})
    assert set(sifted.reasons) == raising
    assert sifted.kept == [row for row in range(len(texts)) if row not in raising]
    alone = [HashEncoder(16).encode([texts[row]]) for row in sifted.kept]
    np.testing.assert_array_equal(sifted.vectors_ND, np.concatenate([np.empty((0, 16)), *alone]))


def test_the_reason_is_the_error_in_one_line() -> None:
    assert sift(ENCODER, ["fine", RAISES], known={}).reasons == {1: "ValueError: no such token"}


def test_a_text_whose_vector_is_not_finite_is_refused() -> None:
    sifted = sift(ENCODER, ["one", ENDLESS, "two"], known={})
    assert (sifted.kept, sifted.reasons) == ([0, 2], {1: NOT_FINITE})


def test_a_text_that_is_known_to_be_deadly_is_not_tried() -> None:
    tried: list[int] = []
    known = {1: "deadly"}
    sifted = sift(ENCODER, ["one", RAISES, "two"], known=known, one_by_one=True, on_try=tried.append)
    assert (sifted.reasons, tried, known) == ({1: "deadly"}, [0, 2], {1: "deadly"})


def test_texts_tried_alone_get_the_same_vectors() -> None:
    texts = [sentence(n) for n in range(9)]
    together, alone = (sift(ENCODER, texts, known={}, one_by_one=single) for single in (False, True))
    np.testing.assert_array_equal(alone.vectors_ND, together.vectors_ND)


def test_an_error_that_is_no_exception_is_caught_and_an_interrupt_is_not() -> None:
    def panic(texts: Sequence[str]) -> None:
        if "panic" in texts:
            raise BaseException("as PyO3 raises it")
        if "interrupt" in texts:
            raise KeyboardInterrupt

    assert list(sift(Oddity(panic), ["panic", "text"], known={}).reasons) == [0]
    with pytest.raises(KeyboardInterrupt):
        sift(Oddity(panic), ["interrupt", "text"], known={})


def test_an_encoder_that_a_text_broke_blames_nobody() -> None:
    with pytest.raises(SpoiltEncoderError, match="ValueError: no such token"):
        sift(PoisonousEncoder(HashEncoder(16)), ["one", BREAKS, "two"], known={})


def test_an_encoder_that_encodes_nothing_is_refused_before_any_passage_is() -> None:
    def fail(texts: Sequence[str]) -> None:
        raise RuntimeError("CUDA error: no kernel image\nfor this device")

    with pytest.raises(
        ConfigError, match=r"cannot encode a plain text \(RuntimeError: CUDA error: no kernel image\); "
    ):
        probe(Oddity(fail), EncoderConfig(model="m"))


def test_an_encoder_that_reads_less_than_it_is_given_is_refused() -> None:
    def fail_if_long(texts: Sequence[str]) -> None:
        if len(texts[0].split()) > 512:
            raise IndexError("index out of range in self")

    probe(Oddity(fail_if_long), EncoderConfig(model="m", max_length=50))
    with pytest.raises(ConfigError, match=r"a text of embed\.max_length=256 tokens .*; lower embed\.max_length"):
        probe(Oddity(fail_if_long), EncoderConfig(model="m"))
