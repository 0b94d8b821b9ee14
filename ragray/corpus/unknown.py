"""Texts that an encoder cannot read. In: a corpus or questions, a tokenizer. Out: one warning that names the share of unknown tokens."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

import pyarrow.parquet as pq

from ragray.corpus.tokens import Tokenizer

logger = logging.getLogger("ragray")

MAX_UNKNOWN = 0.2
"""Share of unknown tokens above which an encoder is said not to know the language."""
SAMPLED_GROUPS = 8
SAMPLED_ROWS = 32
"""Row groups of a corpus, and passages of each, that are looked at."""


def warn_of_unknown_passages(shards: Sequence[Path], tokenizer: Tokenizer, model: str) -> None:
    """Look at passages spread over the shards of a corpus; warn once where the encoder knows too few of their tokens."""
    texts = sampled_texts(shards)
    unknown, total = tokenizer.count_unknown(texts)
    warn_of_unknown(unknown, total, model, f"a sample of {len(texts)} passages")


def sampled_texts(shards: Sequence[Path]) -> list[str]:
    """Read titles and texts of passages that are spread evenly over Parquet shards; all of a small corpus."""
    groups = [(path, group) for path in shards for group in range(pq.read_metadata(path).num_row_groups)]
    texts: list[str] = []
    for path, group in groups[:: -(-len(groups) // SAMPLED_GROUPS) or 1]:
        with pq.ParquetFile(path) as file:
            table = file.read_row_group(group, columns=["title", "text"])
        rows = range(0, len(table), -(-len(table) // SAMPLED_ROWS) or 1)
        texts += [f"{row['title'] or ''}\n{row['text']}" for row in table.take(list(rows)).to_pylist()]
    return texts


def warn_of_unknown(unknown: int, total: int, model: str, what: str) -> bool:
    """Warn where too many of the tokens of what was read are unknown to a model; return whether it did."""
    if unknown <= MAX_UNKNOWN * total:
        return False
    logger.warning(
        "%.0f%% of tokens unknown to %s in %s: choose a multilingual encoder, such as embed.model=multilingual-e5-small",
        100 * unknown / total,
        model,
        what,
    )
    return True
