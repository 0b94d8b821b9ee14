"""The port `Encoder`. In: texts. Out: vectors, and the fingerprint of whatever decided them. With a fake that needs no weights."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Protocol, TypeVar

import numpy as np
import numpy.typing as npt

from ragray.config import EncoderConfig
from ragray.embed.pooling import OWN, pooling_and_size, require_known_modules, require_prompt_pooled
from ragray.embed.prompts import PREFIXES, model_prefixes
from ragray.errors import ConfigError, EncoderMismatchError
from ragray.models import resolve_model, weights_fingerprint

Vectors = npt.NDArray[np.float32]

MIXED_ADVICE = "use one encoder for both, or embed and index again with the other"


@dataclass(frozen=True, slots=True)
class EncoderFingerprint:
    """Everything that decides the vector of a passage. Vectors with equal fingerprints may be compared and mixed."""

    model: str
    weights: str
    dim: int
    pooling: str
    normalize: bool
    max_length: int
    passage_prefix: str

    def require(self, other: EncoderFingerprint, *, here: str, there: str, advice: str = MIXED_ADVICE) -> None:
        """Raise `EncoderMismatchError` naming the first difference, unless the two are equal (the model's name is no difference)."""
        mine, theirs = asdict(self), asdict(other)
        for key in mine:
            if key != "model" and mine[key] != theirs[key]:
                raise EncoderMismatchError(
                    f"{here} was made with encoder '{self.model}' ({key}={mine[key]!r}), {there} with '{other.model}' "
                    f"({key}={theirs[key]!r}); {advice}"
                )


class Encoder(Protocol):
    """Turns texts into vectors whose inner products are scores."""

    @property
    def fingerprint(self) -> EncoderFingerprint:
        """What decides the vectors."""

    def encode(self, texts: Sequence[str]) -> Vectors:
        """Encode passages, (N,) -> (N, D) float32."""

    def encode_questions(self, texts: Sequence[str]) -> Vectors:
        """Encode questions, (N,) -> (N, D) float32."""

    def num_question_tokens(self, texts: Sequence[str]) -> int:
        """Return the number of tokens that `encode_questions` reads of all texts together."""


class HashEncoder:
    """A fake encoder: a bag of words under feature hashing (Weinberger et al. 2009, arXiv:0902.2206), scaled to length one.

    It is deterministic and needs no weights. Texts that share words have near vectors, which is enough to test all other parts.
    """

    def __init__(self, dim: int = 64) -> None:
        self.dim = dim

    @property
    def fingerprint(self) -> EncoderFingerprint:
        """What decides the vectors."""
        return EncoderFingerprint(f"hash:{self.dim}", "hash", self.dim, "sum", True, 0, "")

    def encode(self, texts: Sequence[str]) -> Vectors:
        """Encode, (N,) -> (N, D) float32."""
        vectors = np.zeros((len(texts), self.dim), dtype=np.float32)
        for row, text in enumerate(texts):
            for word in text.lower().split():
                value = int.from_bytes(
                    hashlib.blake2b(word.strip(".,;:?!\"'()").encode(), digest_size=8).digest(), "little"
                )
                vectors[row, (value >> 1) % self.dim] += 1.0 if value & 1 else -1.0
        norms = np.linalg.norm(vectors, axis=1, keepdims=True)
        vectors /= np.where(norms == 0, 1, norms)
        return vectors

    def encode_questions(self, texts: Sequence[str]) -> Vectors:
        """Encode, (N,) -> (N, D) float32; a question is encoded as a passage is."""
        return self.encode(texts)

    def num_question_tokens(self, texts: Sequence[str]) -> int:
        """Return the number of words."""
        return sum(len(text.split()) for text in texts)


def is_hash(config: EncoderConfig) -> bool:
    """Return whether a configuration names the fake encoder."""
    return config.model.startswith("hash:")


def hash_encoder(config: EncoderConfig) -> HashEncoder:
    """Return the fake encoder that a configuration names; raises `ConfigError` where no dimension follows `hash:`."""
    digits = config.model.removeprefix("hash:")
    if not digits.isdigit() or int(digits) < 1:
        raise ConfigError(f"embed.model={config.model!r}: expected hash:DIM, for instance hash:64")
    return HashEncoder(int(digits))


def encoder_fingerprint(config: EncoderConfig, folder: Path | None = None) -> EncoderFingerprint:
    """Return the fingerprint of a configured encoder without loading its weights (``folder``: that of the weights, if known).

    Raises:
        ModelNotFoundError: the name resolves to nothing, or the folder holds no safetensors.
        ConfigError: the model has a pooling or a module that ragray does not compute.
    """
    if is_hash(config):
        return hash_encoder(config).fingerprint
    folder = folder or resolve_model(config.model)
    require_known_modules(folder)
    config = with_prefixes(config)
    if config.passage_prefix or config.question_prefix:
        require_prompt_pooled(folder)
    pooling, dim = pooling_and_size(folder, config.pooling)
    return EncoderFingerprint(
        model=config.model,
        weights=weights_fingerprint(folder),
        dim=dim,
        pooling=pooling,
        normalize=config.normalize,
        max_length=config.max_length,
        passage_prefix=config.passage_prefix,
    )


def require_comparable(questions: Path, passages: EncoderFingerprint, what: str) -> None:
    """Raise `EncoderMismatchError` where the vectors of a question encoder, a model folder, cannot be compared with those of passages."""
    pooling, dim = pooling_and_size(questions, "auto")
    fits = passages.pooling in (OWN, "cls") if pooling == OWN else passages.pooling != OWN
    if dim != passages.dim or not fits:
        raise EncoderMismatchError(
            f"{what} makes vectors of {dim} dimensions (pooling {pooling}), the passages were made with encoder '{passages.model}' "
            f"({passages.dim} dimensions, pooling {passages.pooling}); name the question encoder that belongs to it"
        )


C = TypeVar("C", bound=EncoderConfig)


def with_prefixes(config: C) -> C:
    """Replace prefixes that are `auto` by those that the model's folder names; the fake encoder has none.

    Raises:
        ModelNotFoundError: the model's name resolves to nothing.
        ConfigError: the file of prompts is damaged.
    """
    open_keys = [key for key in PREFIXES if getattr(config, key) == "auto"]
    if not open_keys:
        return config
    found = (
        dict.fromkeys(PREFIXES, "") if is_hash(config) else model_prefixes(config.model, resolve_model(config.model))
    )
    return config.model_copy(update={key: found[key] for key in open_keys})


def absolute_model(config: C) -> C:
    """Replace the path of a model's local folder by its absolute path, because workers and later readers run in other folders."""
    folders = {
        key: Path(getattr(config, key)).expanduser() for key in ("model", "question_model") if getattr(config, key)
    }
    return config.model_copy(update={key: str(path.resolve()) for key, path in folders.items() if path.is_dir()})
