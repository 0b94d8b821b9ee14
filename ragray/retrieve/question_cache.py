"""Vectors of questions that were asked before. In: an encoder. Out: the same, which encodes each question once while it is remembered."""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Sequence
from threading import Lock

import numpy as np

from ragray.embed.encoder import Encoder, EncoderFingerprint, Vectors

REMEMBERED = 10_000
"""Questions that are remembered: 15 MB of vectors with 384 dimensions."""


class CachingEncoder:
    """The port `Encoder` over another one, whose vectors of questions it keeps, those asked for last.

    A question is encoded without white space around it and with single spaces in it, remembered or not, so that its vector does not
    depend on who asked before. What is kept names no question: the key is a digest. `hits` and `misses` count questions.
    """

    def __init__(self, encoder: Encoder, remembered: int = REMEMBERED) -> None:
        self._encoder = encoder
        self._remembered = remembered
        self._vectors: OrderedDict[bytes, Vectors] = OrderedDict()
        self._lock = Lock()
        self.hits = 0
        self.misses = 0

    @property
    def fingerprint(self) -> EncoderFingerprint:
        """What decides the vectors."""
        return self._encoder.fingerprint

    def encode(self, texts: Sequence[str]) -> Vectors:
        """Encode passages, (N,) -> (N, D) float32; they are not kept."""
        return self._encoder.encode(texts)

    def encode_questions(self, texts: Sequence[str]) -> Vectors:
        """Encode questions, (N,) -> (N, D) float32; those that are not remembered together, each once."""
        questions = {_digest(question): question for question in map(normalised, texts)}
        found = self._recall(questions)
        new = {key: question for key, question in questions.items() if key not in found}
        if new:
            found |= dict(zip(new, self._encoder.encode_questions(list(new.values())), strict=True))
            self._remember({key: found[key] for key in new})
        return np.stack([found[_digest(normalised(text))] for text in texts])

    def num_question_tokens(self, texts: Sequence[str]) -> int:
        """Return the number of tokens that `encode_questions` reads of all texts together, remembered or not."""
        return self._encoder.num_question_tokens(texts)

    def _recall(self, questions: dict[bytes, str]) -> dict[bytes, Vectors]:
        with self._lock:
            found = {key: self._vectors[key] for key in questions if key in self._vectors}
            for key in found:
                self._vectors.move_to_end(key)
            self.hits += len(found)
            self.misses += len(questions) - len(found)
        return found

    def _remember(self, vectors: dict[bytes, Vectors]) -> None:
        with self._lock:
            for key, vector in vectors.items():
                self._vectors[key] = vector.copy()  # not a view that would keep its whole batch
            while len(self._vectors) > self._remembered:
                self._vectors.popitem(last=False)


def normalised(question: str) -> str:
    """Return a question without white space around it, and with single spaces in it."""
    return " ".join(question.split())


def _digest(question: str) -> bytes:
    return hashlib.blake2b(question.encode(), digest_size=16).digest()
