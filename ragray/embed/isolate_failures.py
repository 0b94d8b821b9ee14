"""Isolating failures. In: an encoder and texts. Out: the vectors of the texts that it can encode, and the error of every other text.

N texts, D dim.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from ragray.config import EncoderConfig
from ragray.embed.blocks import not_finite
from ragray.embed.encoder import Encoder, Vectors
from ragray.errors import ConfigError

PLAIN_TEXT = "A river flows through the city."
REASON_CHARS = 200
NOT_FINITE = "its vector is not finite in float16"


class SpoiltEncoderError(Exception):
    """The encoder worked before and now fails on any text, for instance after a failed CUDA assertion."""


@dataclass(frozen=True, slots=True)
class Sifted:
    """The result for N texts: ``vectors_ND`` of the rows in ``kept``, in order, and a reason for every other row."""

    kept: list[int]
    vectors_ND: Vectors
    reasons: dict[int, str]


def sift(
    encoder: Encoder,
    texts: Sequence[str],
    *,
    known: dict[int, str],
    one_by_one: bool = False,
    on_try: Callable[[int], None] = lambda row: None,
) -> Sifted:
    """Encode all texts except those that fail, which are found by bisection; rows in ``known`` are not tried.

    With ``one_by_one`` every text is encoded alone, and ``on_try`` is called with its row before.

    Raises:
        SpoiltEncoderError: the encoder broke over one of them.
    """
    vectors_ND = np.zeros((len(texts), encoder.fingerprint.dim), dtype=np.float32)
    reasons = dict(known)

    def encode(rows: list[int]) -> None:
        try:
            vectors_ND[rows] = encoder.encode([texts[row] for row in rows])
        except (KeyboardInterrupt, SystemExit):
            raise
        except BaseException as err:  # a panic in the tokenizer's Rust code is no Exception
            if len(rows) == 1:
                require_sound(encoder)
                reasons[rows[0]] = describe(err)
                return
            half = len(rows) // 2
            encode(rows[:half])
            encode(rows[half:])

    wanted = [row for row in range(len(texts)) if row not in known]
    for rows in ([row] for row in wanted) if one_by_one else [wanted]:
        if one_by_one:
            on_try(rows[0])
        encode(rows)
    reasons |= dict.fromkeys(not_finite(vectors_ND), NOT_FINITE)
    kept = [row for row in wanted if row not in reasons]
    return Sifted(kept, vectors_ND[kept], reasons)


def require_sound(encoder: Encoder) -> None:
    """Raise `SpoiltEncoderError` where a plain text cannot be encoded; otherwise the text that failed before was at fault."""
    try:
        encoder.encode([PLAIN_TEXT])
    except Exception as err:
        raise SpoiltEncoderError(describe(err)) from err


def probe(encoder: Encoder, config: EncoderConfig) -> None:
    """Encode a plain text and one of maximum length, so that a faulty encoder is not taken for a faulty passage.

    Raises:
        ConfigError: one of the two cannot be encoded, or not in float16.
    """
    long = " ".join([PLAIN_TEXT] * config.max_length)
    for kind, text, advice in (
        ("a plain text", PLAIN_TEXT, "choose another embed.model"),
        (f"a text of embed.max_length={config.max_length} tokens", long, "lower embed.max_length"),
    ):
        try:
            vectors_ND = encoder.encode([text])
        except Exception as err:
            raise ConfigError(f"embed.model={config.model} cannot encode {kind} ({describe(err)}); {advice}") from err
        if not_finite(vectors_ND):
            raise ConfigError(
                f"embed.model={config.model} gives {kind} a vector that float16 cannot hold (beyond 65504, or not a number); "
                "set embed.normalize=true, or choose another embed.model"
            )


def describe(err: BaseException) -> str:
    """Describe an error of a library in one line."""
    line = next(iter(str(err).strip().splitlines()), "")
    return f"{type(err).__name__}: {line}"[:REASON_CHARS].rstrip(": ")
