"""Runs `index sync` on Ray. In: an index, a new corpus. Out: a snapshot of that corpus; only passages of unknown text are embedded."""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, replace
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from time import monotonic

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ragray.artifact.digest import fingerprint
from ragray.artifact.lock import exclusive
from ragray.cluster.embed import embed_corpus
from ragray.config import Config, EmbedConfig, EncoderConfig, IndexConfig
from ragray.corpus.table import PASSAGE_SCHEMA, QUARANTINE_NAME, Corpus
from ragray.embed.blocks import Embeddings
from ragray.embed.encoder import encoder_fingerprint
from ragray.errors import ArtifactError, ConfigError, CorruptArtifactError
from ragray.index.search.reader import IndexReader
from ragray.index.store.lifecycle import SYNC_FOLDER
from ragray.index.store.segment import Segment, write_segment
from ragray.index.store.snapshot import SEGMENTS, SegmentRef, Snapshot, publish_snapshot, read_snapshot, successor
from ragray.index.store.tombstones import hide
from ragray.index.write.build import trained_like
from ragray.index.write.diff import DELTA_CORPUS, Delta, reused_blocks, write_delta
from ragray.progress import Progress

DELTA_BLOCKS = 16
"""Blocks of a small delta, at least: all processes then have work to the end."""

MIN_BLOCK_ROWS = 16

Block = tuple[pa.Table, np.ndarray]
"""Passages with their vectors, (rows, D) float16."""


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


def sync_index(index: Path, corpus: Path, config: Config, *, address: str | None = None) -> SyncReport:
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
    read_snapshot(index)
    with exclusive(index):
        base = read_snapshot(index)
        _refuse_frozen(index, base)
        settings = config.model_copy(update={"embed": _embed_config(index, base, config.embed)})
        work = index / SYNC_FOLDER / fingerprint(asdict(replace(base.encoder, model="")))
        delta = write_delta(index, base, source, work)
        vectors = _embed(work, delta, settings, address)
        num_embedded = vectors.num_rows if vectors else 0
        snapshot = base
        if num_embedded + len(delta.reused_rows) + len(delta.dead_rows):
            key = fingerprint([base.name, base.source, source.fingerprint])
            snapshot = successor(index, base, key, hide(index, base.segments, delta.dead_rows))
            blocks = _blocks(IndexReader.of(index, base), work, delta, vectors)
            refs = _write_segments(index, snapshot, blocks, num_embedded + len(delta.reused_rows), config.index)
            snapshot = snapshot.model_copy(update={"segments": (*snapshot.segments, *refs)})
            publish_snapshot(index, snapshot, expected=base.name)
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


def _embed(work: Path, delta: Delta, config: Config, address: str | None) -> Embeddings | None:
    """Embed the delta corpus; None where there is nothing to embed, or every passage is refused."""
    if not delta.num_embed:
        return None
    folder = work / "embeddings"
    quarantine = folder / QUARANTINE_NAME
    quarantine.unlink(missing_ok=True)
    block_rows = min(config.embed.block_rows, max(MIN_BLOCK_ROWS, -(-delta.num_embed // DELTA_BLOCKS)))
    settings = config.embed.model_copy(update={"block_rows": block_rows})
    try:
        embed_corpus(
            work / DELTA_CORPUS, folder, config.model_copy(update={"embed": settings}), address=address, start_ray=False
        )
    except ConfigError:
        if quarantine.is_file() and len(quarantine.read_bytes().splitlines()) == delta.num_embed:
            return None  # few passages are new, and the encoder is sound
        raise
    return Embeddings.open(folder)


def _blocks(reader: IndexReader, work: Path, delta: Delta, vectors: Embeddings | None) -> Iterator[Block]:
    """Yield what was embedded, then what has a vector already."""
    if vectors:
        yield from embedded_blocks(Corpus.open(work / DELTA_CORPUS), vectors)
    yield from reused_blocks(reader, work, delta.reused_rows)


def _write_segments(
    index: Path, snapshot: Snapshot, blocks: Iterable[Block], num_rows: int, config: IndexConfig
) -> list[SegmentRef]:
    """Write new segments of equal size for a snapshot, trained as its first one is."""
    count = -(-num_rows // config.segment_rows)
    bounds = [num_rows * number // max(count, 1) for number in range(count + 1)]
    first = snapshot.segments[0]
    like = Segment.open(index / SEGMENTS / first.name, num_rows=first.num_rows, dim=snapshot.dim)
    refs = []
    with Progress("index", total=num_rows, unit="passages") as progress:
        for number, pieces in groupby(_cut(blocks, bounds), key=itemgetter(0)):
            ref = SegmentRef(name=f"{snapshot.name}-{number:05}", num_rows=bounds[number + 1] - bounds[number])
            write_segment(
                index / SEGMENTS / ref.name,
                (block for _, block in pieces),
                num_rows=ref.num_rows,
                empty_index=trained_like(like),
                lexical=snapshot.lexical,
            )
            refs.append(ref)
            progress.advance(ref.num_rows)
    return refs


def _cut(blocks: Iterable[Block], bounds: list[int]) -> Iterator[tuple[int, Block]]:
    """Yield the blocks, cut where a segment ends, with the number of their segment."""
    row = number = 0
    for passages, vectors in blocks:
        start = 0
        while start < len(passages):
            size = min(len(passages) - start, bounds[number + 1] - row)
            yield number, (passages.slice(start, size), vectors[start : start + size])
            start, row = start + size, row + size
            number += row == bounds[number + 1]


def embedded_blocks(corpus: Corpus, vectors: Embeddings) -> Iterator[Block]:
    """Yield the passages of a corpus that were embedded, with their vectors.

    Raises:
        CorruptArtifactError: a passage was embedded that the corpus does not have, or in another order.
    """
    tables = corpus.iter_tables()
    ahead = PASSAGE_SCHEMA.empty_table()
    for ids, block in vectors.iter_blocks():
        while ids and (last := pc.index(ahead["id"], ids[-1]).as_py()) < 0:
            table = next(tables, None)
            if table is None:
                raise CorruptArtifactError(
                    f"{vectors.folder}: embeds {ids[-1]!r}, not in {corpus.folder}; remove both and sync"
                )
            ahead = pa.concat_tables([ahead, table])
        if ids:
            passages = ahead.slice(0, last + 1)
            passages = passages.filter(pc.is_in(passages["id"], pa.array(ids)))
            if passages["id"].to_pylist() != ids:
                raise CorruptArtifactError(
                    f"{vectors.folder}: has the ids of {corpus.folder} in another order; remove both and sync"
                )
            ahead = ahead.slice(last + 1)
            yield passages, block
