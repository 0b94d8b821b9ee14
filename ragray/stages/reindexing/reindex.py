"""An index for other weights. In: a snapshot, a passage encoder's folder. Out: the same passages, embedded and indexed again.

What was killed goes on: passages that were embedded stay embedded, segments that were built stay built.
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

from ragray.artifact.digest import fingerprint
from ragray.artifact.output import stage_output
from ragray.config import Config, EncoderConfig
from ragray.corpus.table import (
    PASSAGE_FOLDER,
    ROW_GROUP_ROWS,
    SCHEMA_VERSION,
    ShardWriter,
    passages_to_table,
    table_to_passages,
)
from ragray.embed.pooling import OWN
from ragray.errors import ArtifactError
from ragray.execute.port import Executor
from ragray.index.store.live import live_batches
from ragray.index.store.snapshot import Snapshot, read_snapshot
from ragray.stages.build import build_index
from ragray.stages.embed import embed_corpus
from ragray.text.analyzer import settings_of

CORPUS, EMBEDDINGS = "corpus", "embeddings"


@dataclass(frozen=True, slots=True)
class Reindexing:
    """What is to be indexed anew: the live passages of a ``snapshot``, with the passage encoder in ``weights``, into ``out``.

    ``work`` holds the passages as a corpus, once for all weights; ``scratch`` the embeddings, until the index is built. An index
    that is only trained against needs no ``lexical`` part. ``question_model``: the folder of the question encoder, where it is not
    the passage encoder.
    """

    index: Path
    snapshot: str
    weights: Path
    out: Path
    work: Path
    scratch: Path
    config: Config
    lexical: bool = False
    question_model: str = ""


def reindex(plan: Reindexing, embedder: Executor, builder: Executor) -> str:
    """Embed on one executor, build on the other, let `CURRENT` of ``plan.out`` name the snapshot; return its name.

    Raises:
        ArtifactError: the weights, or the index that the passages come from, are not there.
        RagrayError: as `ragray.stages.embed.embed_corpus` and `ragray.stages.build.build_index` do.
    """
    if not plan.weights.is_dir():
        raise ArtifactError(f"{plan.weights}: these weights were never saved whole")
    before = read_snapshot(plan.index, plan.snapshot)
    corpus = export_corpus(plan.index, before, plan.work / CORPUS)
    config = settings(plan, before)
    embedded = plan.scratch / EMBEDDINGS
    embed_corpus(corpus, embedded, config, embedder)
    built = build_index(embedded, corpus, plan.out, config, builder)
    shutil.rmtree(embedded, ignore_errors=True)
    return built.snapshot.name


def settings(plan: Reindexing, before: Snapshot) -> Config:
    """Return the settings with which the new index is like the one before in all but its vectors.

    Engine, type, blocks and batches of embedding, and budgets of an index that is not exact, are those of ``plan.config``; as many
    segments as before keep every shard of a retriever pool as large as it was.
    """
    config, train = plan.config, plan.config.train
    workers = max(1, int(train.refresh_gpus or train.refresh_cpus))
    encoder = {key: getattr(before.encoder_config, key) for key in EncoderConfig.model_fields}
    pooling = "auto" if before.encoder.pooling == OWN else before.encoder.pooling
    encoder |= {"model": str(plan.weights), "question_model": plan.question_model, "pooling": pooling}
    embed = {
        "num_workers": workers,
        "cpus_per_worker": train.refresh_cpus / workers,
        "gpus_per_worker": train.refresh_gpus / workers,
    }
    index = {
        "type": "flat" if before.factory == "Flat" else config.index.type,
        "segment_rows": max(1, -(-before.num_live // len(before.segments))),
        **settings_of(before.lexical if plan.lexical else "none"),
    }
    changed = {
        "embed": config.embed.model_copy(update=encoder | embed),
        "index": config.index.model_copy(update=index),
    }
    return config.model_copy(update=changed)


def export_corpus(index: Path, snapshot: Snapshot, out: Path) -> Path:
    """Write the live passages of a snapshot as a corpus, in their order; return its folder. A second time it is there already."""
    key = fingerprint([snapshot.name, snapshot.source, "corpus"])
    with stage_output(out, kind="corpus") as output:
        if output.finished(key):
            return out
        output.withdraw()
        documents: set[str] = set()
        with ShardWriter(out / PASSAGE_FOLDER, ROW_GROUP_ROWS * 12) as shards:
            for batch in live_batches(index, snapshot):
                passages = batch.passages
                documents.update(passages["document_id"].to_pylist())
                shards.write(passages_to_table(table_to_passages(passages)))
        facts = {"num_passages": shards.num_rows, "num_documents": len(documents), "schema_version": SCHEMA_VERSION}
        output.publish(key, facts, shards.paths)
    return out
