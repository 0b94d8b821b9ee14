"""The stage `index sync`. In: an index, a new corpus. Out: a snapshot of that corpus; only passages of unknown text are embedded."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from time import monotonic

from ragray.artifact.digest import fingerprint
from ragray.config import Config, EmbedConfig, EncoderConfig
from ragray.corpus.table import QUARANTINE_NAME, Corpus
from ragray.embed.blocks import Embeddings
from ragray.embed.encoder import encoder_fingerprint
from ragray.errors import ArtifactError, ConfigError
from ragray.execute.port import Executor
from ragray.index.search.reader import IndexReader
from ragray.index.store.lifecycle import SYNC_FOLDER
from ragray.index.store.output import changed_index
from ragray.index.store.snapshot import Snapshot, successor
from ragray.index.store.tombstones import hide
from ragray.index.write.diff import DELTA_CORPUS, Delta, reused_blocks, write_delta
from ragray.index.write.segments import PassageBlock, embedded_blocks, write_segments
from ragray.stages.embed import embed_corpus

DELTA_BLOCKS = 16
"""Blocks of a small delta, at least: all processes then have work to the end."""

MIN_BLOCK_ROWS = 16


@dataclass(frozen=True, slots=True)
class SyncReport:
    """What a sync found, in passages, and did.

    ``embedded`` of the added and changed ones were given to the encoder, ``quarantined`` it refused; the others took the
    vector of a passage with the same text. ``reused``: the index held this corpus already, and nothing was published.
    """

    snapshot: Snapshot
    added: int
    changed: int
    deleted: int
    unchanged: int
    embedded: int
    quarantined: int
    seconds: float
    reused: bool


def sync_index(index: Path, corpus: Path, config: Config, executor: Executor) -> SyncReport:
    """Make an index hold a new corpus: hide what is gone, embed what is new, keep the rest.

    Passages are compared by id, by title and text to the letter, and by document id and metadata. Killed at any moment and
    run again, it goes on: blocks that were embedded are not embedded again. The quantizer and the search parameters of an
    approximate index are carried over with the recall measured when they were chosen; `compact_index` makes all anew.
    Passages that the encoder refuses are missing from the index, and tried again by the next sync.

    Raises:
        NotAnArtifactError: ``index`` is no index, or ``corpus`` no finished corpus.
        EncoderMismatchError: the configuration names another encoder than the index was made with, or its weights changed.
        ArtifactBusyError: another process is writing to the index.
        SnapshotConflictError: another snapshot was made current meanwhile; what was embedded is kept for the next run.
        ArtifactError: the index is an HNSW graph.
    """
    started = monotonic()
    source = Corpus.open(corpus)
    with changed_index(index) as (output, base):
        _refuse_frozen(index, base)
        settings = config.model_copy(update={"embed": _embed_config(index, base, config.embed)})
        work = index / SYNC_FOLDER / fingerprint(asdict(replace(base.encoder, model="")))
        delta = write_delta(index, base, source, work)
        vectors = _embed(work, delta, settings, executor)
        num_embedded = vectors.num_rows if vectors else 0
        num_rows = num_embedded + len(delta.reused_rows)
        snapshot = base
        if num_rows + len(delta.dead_rows):
            key = fingerprint([base.name, base.source, source.fingerprint])
            snapshot = successor(index, base, key, hide(index, base.segments, delta.dead_rows))
            blocks = _blocks(IndexReader.of(index, base), work, delta, vectors)
            refs = write_segments(index, snapshot, blocks, num_rows=num_rows, segment_rows=config.index.segment_rows)
            snapshot = snapshot.model_copy(update={"segments": (*snapshot.segments, *refs)})
            output.publish(snapshot)
        shutil.rmtree(index / SYNC_FOLDER, ignore_errors=True)
    return SyncReport(
        snapshot,
        delta.added,
        delta.changed,
        delta.deleted,
        delta.unchanged,
        num_embedded,
        delta.num_embed - num_embedded,
        monotonic() - started,
        snapshot is base,
    )


def _refuse_frozen(index: Path, base: Snapshot) -> None:
    if base.factory.startswith("HNSW"):
        raise ArtifactError(
            f"{index}: snapshot {base.name} is a graph ({base.factory}), which is frozen; build a new index from the new corpus, "
            "or first run: ragray index compact with index.type=ivf"
        )


def _embed_config(index: Path, base: Snapshot, given: EmbedConfig) -> EmbedConfig:
    """Embed as the index was; what the configuration says of the encoder explicitly must be the same."""
    changes = {
        key: getattr(base.encoder_config, key)
        for key in EncoderConfig.model_fields
        if key not in given.model_fields_set
    }
    settings = given.model_copy(update=changes)
    here, there = f"{index}: snapshot {base.name}", "section embed of the configuration"
    base.encoder.require(encoder_fingerprint(settings), here=here, there=there)
    return settings


def _embed(work: Path, delta: Delta, config: Config, executor: Executor) -> Embeddings | None:
    """Embed the delta corpus; None where there is nothing to embed, or every passage is refused."""
    if not delta.num_embed:
        return None
    folder = work / "embeddings"
    quarantine = folder / QUARANTINE_NAME
    quarantine.unlink(missing_ok=True)
    block_rows = min(config.embed.block_rows, max(MIN_BLOCK_ROWS, -(-delta.num_embed // DELTA_BLOCKS)))
    settings = config.embed.model_copy(update={"block_rows": block_rows})
    try:
        embed_corpus(work / DELTA_CORPUS, folder, config.model_copy(update={"embed": settings}), executor)
    except ConfigError:
        if quarantine.is_file() and len(quarantine.read_bytes().splitlines()) == delta.num_embed:
            return None  # few passages are new, and the encoder is sound
        raise
    return Embeddings.open(folder)


def _blocks(reader: IndexReader, work: Path, delta: Delta, vectors: Embeddings | None) -> Iterator[PassageBlock]:
    """Yield what was embedded, then what has a vector already."""
    if vectors:
        yield from embedded_blocks(Corpus.open(work / DELTA_CORPUS), vectors)
    yield from reused_blocks(reader, work, delta.reused_rows)
