"""Runs `embed` on Ray Data. In: a corpus folder. Out: an embeddings folder; blocks that an earlier run finished are kept."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from time import monotonic

import numpy as np

from ragray import artifact
from ragray.cluster.session import session
from ragray.config import Config, EmbedConfig
from ragray.corpus.table import Corpus
from ragray.embed.encoder import EncoderFingerprint, encoder_fingerprint, load_encoder
from ragray.embed.shards import (
    BLOCK_FOLDER,
    Block,
    embeddings_facts,
    encoder_text,
    missing_blocks,
    plan_blocks,
    read_block,
    write_block,
)
from ragray.errors import ArtifactError, ConfigError, CorruptArtifactError, NotAnArtifactError, RagrayError
from ragray.progress import Progress


@dataclass(frozen=True, slots=True)
class EmbedReport:
    """What a run of `embed` did: passages in the artefact, passages computed by this very run, and its seconds."""

    num_passages: int
    num_computed: int
    seconds: float
    encode_seconds: float
    fingerprint: EncoderFingerprint

    @property
    def reused(self) -> bool:
        """True where nothing had to be computed."""
        return self.num_computed == 0


class BlockEncoder:
    """The work of one actor: reads a block's passages, encodes them, writes the block's file."""

    def __init__(self, config: EmbedConfig, folder: str, threads: int) -> None:
        self._encoder = load_encoder(config)
        self._folder = Path(folder)
        if not config.model.startswith("hash:"):
            import torch

            torch.set_num_threads(threads)

    def __call__(self, batch: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Embed the blocks named in the batch; return for each its rows, its seconds and what went wrong.

        An error on purpose comes back as its message, to reach the user without Ray's trace.
        """
        rows, seconds, errors = [], [], []
        for shard, start, stop, name in zip(batch["shard"], batch["start"], batch["stop"], batch["name"], strict=True):
            started = monotonic()
            error = ""
            try:
                self.embed(Block(str(shard), int(start), int(stop), str(name)))
            except RagrayError as err:
                error = str(err)
            errors.append(error)
            rows.append(int(stop - start))
            seconds.append(monotonic() - started)
        return {"rows": np.array(rows), "seconds": np.array(seconds), "error": np.array(errors)}

    def embed(self, block: Block) -> None:
        """Embed one block."""
        table = read_block(block)
        pairs = zip(table["title"].to_pylist(), table["text"].to_pylist(), strict=True)
        vectors_ND = self._encoder.encode([encoder_text(title or "", text) for title, text in pairs])
        write_block(self._folder, block, table["id"], vectors_ND)


def embed_corpus(corpus: Path, out: Path, config: Config, *, address: str | None = None) -> EmbedReport:
    """Embed every passage of a corpus; run again after a crash, it computes only the blocks that are missing.

    Raises:
        NotAnArtifactError: ``corpus`` is not a finished corpus.
        ModelNotFoundError: the encoder's name resolves to nothing.
        ConfigError: a vector is not finite in float16.
        ArtifactError: ``out`` holds another artefact.
        ArtifactBusyError: another process writes to ``out``.
    """
    started = monotonic()
    source = Corpus.open(corpus)
    settings = _with_absolute_model(config.embed)
    encoder = encoder_fingerprint(settings)
    key = artifact.fingerprint([source.fingerprint, asdict(encoder), settings.block_rows, settings.question_prefix])
    with artifact.exclusive(out):
        if artifact.is_current(out, kind="embeddings", fingerprint=key):
            return EmbedReport(source.num_passages, 0, monotonic() - started, 0.0, encoder)
        _start_over_unless(out, key)
        blocks = plan_blocks(source.shards, settings.block_rows)
        todo = missing_blocks(out, blocks)
        encode_seconds = 0.0
        if todo:
            with session(address), Progress("embed", total=sum(b.num_rows for b in todo), unit="passages") as progress:
                encode_seconds = _run(todo, out, settings, progress)
        if still := missing_blocks(out, blocks):
            raise ArtifactError(f"{out}: {len(still)} blocks were not written, the first is {still[0].name}; run again")
        artifact.publish(
            out,
            kind="embeddings",
            fingerprint=key,
            facts=embeddings_facts(
                num_rows=source.num_passages, corpus=source.fingerprint, encoder=encoder, config=settings
            ),
            files=[out / BLOCK_FOLDER / block.name for block in blocks],
        )
    computed = sum(block.num_rows for block in todo)
    return EmbedReport(source.num_passages, computed, monotonic() - started, encode_seconds, encoder)


def _with_absolute_model(config: EmbedConfig) -> EmbedConfig:
    """Name a local model's folder absolutely: the actors, and later readers of the artefact, work in other folders."""
    folder = Path(config.model).expanduser()
    return config.model_copy(update={"model": str(folder.resolve())}) if folder.is_dir() else config


def _start_over_unless(out: Path, key: str) -> None:
    """Keep the blocks in ``out`` only if they were made for the same corpus, encoder and block size, and are whole."""
    _drop_damaged(out)
    artifact.unpublish(out)
    plan = out / "plan.key"
    if not plan.is_file() or plan.read_text(encoding="utf-8") != key:
        shutil.rmtree(out / BLOCK_FOLDER, ignore_errors=True)
        with artifact.atomic_path(plan) as path:
            path.write_text(key, encoding="utf-8")


def _drop_damaged(out: Path) -> None:
    """Remove the blocks that differ from an earlier run's manifest; without it nobody would ever notice them again."""
    if not (out / artifact.MANIFEST_NAME).is_file():
        return
    with contextlib.suppress(CorruptArtifactError):
        try:
            manifest = artifact.read_manifest(out, "embeddings")
        except NotAnArtifactError as err:
            raise ArtifactError(f"{out}: holds an artefact that is no embeddings; choose another --out") from err
        for entry in manifest.files:
            path = out / entry.path
            if path.is_file() and artifact.file_checksum(path) != entry.checksum:
                path.unlink()


def _run(todo: Sequence[Block], out: Path, config: EmbedConfig, progress: Progress) -> float:
    """Embed the blocks on an actor pool; return the seconds that actors spent on them, divided by the number of actors."""
    import ray.data

    num_actors = min(config.num_workers, len(todo))
    results = ray.data.from_items([asdict(block) for block in todo], override_num_blocks=len(todo)).map_batches(
        BlockEncoder,
        fn_constructor_args=(config, str(out.resolve()), max(1, int(config.cpus_per_worker))),
        batch_size=1,
        compute=ray.data.ActorPoolStrategy(size=num_actors),
        num_cpus=config.cpus_per_worker,
        num_gpus=config.gpus_per_worker or None,
    )
    seconds = 0.0
    for row in results.iter_rows():
        if row["error"]:
            raise ConfigError(str(row["error"]))
        progress.advance(int(row["rows"]))
        seconds += float(row["seconds"])
    return seconds / num_actors
