"""Opens retrievers. In: an index, perhaps a run, the configuration. Out: a retriever over a snapshot, its models loaded."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ragray.config import Config, EncoderConfig
from ragray.embed.encoder import Encoder, EncoderFingerprint
from ragray.embed.load import Engine, load_question_encoder
from ragray.embed.prompts import PREFIXES
from ragray.index.check.canary import require_findable
from ragray.index.search.reader import IndexReader
from ragray.index.store.snapshot import Snapshot
from ragray.retrieve.question_cache import CachingEncoder
from ragray.retrieve.rerank import CrossEncoder
from ragray.retrieve.retriever import LocalRetriever
from ragray.retrieve.shelf import IndexSource
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
    source = IndexSource(str(index), str(run or ""), snapshot or "")
    return SnapshotOpener(config, device=device)(source)


@dataclass(frozen=True, slots=True)
class Models:
    """The models that search a snapshot, and what they were loaded for."""

    encoder: Encoder | None
    reranker: CrossEncoder | None
    made_for: EncoderFingerprint
    run: str


class ModelLoader:
    """Loads models with the first snapshot; the next ones are searched with the same, as long as they need no other encoder."""

    def __init__(self, config: Config, device: str = "auto", engine: Engine = "torch") -> None:
        """Take the engine of the question encoder, as `load_question_encoder` does."""
        self._config = config
        self._device = device
        self._engine = engine
        self._models: Models | None = None

    def __call__(self, snapshot: Snapshot, run: str) -> Models:
        """Return the models for a snapshot; raises as `load_retriever` does."""
        models, settings = self._models, self._config.retrieve
        if models is None or (models.made_for, models.run) != (snapshot.encoder, run):
            folder = Path(run) if run else None
            encoder = None
            if settings.mode != "lexical":
                encoder = CachingEncoder(_encoder(snapshot, folder, self._config, self._device, self._engine))
            if folder and encoder is None:
                _require_encoder(snapshot, folder)
            name = settings.rerank_model
            reranker = models.reranker if models else CrossEncoder.load(name, device=self._device) if name else None
            self._models = models = Models(encoder, reranker, snapshot.encoder, run)
        return models


class SnapshotOpener:
    """Opens snapshots one after the other, in this process."""

    def __init__(self, config: Config, *, device: str = "auto", engine: Engine = "torch") -> None:
        """Take the engine of the question encoder, as `load_question_encoder` does."""
        self._settings = config.retrieve
        self._models = ModelLoader(config, device, engine)

    def __call__(self, source: IndexSource, *, checked: bool = False) -> LocalRetriever:
        """Open a snapshot; ``checked`` also searches for some of its rows. Raises as `load_retriever` does."""
        reader = IndexReader.open(Path(source.index), snapshot=source.snapshot or None, threads=self._settings.threads)
        LocalRetriever(reader, None, self._settings)  # raises what is wrong with the settings before a model is loaded
        if checked:
            require_findable(reader)
        log_overridden(self._settings, reader.snapshot)
        models = self._models(reader.snapshot, source.run)
        return LocalRetriever(reader, models.encoder, self._settings, models.reranker)


def question_encoder(reader: IndexReader, run: Path | None, config: Config, *, device: str = "auto") -> CachingEncoder:
    """Load the question encoder for an open index; one named in the configuration must be the index's own.

    It remembers the questions that were asked last.
    """
    return CachingEncoder(_encoder(reader.snapshot, run, config, device, "torch"))


def _require_encoder(snapshot: Snapshot, run: Path) -> Run:
    opened = Run.open(run)
    opened.require_index(snapshot.encoder, here=f"index snapshot {snapshot.name}", there=f"run {run}")
    return opened


def _encoder(snapshot: Snapshot, run: Path | None, config: Config, device: str, engine: Engine) -> Encoder:
    settings: EncoderConfig = snapshot.encoder_config
    if "model" in config.embed.model_fields_set:
        recorded = {key: getattr(settings, key) for key in PREFIXES if key not in config.embed.model_fields_set}
        given = {key: getattr(config.embed, key) for key in EncoderConfig.model_fields}
        settings = EncoderConfig.model_validate(given | recorded)
    if run is None:
        return load_question_encoder(settings, device=device, engine=engine)
    opened = _require_encoder(snapshot, run)
    if not opened.question_encoder.is_dir():
        return load_question_encoder(settings, device=device, engine=engine)
    weights, fingerprint = opened.question_encoder, opened.facts.encoder
    return load_question_encoder(settings, device=device, engine=engine, weights=weights, fingerprint=fingerprint)
