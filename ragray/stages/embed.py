"""The stage `embed`. In: a corpus folder. Out: an embeddings folder; blocks that an earlier run finished are kept."""

from __future__ import annotations

import contextlib
import json
import logging
import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from time import monotonic

from pydantic import TypeAdapter

from ragray.artifact.digest import file_checksum, fingerprint
from ragray.artifact.files import atomic_path, write_json
from ragray.artifact.kinds import MANIFEST_NAME
from ragray.artifact.manifest import fact, read_manifest
from ragray.artifact.output import StageOutput, stage_output
from ragray.config import Config, EmbedConfig
from ragray.corpus.table import QUARANTINE_NAME, Corpus
from ragray.corpus.tokens import load_tokenizer
from ragray.corpus.unknown import warn_of_unknown_passages
from ragray.embed.blocks import (
    BLOCK_FOLDER,
    Block,
    embeddings_facts,
    encoder_of,
    missing_blocks,
    plan_blocks,
    read_layout,
)
from ragray.embed.encoder import EncoderFingerprint, absolute_model, encoder_fingerprint, with_prefixes
from ragray.embed.worker import BlockWorker
from ragray.errors import (
    ArtifactError,
    ConfigError,
    CorruptArtifactError,
    ModelNotFoundError,
    NotAnArtifactError,
    RagrayError,
)
from ragray.execute.crash_markers import ATTEMPT_FOLDER
from ragray.execute.port import Executor, Resources, Task, run_task
from ragray.jsontext import to_json

PLAN_NAME = "plan.json"
SETTINGS = ("embed.cpus_per_worker", "embed.gpus_per_worker")
"""What lowers the resources that one worker reserves."""

logger = logging.getLogger("ragray")


@dataclass(frozen=True, slots=True)
class EmbedReport:
    """What a run of `embed` did: passages in the artefact and refused ones, passages that this very run computed, its seconds.

    ``encode_seconds`` is what a worker spent on its blocks, loading the model not included, on average.
    """

    num_passages: int
    num_computed: int
    seconds: float
    encode_seconds: float
    fingerprint: EncoderFingerprint
    num_quarantined: int = 0

    @property
    def reused(self) -> bool:
        """True where nothing had to be computed."""
        return self.num_computed == 0


class EmbedBlocks(Task[Block]):
    """Embeds blocks of passages: a `BlockWorker`."""

    counts_deaths = True

    def set_up(self, config: EmbedConfig, threads: int) -> None:
        """Load the encoder."""
        self.worker = BlockWorker(config, self.folder, threads=threads)

    def do(self, unit: Block) -> int:
        """Embed a block."""
        self.worker.embed(unit)
        return unit.num_rows


def embed_corpus(corpus: Path, out: Path, config: Config, executor: Executor) -> EmbedReport:
    """Embed every passage of a corpus; run again after a crash, it computes only the blocks that are missing.

    Passages that cannot be embedded are left out and listed in ``quarantine.jsonl``.

    Raises:
        NotAnArtifactError: ``corpus`` is not a finished corpus.
        ModelNotFoundError: the encoder's name resolves to nothing.
        ConfigError: the encoder is at fault: it encodes no plain text, or it refuses too many passages to blame them.
        EncoderMismatchError: ``out`` holds vectors of another encoder.
        ArtifactError: ``out`` holds another artefact.
        ArtifactBusyError: another process writes to ``out``.
    """
    started = monotonic()
    source = Corpus.open(corpus)
    settings = _checked(config.embed)
    if settings.passage_prefix or settings.question_prefix:
        prefixes = (settings.passage_prefix, settings.question_prefix)
        logger.info("embed: %r stands before every passage, %r before every question", *prefixes)
    encoder = encoder_fingerprint(settings)
    plan = _plan_key(source, encoder, settings)
    of_questions = [settings.question_model] if settings.question_model else []
    key = fingerprint([plan, encoder.model, settings.question_prefix, *of_questions])
    with stage_output(out, kind="embeddings", work=ATTEMPT_FOLDER) as output:
        if manifest := output.finished(key):
            refused = fact(out, manifest, "num_quarantined", int)
            return EmbedReport(source.num_passages - refused, 0, monotonic() - started, 0.0, encoder, refused)
        with contextlib.suppress(ModelNotFoundError):  # a tokenizer of another form than tokenizer.json
            warn_of_unknown_passages([path for path, _ in source.shards], load_tokenizer(settings), encoder.model)
        blocks = plan_blocks(source.shards, settings.block_rows, plan)
        _prepare(output, encoder, blocks)
        todo = missing_blocks(out, blocks, full=True)  # no manifest vouches for them yet
        for block in todo:
            (out / BLOCK_FOLDER / block.name).unlink(missing_ok=True)
        encode_seconds = _embed_missing(todo, output, settings, executor)
        refused = _finish(output, blocks, source, encoder, settings, key)
    computed = sum(block.num_rows for block in todo)
    return EmbedReport(source.num_passages - refused, computed, monotonic() - started, encode_seconds, encoder, refused)


def _checked(config: EmbedConfig) -> EmbedConfig:
    """Refuse what has no effect; name a local model's folder absolutely, and the prefixes that the model asks for."""
    if config.engine == "openvino" and config.gpus_per_worker:
        raise ConfigError("embed.engine=openvino runs on the CPU; set embed.gpus_per_worker=0, or embed.engine=torch")
    if config.dtype in ("bfloat16", "float16") and not config.gpus_per_worker:
        logger.warning("embed.dtype=%s: on most CPUs this is several times slower than float32", config.dtype)
    return with_prefixes(absolute_model(config))


def _plan_key(source: Corpus, encoder: EncoderFingerprint, config: EmbedConfig) -> str:
    """Hash what decides a block's content: passages, encoder, where blocks begin; neither workers nor batches nor engine."""
    shards = [rows for _, rows in source.shards]
    return fingerprint([source.fingerprint, shards, asdict(replace(encoder, model="")), config.block_rows])


def _prepare(output: StageOutput, encoder: EncoderFingerprint, blocks: Sequence[Block]) -> None:
    """Leave in the folder the whole blocks of this very plan and nothing else.

    Raises:
        EncoderMismatchError: it holds vectors of another encoder.
    """
    out = output.folder
    found = _encoder_in(out)
    if found:
        advice = "choose another --out, or delete that folder"
        found.require(encoder, here=str(out), there="this run", advice=advice)
    write_json(out / PLAN_NAME, {"encoder": asdict(encoder)})
    _drop_damaged(out)
    output.withdraw()
    planned = {block.name for block in blocks}
    for path in (out / BLOCK_FOLDER).glob("*"):
        if path.name not in planned:  # of another plan, or half written by a process that was killed
            path.unlink(missing_ok=True)


def _encoder_in(out: Path) -> EncoderFingerprint | None:
    """Return the encoder of the vectors in a folder, finished or not; nothing if the folder does not say."""
    with contextlib.suppress(CorruptArtifactError, KeyError, ValueError):
        if (out / MANIFEST_NAME).is_file():
            return encoder_of(read_manifest(out, "embeddings"))
    with contextlib.suppress(OSError, KeyError, ValueError, TypeError):
        plan = json.loads((out / PLAN_NAME).read_text(encoding="utf-8"))
        return TypeAdapter(EncoderFingerprint).validate_python(plan["encoder"])
    return None


def _drop_damaged(out: Path) -> None:
    """Remove the blocks that differ from an earlier run's manifest; without it nobody would ever notice them again."""
    with contextlib.suppress(CorruptArtifactError, NotAnArtifactError):
        for entry in read_manifest(out, "embeddings").files:
            path = out / entry.path
            if path.is_file() and file_checksum(path) != entry.checksum:
                path.unlink()


def _embed_missing(todo: Sequence[Block], output: StageOutput, config: EmbedConfig, executor: Executor) -> float:
    """Embed blocks; return the seconds that a worker spent on them, on average.

    The crash markers are forgotten if it ends in an error that the user is to mend.
    """
    try:
        return run_task(
            executor,
            EmbedBlocks,
            todo,
            output.folder,
            config,
            max(1, int(config.cpus_per_worker)),
            stage="embed",
            total=sum(block.num_rows for block in todo),
            counted="passages",
            resources=Resources(config.num_workers, config.cpus_per_worker, config.gpus_per_worker, SETTINGS),
        )
    except (RagrayError, KeyboardInterrupt, SystemExit):
        shutil.rmtree(output.work, ignore_errors=True)
        raise


def _finish(
    output: StageOutput,
    blocks: Sequence[Block],
    source: Corpus,
    encoder: EncoderFingerprint,
    config: EmbedConfig,
    key: str,
) -> int:
    """Check that every passage is either embedded or in quarantine, and publish; return how many are in quarantine.

    Raises:
        ArtifactError: a passage is neither.
        ConfigError: all of them are in quarantine.
    """
    out = output.folder
    if still := missing_blocks(out, blocks):
        raise ArtifactError(f"{out}: {len(still)} blocks were not written, the first is {still[0].name}; run again")
    embedded = refused = 0
    with atomic_path(out / QUARANTINE_NAME) as path, path.open("w", encoding="utf-8") as lines:
        for block in blocks:
            layout = read_layout(out / BLOCK_FOLDER / block.name)
            embedded += layout.num_rows
            refused += len(layout.refused)
            for row in layout.refused:
                entry = {
                    "id": row.id,
                    "reason": row.reason,
                    "shard": Path(block.shard).name,
                    "row": block.start + row.row,
                }
                lines.write(to_json(entry, "quarantine") + "\n")
    if embedded != source.num_passages - refused:
        raise ArtifactError(
            f"{out}: {embedded} passages embedded and {refused} refused, {source.num_passages} expected; run again"
        )
    if refused and not embedded:
        raise ConfigError(f"{out}: all {refused} passages were refused, see {QUARANTINE_NAME} there for the reasons")
    facts = embeddings_facts(
        num_rows=embedded,
        num_quarantined=refused,
        corpus=source.fingerprint,
        encoder=encoder,
        config=config,
    )
    files = [out / QUARANTINE_NAME, *(out / BLOCK_FOLDER / block.name for block in blocks)]
    output.publish(key, facts, files)
    return refused
