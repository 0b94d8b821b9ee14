"""Counting tokens. In: texts and words. Out: how many tokens of the encoder each has."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from tokenizers import Tokenizer as RustTokenizer

from ragray.artifact.digest import file_checksum
from ragray.config import EncoderConfig
from ragray.errors import ModelNotFoundError
from ragray.models import resolve_model

MAX_KNOWN_WORDS = 100_000


class Tokenizer(Protocol):
    """Counts tokens as the encoder does, without its special tokens."""

    @property
    def identity(self) -> str:
        """What decides the counts."""

    def count(self, text: str) -> int:
        """Count the tokens of a text."""

    def count_words(self, words: Sequence[str]) -> list[int]:
        """Count the tokens of each of some words, or lines of code."""

    def count_unknown(self, texts: Sequence[str]) -> tuple[int, int]:
        """Count the unknown tokens of some texts, and all their tokens."""


class FileTokenizer:
    """The tokenizer of a model folder, from its ``tokenizer.json``; the truncation and padding stored there are off."""

    def __init__(self, folder: Path) -> None:
        path = folder / "tokenizer.json"
        if not path.is_file():
            raise ModelNotFoundError(f"{folder}: holds no tokenizer.json; save the model's fast tokenizer there")
        self.identity = file_checksum(path)
        self._tokenizer = RustTokenizer.from_file(str(path))
        self._tokenizer.no_truncation()
        self._tokenizer.no_padding()
        self._tokenizer.encode_special_tokens = True  # text that spells a control token is encoded as text
        self._unknown = unknown_id(self._tokenizer)
        self._known: dict[str, int] = {}

    def count(self, text: str) -> int:
        """Count the tokens of a text."""
        return len(self._tokenizer.encode(text, add_special_tokens=False).ids)

    def count_words(self, words: Sequence[str]) -> list[int]:
        """Count the tokens of each of some words; a word is tokenized once and then remembered."""
        known = self._known
        new = [word for word in dict.fromkeys(words) if word not in known]
        if len(known) + len(new) > MAX_KNOWN_WORDS:
            known.clear()
            new = list(dict.fromkeys(words))
        if new:
            offsets = self._tokenizer.encode(" ".join(new), add_special_tokens=False).offsets
            token_ends = [end for _, end in offsets]
            word_end = token = 0
            for word in new:
                word_end += len(word)
                until = bisect_right(token_ends, word_end, token)
                known[word] = until - token
                word_end, token = word_end + 1, until
        return [known[word] for word in words]

    def count_unknown(self, texts: Sequence[str]) -> tuple[int, int]:
        """Count the tokens that stand for characters without any of their own, and all tokens."""
        ids = [self._tokenizer.encode(text, add_special_tokens=False).ids for text in texts]
        unknown = 0 if self._unknown is None else sum(row.count(self._unknown) for row in ids)
        return unknown, sum(map(len, ids))


class WordTokenizer:
    """Counts words between white space: goes with the encoder ``hash:N``, which has no other tokens."""

    identity = "words"

    def count(self, text: str) -> int:
        """Count the words of a text."""
        return len(text.split())

    def count_words(self, words: Sequence[str]) -> list[int]:
        """Count one for each word, and the words of a line of code."""
        return [len(word.split()) if " " in word else 1 for word in words]

    def count_unknown(self, texts: Sequence[str]) -> tuple[int, int]:
        """Count no unknown words: the fake encoder knows all."""
        return 0, sum(map(self.count, texts))


def unknown_id(tokenizer: RustTokenizer) -> int | None:
    """Return the id of the token for unknown characters; None where the tokenizer has none, as one of bytes.

    A unigram model does not tell the token's name, which is SentencePiece's.
    """
    name = getattr(tokenizer.model, "unk_token", "<unk>")
    return tokenizer.token_to_id(name) if name else None


def load_tokenizer(config: EncoderConfig) -> Tokenizer:
    """Load the tokenizer that belongs to a configured encoder.

    Raises:
        ModelNotFoundError: the encoder's name resolves to nothing, or to a folder without tokenizer.json.
    """
    return WordTokenizer() if config.model.startswith("hash:") else FileTokenizer(resolve_model(config.model))
