"""Opens an encoder. In: the configuration. Out: the `Encoder` that it names, for questions or for the passages of a corpus."""

from __future__ import annotations

from ragray.config import EmbedConfig, EncoderConfig
from ragray.embed.encoder import Encoder, encoder_fingerprint, hash_encoder, is_hash, require_comparable
from ragray.models import resolve_part


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


def load_question_encoder(config: EncoderConfig, *, device: str = "auto") -> Encoder:
    """Load the encoder of the questions: ``question_model`` where there is one, with the fingerprint of the passages' encoder.

    Raises as `load_encoder` does, and `EncoderMismatchError` where its vectors cannot be compared with those of the passages.
    """
    if not config.question_model:
        return load_encoder(config, device=device)
    from ragray.embed.transformer import TransformerEncoder

    weights, passages = resolve_part(config.question_model, "question_encoder"), encoder_fingerprint(config)
    require_comparable(weights, passages, f"embed.question_model={config.question_model}")
    return TransformerEncoder.load(config, device=device, weights=weights, fingerprint=passages)


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

        return OpenVinoEncoder.compile(config, threads=threads)
    from ragray.embed.transformer import TransformerEncoder

    return TransformerEncoder.load(
        config, device=device, threads=threads, dtype=config.dtype, batch_tokens=config.batch_tokens
    )
