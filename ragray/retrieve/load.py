"""Opens a retriever. In: an index, perhaps a run, the configuration. Out: a retriever over a snapshot, its models loaded."""

from __future__ import annotations

from pathlib import Path

from ragray.config import Config, EncoderConfig
from ragray.embed.encoder import Encoder
from ragray.embed.load import load_encoder
from ragray.embed.prompts import PREFIXES
from ragray.index.search.reader import IndexReader
from ragray.retrieve.question_cache import CachingEncoder
from ragray.retrieve.rerank import CrossEncoder
from ragray.retrieve.retriever import LocalRetriever
from ragray.retrieve.tuned import log_overridden
from ragray.run import Run


def load_retriever(
    index: Path, run: Path | None, config: Config, *, snapshot: str | None = None, device: str = "auto"
) -> LocalRetriever:
    """Open an index with the run's question encoder, else with the one it was made with; `lexical` mode loads none.

    ``snapshot`` is the current one by default.

    Raises:
        EncoderMismatchError: the run, or an encoder named in the configuration, belongs to another index.
        InputError: the mode needs a lexical part that the snapshot lacks, or the filter cannot be read.
        ModelNotFoundError: the encoder's or the reranker's name resolves to nothing.
    """
    settings = config.retrieve
    reader = IndexReader.open(index, snapshot=snapshot, threads=settings.threads)
    LocalRetriever(reader, None, settings)  # raises what is wrong with the settings before a model is loaded
    log_overridden(settings, reader.snapshot)
    encoder = None if settings.mode == "lexical" else question_encoder(reader, run, config, device=device)
    if run is not None and encoder is None:
        reader.require_encoder(Run.open(run).facts.encoder, f"run {run}")
    reranker = CrossEncoder.load(settings.rerank_model, device=device) if settings.rerank_model else None
    return LocalRetriever(reader, encoder, settings, reranker)


def question_encoder(reader: IndexReader, run: Path | None, config: Config, *, device: str = "auto") -> CachingEncoder:
    """Load the question encoder for an open index; one named in the configuration must be the index's own.

    It remembers the questions that were asked last.
    """
    return CachingEncoder(_question_encoder(reader, run, config, device=device))


def _question_encoder(reader: IndexReader, run: Path | None, config: Config, *, device: str) -> Encoder:
    settings: EncoderConfig = reader.snapshot.encoder_config
    if "model" in config.embed.model_fields_set:
        recorded = {key: getattr(settings, key) for key in PREFIXES if key not in config.embed.model_fields_set}
        given = {key: getattr(config.embed, key) for key in EncoderConfig.model_fields}
        settings = EncoderConfig.model_validate(given | recorded)
    if run is None:
        return load_encoder(settings, device=device)
    opened = Run.open(run)
    reader.require_encoder(opened.facts.encoder, f"run {run}")
    if settings.model.startswith("hash:") or not opened.question_encoder.is_dir():
        return load_encoder(settings, device=device)
    from ragray.embed.transformer import TransformerEncoder

    return TransformerEncoder.load(
        settings, device=device, weights=opened.question_encoder, fingerprint=opened.facts.encoder
    )
