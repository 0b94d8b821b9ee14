"""The port `Retriever`. In: questions. Out: the k best passages of each. With the implementation that searches in this process."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from ragray.embed.encoder import Encoder, Vectors
from ragray.index.search import IndexReader
from ragray.types import Hit


class Retriever(Protocol):
    """Finds the passages nearest to a question."""

    @property
    def snapshot(self) -> str:
        """Name of the snapshot that is searched."""

    def search(self, queries: Sequence[str], k: int) -> list[list[Hit]]:
        """Return for every query its k best passages, best first; fewer where the index holds fewer."""


class LocalRetriever:
    """Encodes questions and searches an index in this process."""

    def __init__(self, reader: IndexReader, encoder: Encoder) -> None:
        """Raise `EncoderMismatchError` if the encoder is not the one the index was made with."""
        reader.require_encoder(encoder.fingerprint, "the question encoder")
        self._reader = reader
        self._encoder = encoder

    @classmethod
    def open(cls, index: Path, encoder: Encoder, *, threads: int = 1) -> LocalRetriever:
        """Open the current snapshot of an index folder."""
        return cls(IndexReader.open(index, threads=threads), encoder)

    @property
    def snapshot(self) -> str:
        """Name of the snapshot that is searched."""
        return self._reader.snapshot.name

    def search(self, queries: Sequence[str], k: int) -> list[list[Hit]]:
        """Return for every query its k best passages, best first."""
        if not queries:
            return []
        return self.search_vectors(self._encoder.encode_questions(queries), k)

    def search_vectors(self, vectors_ND: Vectors, k: int) -> list[list[Hit]]:
        """Return for every query vector its k best passages, best first."""
        return self._reader.search(vectors_ND, k).hits
