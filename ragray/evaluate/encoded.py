"""Judged queries that can be searched for. In: a retriever, judged queries. Out: the queries with their vectors, each encoded once."""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from ragray.embed.encoder import Vectors
from ragray.errors import InputError
from ragray.evaluate.judged import JudgedQueries
from ragray.progress import Progress
from ragray.retrieve.retriever import LocalRetriever

logger = logging.getLogger("ragray")

BATCH = 64
"""Queries that are encoded together."""


@dataclass(frozen=True, slots=True)
class EncodedQueries:
    """Judged queries that can be searched for, their vectors (None without an encoder), and why others were refused, by id."""

    texts: Mapping[str, str]
    vectors_ND: Vectors | None
    refused: Mapping[str, str]

    def batches(self, size: int) -> Iterator[tuple[list[str], list[str], Vectors | None]]:
        """Yield ids, texts and vectors of some queries at a time."""
        names, texts = list(self.texts), list(self.texts.values())
        for start in range(0, len(names), size):
            part = slice(start, start + size)
            yield names[part], texts[part], None if self.vectors_ND is None else self.vectors_ND[part]

    def only(self, names: Collection[str]) -> EncodedQueries:
        """Return those with some ids, in the order that they have here."""
        keep = [name in names for name in self.texts]
        texts = {name: text for name, text in self.texts.items() if name in names}
        return EncodedQueries(texts, None if self.vectors_ND is None else self.vectors_ND[keep], self.refused)


def encode_queries(stage: str, retriever: LocalRetriever, judged: JudgedQueries) -> EncodedQueries:
    """Encode every query once; the log counts those that were refused, and names the first.

    Raises:
        InputError: none can be searched for.
    """
    queries = EncodedQueries(judged.texts, None, judged.refused)
    with Progress(stage, total=len(judged.texts), unit="queries encoded") as progress:
        found = []
        for _, texts, _ in queries.batches(BATCH):
            found.append(retriever.encode(texts))
            progress.advance(len(texts))
    vectors = [vectors_BD for vectors_BD in found if vectors_BD is not None]
    if vectors:
        vectors_ND = np.concatenate(vectors)
        finite = {name: bool(np.isfinite(v).all()) for name, v in zip(judged.texts, vectors_ND, strict=True)}
        broken = {
            name: f"query '{name}': its vector holds NaN or infinity" for name, fine in finite.items() if not fine
        }
        queries = EncodedQueries(judged.texts, vectors_ND, {**judged.refused, **broken})
        queries = queries.only({name for name, fine in finite.items() if fine})
    if queries.refused:
        logger.warning(
            "%s: %d queries are left out (the first: %s)",
            stage,
            len(queries.refused),
            next(iter(queries.refused.values())),
        )
    if not queries.texts:
        raise InputError(f"{stage}: no query can be searched for; {next(iter(queries.refused.values()))}")
    return queries
