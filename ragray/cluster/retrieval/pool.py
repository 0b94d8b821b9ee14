"""The handle of a retriever pool. In: vectors or words. Out: what one local index finds, from segments spread over actors.

Shards divide the segments, replicas copy a shard. Every actor memory-maps its segments, so that the actors of one node share one
copy (of exact indexes too; only FAISS's fast-scan PQ codes are held once per actor). A search names its snapshot: all shards answer
from that one. After a swap the actors' replies name the new one, which is how handles in other processes learn of it.
"""

from __future__ import annotations

import threading
from collections.abc import Collection, Iterable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from dataclasses import dataclass
from pathlib import Path
from random import random
from time import monotonic, sleep
from typing import Any

from ragray.cluster.failures import cause
from ragray.cluster.retrieval.opening import await_open
from ragray.cluster.retrieval.shard import Query, Reply
from ragray.embed.encoder import EncoderFingerprint, Vectors
from ragray.errors import ArtifactError, RagrayError
from ragray.failures import told
from ragray.index.search.result import SearchResult, merge
from ragray.index.store.snapshot import Snapshot, read_snapshot
from ragray.retrieve.holder import Served, SnapshotHolder

HEDGE_S, HEDGE_FACTOR = 1.0, 5.0
"""Hedging: a second replica is queried after max(HEDGE_S, HEDGE_FACTOR x mean latency) without an answer from the first."""

RETRY_PAUSE_S = 0.2
"""Between two rounds over replicas that are all being started again."""

DEATHS = 2
"""How often Ray must report an actor as ended for good before it is believed: it says so while it restarts actors, too."""

GIVE_UP_S = 300.0
"""A search that no replica answered by then is given up."""

OPENING = "opening"
"""Ray concurrency group: snapshots are opened beside the searches."""


@dataclass(frozen=True, slots=True)
class Attempt:
    """A search of one shard, sent to one replica."""

    replica: int
    future: Future[Reply]


class RetrieverPool:
    """Handles of the actors, ``replicas[r][s]`` for replica r of shard s; may be sent to other processes.

    A `Searcher` like `IndexReader`. Each process counts its own searches in flight and queries the replica that has the fewest.
    ``hedge_s`` is the shortest time before a second replica is queried.
    """

    def __init__(
        self,
        index: Path,
        served: Served[Snapshot],
        encoder: EncoderFingerprint,
        replicas: tuple[tuple[Any, ...], ...],
        *,
        owner: bool = False,
        hedge_s: float = HEDGE_S,
    ) -> None:
        self.index = index
        self.encoder = encoder
        self.replicas = replicas
        self.hedge_s = hedge_s
        self._holder = SnapshotHolder(served)
        self._owner = owner
        self._lock = threading.Lock()
        self._swapping = threading.Lock()
        self._in_flight = [[0] * len(shards) for shards in replicas]
        self._sent = [[random() for _ in shards] for shards in replicas]  # so that processes do not take turns in step
        self._latency_s = 0.0

    def __reduce__(self) -> tuple[Any, ...]:
        """Travel without the counts; only the process that started the pool may swap."""
        return RetrieverPool, (self.index, self.served, self.encoder, self.replicas)

    @property
    def served(self) -> Served[Snapshot]:
        """The newest snapshot that this handle knows of, with its number."""
        current = self._holder.current
        assert current is not None  # the holder began with one
        return current

    @property
    def snapshot(self) -> Snapshot:
        """The snapshot that the next search will search."""
        return self.served.snapshot

    @property
    def num_shards(self) -> int:
        """Number of parts that the segments are spread over."""
        return len(self.replicas[0])

    @property
    def actors(self) -> list[Any]:
        """All actors of all replicas."""
        return [shard for replica in self.replicas for shard in replica]

    @property
    def hedge_delay_s(self) -> float:
        """How long an answer may take before another replica is queried too."""
        return max(self.hedge_s, HEDGE_FACTOR * self._latency_s)

    def submit(self, vectors_ND: Vectors, k: int, *, where: str = "", with_vectors: bool = True) -> PoolSearch:
        """Begin a search by vectors and return at once; the passages' vectors come along unless the caller does without."""
        return PoolSearch(self, Query("vectors", None, vectors_ND, k, where, with_vectors), self.served)

    def search(
        self,
        vectors_ND: Vectors,
        k: int,
        *,
        where: str = "",
        with_vectors: bool = False,
        texts: Sequence[str] | None = None,
    ) -> SearchResult:
        """Search by vectors and wait; raises as `IndexReader.search` does."""
        given = None if texts is None else tuple(texts)
        return PoolSearch(self, Query("vectors", given, vectors_ND, k, where, with_vectors), self.served).result()

    def search_text(
        self, queries: Sequence[str], k: int, *, where: str = "", vectors_ND: Vectors | None = None
    ) -> SearchResult:
        """Search by BM25 and wait; raises as `IndexReader.search_text` does."""
        return PoolSearch(self, Query("texts", tuple(queries), vectors_ND, k, where), self.served).result()

    def swap(self, snapshot: str) -> None:
        """Search another snapshot from now on: all actors open it, then all searches switch to it; no search waits or is lost.

        Searches in flight end on the old snapshot. Every actor releases it after the searches that were sent there before.

        Raises:
            EncoderMismatchError: the snapshot was made with another encoder.
            ArtifactError: an actor cannot open it; the pool goes on with the old one.
            RagrayError: this handle came from another process; only the one that started the pool may swap.
        """
        if not self._owner:
            raise RagrayError("swap: this pool was started by another process; swap where retriever_pool was called")
        with self._swapping:
            number = self._holder.reserve()
            self._holder.swap(number, lambda: self._open_checked(number, snapshot))
            self.announce()

    def prepare(self, snapshot: str, *, any_encoder: bool = False) -> Served[Snapshot]:
        """Let all actors open and check a snapshot beside the one that they search; a search that names it serves it.

        With ``any_encoder`` it may be one of an encoder that training has changed. Raises as `swap` does.
        """
        with self._swapping:
            number = self._holder.reserve()
            return Served(number, self._open_checked(number, snapshot, any_encoder))

    def _open_checked(self, number: int, name: str, any_encoder: bool = False) -> Snapshot:
        snapshot = read_snapshot(self.index, name)
        if not any_encoder:
            self.encoder.require(snapshot.encoder, here="the retriever pool", there=f"index snapshot {name}")
        self.open_everywhere(Served(number, snapshot))
        return snapshot

    def open_everywhere(self, served: Served[Snapshot]) -> None:
        """Let all actors open a snapshot beside the one that they search, and wait; where one cannot, none keeps it open.

        Raises:
            ArtifactError: an actor cannot open it.
            RagrayError: not all actors have started in time.
        """
        name = served.snapshot.name
        opened = [actor.prepare.options(concurrency_group=OPENING).remote(served.number, name) for actor in self.actors]
        try:
            await_open(opened, f"{self.index}: snapshot {name}")
        except RagrayError:
            for actor in self.actors:  # the group has one thread, so that this runs after what is being opened there
                actor.release.options(concurrency_group=OPENING).remote(served.number)
            raise

    def announce(self) -> None:
        """Tell all actors which snapshot is served, so that they release the one before."""
        for actor in self.actors:
            actor.serve.remote(self.served.number, self.snapshot.name)

    def learn(self, served: Iterable[Served[Snapshot] | None]) -> None:
        """Search the newest of some snapshots from now on, if it is newer than what this handle knows."""
        for known in filter(None, served):
            self._holder.switch(known)

    def refresh(self) -> None:
        """Ask the actors which snapshot is served; actors that do not answer within `HEDGE_S` are left out."""
        futures = [actor.newest.remote().future() for actor in self.actors]
        answered, _ = wait(futures, timeout=HEDGE_S)
        self.learn(future.result() for future in answered if future.exception() is None)

    def send(
        self, shard: int, served: Served[Snapshot], query: Query, asked: Sequence[int] = (), but: Collection[int] = ()
    ) -> Attempt:
        """Send a search to the replica, other than those in ``but``, that was ``asked`` least often; of several, to the least busy."""
        with self._lock:
            order = [
                (asked.count(number), self._in_flight[number][shard], self._sent[number][shard], number)
                for number in range(len(self.replicas))
                if number not in but
            ]
            replica = min(order)[-1]
            self._sent[replica][shard] += 1
            self._in_flight[replica][shard] += 1
        started = monotonic()
        served_as = served.number, served.snapshot.name
        future: Future[Reply] = self.replicas[replica][shard].search.remote(*served_as, query).future()
        future.add_done_callback(lambda done: self._done(replica, shard, done, monotonic() - started))
        return Attempt(replica, future)

    def _done(self, replica: int, shard: int, future: Future[Reply], seconds: float) -> None:
        with self._lock:
            self._in_flight[replica][shard] -= 1
            if future.exception() is None:
                self._latency_s = 0.9 * self._latency_s + 0.1 * seconds if self._latency_s else seconds


class PoolSearch:
    """A search in flight on the pool."""

    def __init__(self, pool: RetrieverPool, query: Query, served: Served[Snapshot]) -> None:
        self._pool = pool
        self._query = query
        self._begin(served)

    @property
    def snapshot(self) -> Snapshot:
        """The one snapshot that all shards search; it is final once `result` has returned."""
        return self._served.snapshot

    def result(self) -> SearchResult:
        """Wait for all shards and merge their results.

        Where an actor died or takes long, another replica of its shard is queried. Where the snapshot was released meanwhile, all
        shards search the new one.

        Raises:
            RagrayError: no replica of a shard answered for five minutes; or what the search itself raised.
        """
        while True:
            try:
                replies = [self._wait(shard) for shard in range(self._pool.num_shards)]
            except ArtifactError:
                self._pool.refresh()  # an actor that was started again cannot open what was swapped out and collected
                if self._pool.served.number <= self._served.number:
                    raise
            else:
                self._pool.learn(reply.newer for reply in replies)
                found = [reply.found for reply in replies if reply.found is not None]
                if len(found) == len(replies):
                    return merge(found, self._query.k)
            self._begin(self._pool.served)

    def _begin(self, served: Served[Snapshot]) -> None:
        self._served = served
        self._sent = [self._pool.send(shard, served, self._query) for shard in range(self._pool.num_shards)]

    def _wait(self, shard: int) -> Reply:
        """Return the first answer; query one replica after another while actors are dead or slow."""
        from ray.exceptions import ActorDiedError, RayError, RayTaskError

        waiting, asked, ended = [self._sent[shard]], [self._sent[shard].replica], set[int]()
        number = len(self._pool.replicas)
        until = monotonic() + GIVE_UP_S
        while monotonic() < until and len(ended) < number:
            wait([attempt.future for attempt in waiting], self._pool.hedge_delay_s, FIRST_COMPLETED)
            for attempt in [attempt for attempt in waiting if attempt.future.done()]:
                error = attempt.future.exception()
                if error is None:
                    return attempt.future.result()
                if isinstance(error, RayTaskError) or not isinstance(error, RayError):
                    raise told(cause(error), self._pool.index) from error
                if isinstance(error, ActorDiedError) and asked.count(attempt.replica) > DEATHS:
                    ended.add(attempt.replica)
                waiting.remove(attempt)
            busy = {attempt.replica for attempt in waiting} | ended
            if len(busy) < number:
                if len(asked) >= number:
                    sleep(RETRY_PAUSE_S)
                waiting.append(self._pool.send(shard, self._served, self._query, asked, busy))
                asked.append(waiting[-1].replica)
        raise RagrayError(
            f"{self._pool.index}: shard {shard} of the retriever pool did not answer {len(asked)} attempts: its actors "
            f"{'have ended' if len(ended) == number else f'are dead or slower than {GIVE_UP_S:.0f} s'}; start the pool again"
        )
