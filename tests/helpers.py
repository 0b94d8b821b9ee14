"""A corpus, its embeddings and an index of them, written into folders as the stages do it, but without Ray."""

import random
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import faiss
import pyarrow.parquet as pq

from ragray.artifact.digest import fingerprint
from ragray.artifact.manifest import publish
from ragray.config import EncoderConfig, IndexConfig
from ragray.corpus.table import PASSAGE_FOLDER, SCHEMA_VERSION, Corpus, ShardWriter, passages_to_table
from ragray.embed.blocks import BLOCK_FOLDER, Embeddings, embeddings_facts, plan_blocks, read_block, write_block
from ragray.embed.encoder import HashEncoder
from ragray.embed.load import load_encoder
from ragray.embed.passage_text import encoder_text
from ragray.index.plan.choose import plan_index
from ragray.index.store.snapshot import SEGMENTS, SegmentRef, Snapshot, find_current, publish_snapshot
from ragray.index.store.tombstones import with_tombstones
from ragray.index.write.build import build_segment, plan_segments, sample_rows, train_empty_index
from ragray.types import Passage

WORDS = tuple(f"{first}{second}" for first in "bdfgklmnprst" for second in ("a", "e", "i", "o", "u", "ar", "en", "il"))


@dataclass(frozen=True, slots=True)
class Ended:
    """What became of a command: its exit code, its standard output, the lines on standard error, those of the log."""

    code: int
    output: str
    errors: tuple[str, ...]
    logged: tuple[str, ...]


Command = Callable[..., Ended]


def sentence(seed: int) -> str:
    """Eight words; the same ones for the same seed."""
    return " ".join(random.Random(seed).choices(WORDS, k=8))


def some_passages(count: int) -> list[Passage]:
    """Passages whose texts differ; every third has a title, every second metadata."""
    return [
        Passage(f"p{n}", sentence(n), "" if n % 3 else f"title{n}", f"d{n // 2}", {"n": str(n)} if n % 2 else {})
        for n in range(count)
    ]


def write_corpus(folder: Path, passages: Sequence[Passage], *, shard_rows: int = 1000) -> Path:
    """Write a finished corpus."""
    with ShardWriter(folder / PASSAGE_FOLDER, shard_rows) as shards:
        shards.write(passages_to_table(passages))
    facts = {
        "num_passages": len(passages),
        "num_documents": len({p.document_id for p in passages}),
        "schema_version": SCHEMA_VERSION,
    }
    content = fingerprint([[passage.id, passage.title, passage.text] for passage in passages])
    publish(folder, kind="corpus", fingerprint=content, facts=facts, files=shards.paths)
    return folder


def write_embeddings(
    folder: Path, corpus: Path, *, dim: int = 64, block_rows: int = 16, config: EncoderConfig | None = None
) -> Path:
    """Write finished embeddings of a corpus, made with the encoder `hash:DIM` unless ``config`` names another."""
    config = config or EncoderConfig(model=f"hash:{dim}")
    source, encoder = Corpus.open(corpus), load_encoder(config, device="cpu")
    blocks = plan_blocks(source.shards, block_rows)
    for block in blocks:
        table = read_block(block)
        pairs = zip(table["title"].to_pylist(), table["text"].to_pylist(), strict=True)
        write_block(folder, block, table["id"], encoder.encode([encoder_text(title, text) for title, text in pairs]))
    facts = embeddings_facts(
        num_rows=source.num_passages,
        corpus=source.fingerprint,
        encoder=encoder.fingerprint,
        config=config,
    )
    files = [folder / BLOCK_FOLDER / block.name for block in blocks]
    key = fingerprint([source.fingerprint, config.model])
    publish(folder, kind="embeddings", fingerprint=key, facts=facts, files=files)
    return folder


def make_snapshot(name: str, segments: Sequence[SegmentRef], *, dim: int = 64, **fields: Any) -> Snapshot:
    """A snapshot by the encoder `hash:DIM`, of an exact index where ``fields`` do not say otherwise."""
    known = {
        "parent": None,
        "created_at": "2026-01-01T00:00:00+00:00",
        "source": name,
        "encoder": HashEncoder(dim).fingerprint,
        "encoder_config": EncoderConfig(model=f"hash:{dim}"),
        "dim": dim,
        "factory": "Flat",
        "recall_at_10": None,
    }
    return Snapshot(name=name, segments=tuple(segments), **(known | fields))


def block_rows(embeddings: Embeddings) -> list[int]:
    """Rows of every block, in corpus order."""
    return [pq.read_metadata(path).num_rows for path in embeddings.blocks]


def write_index(
    folder: Path,
    embeddings: Path,
    corpus: Path,
    config: IndexConfig | None = None,
    *,
    name: str = "000001-test",
    deleted: Collection[int] = (),
) -> Path:
    """Write an index whose snapshot hides the global rows ``deleted``, and make it the current one; BM25 only if ``config`` says so."""
    config = config or IndexConfig()
    lexical = config.analyzer if "lexical" in config.model_fields_set else "none"
    vectors = Embeddings.open(embeddings)
    plan = plan_index(vectors.num_rows, vectors.encoder.dim, config)
    empty = faiss.serialize_index(train_empty_index(plan, sample_rows(vectors, config.train_rows, 0), config))
    segments = plan_segments(vectors, Corpus.open(corpus), config.segment_rows, name)
    for segment in segments:
        target = folder / SEGMENTS / segment.name
        build_segment(segment, target, faiss.deserialize_index(empty), lexical=lexical)
    refs = [
        with_tombstones(
            folder,
            SegmentRef(name=segment.name, num_rows=segment.num_rows),
            [row - segment.start for row in sorted(deleted) if segment.start <= row < segment.stop],
        )
        for segment in segments
    ]
    snapshot = make_snapshot(
        name,
        refs,
        source=vectors.manifest.fingerprint,
        encoder=vectors.encoder,
        encoder_config=vectors.encoder_config,
        dim=vectors.encoder.dim,
        factory=plan.factory,
        search_params=plan.search_params,
        lexical=lexical,
    )
    publish_snapshot(folder, snapshot, expected=find_current(folder))
    return folder


def index_of(
    folder: Path,
    passages: Sequence[Passage],
    config: IndexConfig | None = None,
    *,
    dim: int = 64,
    deleted: Collection[int] = (),
) -> Path:
    """Write corpus, embeddings and index of some passages under ``folder``; return the index."""
    corpus = write_corpus(folder / "corpus", passages)
    embeddings = write_embeddings(folder / "embeddings", corpus, dim=dim)
    return write_index(folder / "index", embeddings, corpus, config, deleted=deleted)
