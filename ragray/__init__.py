"""ragray trains and serves retrieval-augmented generation over large corpora on a Ray cluster.

The public names are resolved on first use, so that ``import ragray`` loads neither torch nor ray.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

_PUBLIC = {
    "Answer": "ragray.types",
    "Citation": "ragray.types",
    "Config": "ragray.config",
    "Document": "ragray.types",
    "Encoder": "ragray.embed.encoder",
    "Example": "ragray.types",
    "Generator": "ragray.generate.generator",
    "Hit": "ragray.types",
    "IndexReader": "ragray.index.search.reader",
    "LocalRetriever": "ragray.retrieve.retriever",
    "Passage": "ragray.types",
    "Pipeline": "ragray.generate.pipeline",
    "RagrayError": "ragray.errors",
    "Retriever": "ragray.retrieve.retriever",
    "Run": "ragray.run",
    "build_index": "ragray.api",
    "collect_garbage": "ragray.index.store.lifecycle",
    "compact_index": "ragray.api",
    "delete_passages": "ragray.index.write.delete",
    "embed_corpus": "ragray.api",
    "evaluate_rag": "ragray.api",
    "evaluate_retrieval": "ragray.evaluate.retrieval",
    "export_hf": "ragray.index.exchange.exporting",
    "export_parquet": "ragray.index.exchange.exporting",
    "export_rag": "ragray.stages.rag_layout",
    "import_embeddings": "ragray.index.exchange.importing",
    "import_rag": "ragray.stages.rag_layout",
    "ingest": "ragray.api",
    "inspect_index": "ragray.index.check.inspect",
    "list_snapshots": "ragray.index.store.lifecycle",
    "load_config": "ragray.config",
    "load_encoder": "ragray.embed.load",
    "load_generator": "ragray.generate.load",
    "load_retriever": "ragray.retrieve.load",
    "mine_negatives": "ragray.stages.mine",
    "promote": "ragray.index.store.lifecycle",
    "rollback": "ragray.index.store.lifecycle",
    "score": "ragray.evaluate.answers",
    "session": "ragray.cluster.session",
    "sync_index": "ragray.api",
    "train_rag": "ragray.cluster.train",
    "verify_index": "ragray.index.check.verify",
}

__all__ = ["__version__", *sorted(_PUBLIC)]

if TYPE_CHECKING:
    from ragray.api import build_index as build_index
    from ragray.api import compact_index as compact_index
    from ragray.api import embed_corpus as embed_corpus
    from ragray.api import evaluate_rag as evaluate_rag
    from ragray.api import ingest as ingest
    from ragray.api import sync_index as sync_index
    from ragray.cluster.session import session as session
    from ragray.cluster.train import train_rag as train_rag
    from ragray.config import Config as Config
    from ragray.config import load_config as load_config
    from ragray.embed.encoder import Encoder as Encoder
    from ragray.embed.load import load_encoder as load_encoder
    from ragray.errors import RagrayError as RagrayError
    from ragray.evaluate.answers import score as score
    from ragray.evaluate.retrieval import evaluate_retrieval as evaluate_retrieval
    from ragray.generate.generator import Generator as Generator
    from ragray.generate.load import load_generator as load_generator
    from ragray.generate.pipeline import Pipeline as Pipeline
    from ragray.index.check.inspect import inspect_index as inspect_index
    from ragray.index.check.verify import verify_index as verify_index
    from ragray.index.exchange.exporting import export_hf as export_hf
    from ragray.index.exchange.exporting import export_parquet as export_parquet
    from ragray.index.exchange.importing import import_embeddings as import_embeddings
    from ragray.index.search.reader import IndexReader as IndexReader
    from ragray.index.store.lifecycle import collect_garbage as collect_garbage
    from ragray.index.store.lifecycle import list_snapshots as list_snapshots
    from ragray.index.store.lifecycle import promote as promote
    from ragray.index.store.lifecycle import rollback as rollback
    from ragray.index.write.delete import delete_passages as delete_passages
    from ragray.retrieve.load import load_retriever as load_retriever
    from ragray.retrieve.retriever import LocalRetriever as LocalRetriever
    from ragray.retrieve.retriever import Retriever as Retriever
    from ragray.run import Run as Run
    from ragray.stages.mine import mine_negatives as mine_negatives
    from ragray.stages.rag_layout import export_rag as export_rag
    from ragray.stages.rag_layout import import_rag as import_rag
    from ragray.types import Answer as Answer
    from ragray.types import Citation as Citation
    from ragray.types import Document as Document
    from ragray.types import Example as Example
    from ragray.types import Hit as Hit
    from ragray.types import Passage as Passage


def __getattr__(name: str) -> Any:
    """Import a public name when it is first asked for."""
    if name not in _PUBLIC:
        raise AttributeError(f"module 'ragray' has no attribute '{name}'")
    value = getattr(importlib.import_module(_PUBLIC[name]), name)
    globals()[name] = value
    return value
