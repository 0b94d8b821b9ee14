"""A pool of retriever actors. In: query vectors. Out: the same hits as one local index, from segments spread over actors.

Every actor memory-maps its segments, so that the actors of one node share one copy; shards divide the segments, replicas copy a
shard. A dead actor is started again and its searches are repeated.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ragray.config import RetrieveConfig
from ragray.embed.encoder import Encoder, EncoderFingerprint, Vectors
from ragray.errors import ArtifactError
from ragray.index.search import IndexReader, SearchResult, merge
from ragray.index.snapshot import read_snapshot
from ragray.types import Hit

MAX_RESTARTS = 10


class ShardSearcher:
    """The work of one actor: searches its share of a snapshot's segments."""

    def __init__(self, index: str, snapshot: str, shard: int, num_shards: int, threads: int) -> None:
        self._reader = IndexReader.open(
            Path(index), snapshot=snapshot, shard=shard, num_shards=num_shards, threads=threads
        )

    def search(self, vectors_ND: Vectors, k: int) -> SearchResult:
        """Search this shard."""
        return self._reader.search(vectors_ND, k)

    def ready(self) -> bool:
        """Answer once the segments are open."""
        return True


@dataclass(frozen=True)
class RetrieverPool:
    """Handles of the actors, ``replicas[r][s]`` for replica r of shard s; may be sent to other processes."""

    snapshot: str
    encoder: EncoderFingerprint
    replicas: tuple[tuple[Any, ...], ...]
    _turn: Iterator[int] = field(default_factory=itertools.count, compare=False)

    def submit(self, vectors_ND: Vectors, k: int) -> PoolSearch:
        """Begin a search on the next replica and return at once."""
        shards = self.replicas[next(self._turn) % len(self.replicas)]
        return PoolSearch([shard.search.remote(vectors_ND, k) for shard in shards], k)

    def search(self, vectors_ND: Vectors, k: int) -> SearchResult:
        """Search and wait."""
        return self.submit(vectors_ND, k).result()

    def __reduce__(self) -> tuple[Any, ...]:
        """Travel without the counter: every process takes turns of its own."""
        return RetrieverPool, (self.snapshot, self.encoder, self.replicas)


@dataclass(frozen=True, slots=True)
class PoolSearch:
    """A search under way on the pool."""

    parts: Sequence[Any]
    k: int

    def result(self) -> SearchResult:
        """Wait for all shards and merge what they found."""
        import ray

        return merge(ray.get(list(self.parts)), self.k)


class PoolRetriever:
    """The port `Retriever` over a pool: encodes questions here, searches there."""

    def __init__(self, pool: RetrieverPool, encoder: Encoder) -> None:
        """Raise `EncoderMismatchError` if the encoder is not the one the index was made with."""
        pool.encoder.require(encoder.fingerprint, here=f"index snapshot {pool.snapshot}", there="the question encoder")
        self._pool = pool
        self._encoder = encoder

    @property
    def snapshot(self) -> str:
        """Name of the snapshot that is searched."""
        return self._pool.snapshot

    def search(self, queries: Sequence[str], k: int) -> list[list[Hit]]:
        """Return for every query its k best passages, best first."""
        if not queries:
            return []
        return self._pool.search(self._encoder.encode_questions(queries), k).hits


@contextmanager
def retriever_pool(index: Path, config: RetrieveConfig) -> Iterator[RetrieverPool]:
    """Start the actors on the current snapshot, wait until all are open, end them with the block.

    Raises:
        ArtifactError: the index cannot be opened; the actors' own error is shown.
    """
    import ray

    snapshot = read_snapshot(index)
    num_shards = max(1, min(config.num_shards, len(snapshot.segments)))
    actor = ray.remote(ShardSearcher).options(
        num_cpus=config.cpus_per_actor, max_restarts=MAX_RESTARTS, max_task_retries=-1, scheduling_strategy="SPREAD"
    )
    replicas = tuple(
        tuple(
            actor.remote(str(index.resolve()), snapshot.name, shard, num_shards, config.threads)
            for shard in range(num_shards)
        )
        for _ in range(config.num_replicas)
    )
    actors = [shard for replica in replicas for shard in replica]
    try:
        try:
            ray.get([shard.ready.remote() for shard in actors])
        except ray.exceptions.RayActorError as err:
            cause = err.__cause__ or err
            raise ArtifactError(
                f"{index}: a retriever could not open it: {str(cause).strip().splitlines()[-1]}"
            ) from err
        yield RetrieverPool(snapshot.name, snapshot.encoder, replicas)
    finally:
        for shard in actors:
            ray.kill(shard)
