"""Opens an encoder. In: the configuration. Out: the `Encoder` that it names, for questions or for the passages of a corpus."""

from __future__ import annotations

import importlib.util
import logging
import os
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
from ragray.errors import MissingPackageError, ModelError
from ragray.models import resolve_part
from ragray.openvino import import_openvino

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
    OpenVINO on a CPU, where it is installed and can convert the model, else torch, with a warning where only that failed.

    Raises as `load_encoder` does, and `EncoderMismatchError` where its vectors cannot be compared with those of the passages.
    With ``engine`` openvino also what `OpenVinoEncoder.compile` raises.
    """
    if is_hash(config):
        return hash_encoder(config)
    if weights is None and config.question_model:
        weights, fingerprint = resolve_part(config.question_model, "question_encoder"), encoder_fingerprint(config)
        require_comparable(weights, fingerprint, f"embed.question_model={config.question_model}")
    if engine_of_questions(engine, device) == "openvino":
        from ragray.embed.openvino import OpenVinoEncoder

        try:
            import_openvino(f"serve.question_engine={engine}")
            return OpenVinoEncoder.compile(config, threads=_threads(), weights=weights, fingerprint=fingerprint)
        except (MissingPackageError, ModelError) as err:
            if engine != "auto":
                raise
            logger.warning("questions are encoded by torch: %s", err)
    from ragray.embed.transformer import TransformerEncoder

    return TransformerEncoder.load(config, device=device, weights=weights, fingerprint=fingerprint)


def engine_of_questions(engine: Engine, device: str = "auto") -> Engine:
    """Return the engine that ``engine`` stands for on a device: with auto, OpenVINO on a CPU where it is installed, else torch."""
    if engine != "auto":
        return engine
    if importlib.util.find_spec("openvino") is None:
        return "torch"
    from ragray.device import pick_device

    return "openvino" if pick_device(device).type == "cpu" else "torch"


def _threads() -> int:
    """Return the threads for questions: as many as Ray reserved CPUs, if several, else half of the machine's; HTTP wants the others."""
    reserved = os.environ.get("OMP_NUM_THREADS", "")  # Ray sets it in its workers
    return int(reserved) if reserved.isdigit() and int(reserved) > 1 else max(1, (os.cpu_count() or 1) // 2)


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
