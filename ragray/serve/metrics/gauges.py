"""What is to be seen of a model at one moment. In: a retriever, a model thread. Out: gauges."""

from __future__ import annotations

import time
from collections.abc import Mapping
from datetime import datetime

from ragray.retrieve.retriever import Retriever
from ragray.serve.metrics.catalogue import BATCH, CACHE_HITS, CACHE_MISSES, SNAPSHOT_AGE_S, WAITING, Metric
from ragray.serve.model_thread import ModelThread


def of_retriever(retriever: Retriever) -> Mapping[Metric, float]:
    """Return the age of the snapshot, and how many questions were encoded and how many remembered."""
    facts = retriever.facts
    age_s = time.time() - datetime.fromisoformat(facts.snapshot_made_at).timestamp()
    return {SNAPSHOT_AGE_S: age_s, CACHE_HITS: facts.cache_hits, CACHE_MISSES: facts.cache_misses}


def of_writer(thread: ModelThread) -> Mapping[Metric, float]:
    """Return how many answers are being written, and how many wait."""
    running = thread.num_running
    return {BATCH: running, WAITING: max(0, thread.num_open - running)}
