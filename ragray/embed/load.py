"""Opens an encoder. In: the configuration. Out: the `Encoder` that it names, for questions or for the passages of a corpus."""

from __future__ import annotations

import importlib.util
import logging
from pathlib import Path
from typing import Literal

from ragray.config import EmbedConfig, EncoderConfig
from ragray.embed.encoder import (
    Encoder,
    EncoderFingerprint,
    encoder_fingerprint,
    hash_encoder,
    is_hash,
    require_comparable,
)
from ragray.errors import ModelError
from ragray.models import resolve_part

logger = logging.getLogger("ragray")

Engine = Literal["auto", "torch", "openvino"]


def load_encoder(config: EncoderConfig, *, device: str = "auto", threads: int = 0) -> Encoder:
    """Load the encoder that a configuration names, on torch in float32, with so many threads (0: as many as torch takes by itself).

    Raises:
        ConfigError: `hash:` is not followed by a dimension.
        ModelNotFoundError: the model's name resolves to nothing.
    """
    if is_hash(config):
        return hash_encoder(config)
    from ragray.embed.transformer import TransformerEncoder

    return TransformerEncoder.load(config, device=device, threads=threads)


def load_question_encoder(
    config: EncoderConfig,
    *,
    device: str = "auto",
    engine: Engine = "torch",
    weights: Path | None = None,
    fingerprint: EncoderFingerprint | None = None,
) -> Encoder:
    """Load the encoder of the questions: ``question_model`` where there is one, with the fingerprint of the passages' encoder.

    ``weights`` and ``fingerprint`` are those of a fine-tuned one, as `TransformerEncoder.load` takes them. ``engine`` auto is
    OpenVINO on a CPU, where it is installed and can convert the model, else torch.

    Raises as `load_encoder` does, and `EncoderMismatchError` where its vectors cannot be compared with those of the passages.
    With ``engine`` openvino also what `OpenVinoEncoder.compile` raises.
    """
    if is_hash(config):
        return hash_encoder(config)
    if weights is None and config.question_model:
        weights, fingerprint = resolve_part(config.question_model, "question_encoder"), encoder_fingerprint(config)
        require_comparable(weights, fingerprint, f"embed.question_model={config.question_model}")
    if engine == "openvino" or (engine == "auto" and _has_openvino(device)):
        from ragray.embed.openvino import OpenVinoEncoder

        try:
            return OpenVinoEncoder.compile(config, weights=weights, fingerprint=fingerprint)
        except ModelError as err:
            if engine != "auto":
                raise
            logger.warning("questions are encoded by torch: %s", err)
    from ragray.embed.transformer import TransformerEncoder

    return TransformerEncoder.load(config, device=device, weights=weights, fingerprint=fingerprint)


def _has_openvino(device: str) -> bool:
    """Return whether OpenVINO is installed, and the device that it would compute on is the one that is wanted."""
    from ragray.device import pick_device

    return importlib.util.find_spec("openvino") is not None and pick_device(device).type == "cpu"


def load_passage_encoder(config: EmbedConfig, *, device: str = "auto", threads: int = 0) -> Encoder:
    """Load the encoder for the passages of a corpus: on the engine, in the type and with the batches that the section `embed` names.

    Raises:
        ConfigError: `hash:` is not followed by a dimension.
        ModelNotFoundError: the model's name resolves to nothing.
        MissingPackageError: ``embed.engine`` needs a package that is not installed.
    """
    if is_hash(config):
        return hash_encoder(config)
    if config.engine == "openvino":
        from ragray.embed.openvino import OpenVinoEncoder

        return OpenVinoEncoder.compile(config, threads=threads, dtype=config.dtype, batch_tokens=config.batch_tokens)
    from ragray.embed.transformer import TransformerEncoder

    return TransformerEncoder.load(
        config, device=device, threads=threads, dtype=config.dtype, batch_tokens=config.batch_tokens
    )
