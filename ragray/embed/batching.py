"""Batches of similar length. In: texts and a tokenizer. Out: batches of padded tokens, and vectors in the order of the texts.

N texts, B texts of a batch, T tokens, D dim.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ragray.config import EncoderConfig
from ragray.corpus.tokens import unknown_id
from ragray.corpus.unknown import warn_of_unknown
from ragray.embed.encoder import EncoderFingerprint, Vectors
from ragray.models import load_tokenizer

Tokens = npt.NDArray[np.int64]

CHARS_PER_TOKEN = 64
"""Texts are cut to so many characters for every token that the encoder reads: ten times what prose needs, so a text of
10 MB costs no more to tokenise than any other."""
BATCH_TOKENS = {"cpu": 1024, "cuda": 16384}
"""Padded tokens of a batch where none are set: a CPU wants what fits its cache, a GPU enough work per call.

Measured with MiniLM's shape: H200, float32: 2,200 passages per second at 1024, 6,200 at 16384, 7,700 at 65536, which long
texts and large models may have no memory for.
"""


class BatchedEncoder(ABC):
    """Encodes texts in batches that are sorted by length and bounded in padded tokens; a subclass runs the model."""

    padding_tokens: int | None = None
    """Padding of a batch at most, in tokens, where a further batch costs less than more of it; None: any."""

    def __init__(
        self, tokenizer: Any, config: EncoderConfig, fingerprint: EncoderFingerprint, *, batch_tokens: int
    ) -> None:
        self.tokenizer = tokenizer
        self.config = config
        self._fingerprint = fingerprint
        self._batch_tokens = batch_tokens
        backend = getattr(tokenizer, "backend_tokenizer", None)
        self._unknown = unknown_id(backend) if backend else None

    @abstractmethod
    def _vectors(self, input_ids_BT: Tokens, attention_mask_BT: Tokens) -> Vectors:
        """Run the model on one batch, -> (B, D) float32."""

    @property
    def fingerprint(self) -> EncoderFingerprint:
        """What decides the vectors."""
        return self._fingerprint

    def encode(self, texts: Sequence[str]) -> Vectors:
        """Encode passages, (N,) -> (N, D) float32."""
        return self._encode(self._tokenize(self.config.passage_prefix, texts))

    def encode_questions(self, texts: Sequence[str]) -> Vectors:
        """Encode questions, (N,) -> (N, D) float32; the first that the model cannot read are named in a warning."""
        tokens = self._tokenize(self.config.question_prefix, texts)
        if self._unknown is not None:
            unknown, total = sum(ids.count(self._unknown) for ids in tokens), sum(map(len, tokens))
            if warn_of_unknown(unknown, total, self.config.model, f"{len(texts)} questions"):
                self._unknown = None
        return self._encode(tokens)

    def num_question_tokens(self, texts: Sequence[str]) -> int:
        """Return the number of tokens that `encode_questions` reads of all texts together."""
        return sum(map(len, self._tokenize(self.config.question_prefix, texts)))

    def _tokenize(self, prefix: str, texts: Sequence[str]) -> list[list[int]]:
        """Return the token ids of every text, as many as the model reads."""
        if not texts:
            return []
        num_chars = self.config.max_length * CHARS_PER_TOKEN
        tokens: list[list[int]] = self.tokenizer(
            [(prefix + text[:num_chars])[:num_chars] for text in texts],
            truncation=True,
            max_length=self.config.max_length,
            return_attention_mask=False,
            return_token_type_ids=False,
        )["input_ids"]
        return tokens

    def _encode(self, tokens: list[list[int]]) -> Vectors:
        vectors_ND = np.empty((len(tokens), self._fingerprint.dim), dtype=np.float32)
        for rows in plan_batches([len(ids) for ids in tokens], self._batch_tokens, self.padding_tokens):
            vectors_ND[rows] = self._vectors(*pad([tokens[row] for row in rows], self.tokenizer.pad_token_id or 0))
        return vectors_ND


def load_text_tokenizer(folder: Path) -> Any:
    """Load an encoder's tokenizer. A control token that a text spells, such as ``[SEP]``, is encoded as its characters."""
    return load_tokenizer(folder, split_special_tokens=True)


def pad(tokens: Sequence[Sequence[int]], pad_id: int) -> tuple[Tokens, Tokens]:
    """Pad token lists on the right; return ids and attention mask, both (B, T)."""
    width = max(1, max(map(len, tokens)))
    ids_BT = np.full((len(tokens), width), pad_id, dtype=np.int64)
    mask_BT = np.zeros((len(tokens), width), dtype=np.int64)
    for row, ids in enumerate(tokens):
        ids_BT[row, : len(ids)] = ids
        mask_BT[row, : len(ids)] = 1
    return ids_BT, mask_BT


def default_batch_tokens(device: str) -> int:
    """Return the padded tokens of a batch on a type of device, such as ``cuda``."""
    return BATCH_TOKENS.get(device, BATCH_TOKENS["cpu"])


def plan_batches(lengths: Sequence[int], batch_tokens: int, padding_tokens: int | None = None) -> list[list[int]]:
    """Group rows of similar length, longest first, so that rows x longest stays within ``batch_tokens`` (at least one row).

    With ``padding_tokens`` no batch is padded by more tokens than that.
    """
    batches: list[list[int]] = []
    longest = padding = 0
    for row in sorted(range(len(lengths)), key=lambda row: (-lengths[row], row)):
        padding += longest - lengths[row]
        full = not batches or (len(batches[-1]) + 1) * longest > batch_tokens
        if full or (padding_tokens is not None and padding > padding_tokens):
            batches.append([])
            longest, padding = max(lengths[row], 1), 0
        batches[-1].append(row)
    return batches


def length_groups(lengths: Sequence[int], overhead: int) -> list[list[int]]:
    """Split rows into groups of similar length, longest first, so that the tokens computed are fewest.

    A group costs rows x longest tokens, and ``overhead`` tokens besides. The best split of the sorted rows, by dynamic programming.
    """
    order = sorted(range(len(lengths)), key=lambda row: (-lengths[row], row))
    costs, begins = [0], [0]
    for stop in range(1, len(order) + 1):
        ways = ((costs[start] + (stop - start) * lengths[order[start]] + overhead, start) for start in range(stop))
        cost, begin = min(ways)
        costs.append(cost)
        begins.append(begin)
    groups: list[list[int]] = []
    stop = len(order)
    while stop:
        groups.append(order[begins[stop] : stop])
        stop = begins[stop]
    return groups[::-1]
