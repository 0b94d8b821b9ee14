"""The Retriever's replica, called directly: the snapshots that requests name, batches of different k, errors of one query."""

import asyncio
import threading
from collections.abc import Sequence

import pytest

from ragray.cluster.serving.retrieving import RetrieverReplica, search_batch
from ragray.config import Config
from ragray.errors import CorruptArtifactError, InputError, NotAnArtifactError
from ragray.retrieve.retriever import AS_SET, SearchOptions
from ragray.retrieve.shelf import IndexSource
from ragray.types import Hit, Passage, RetrievalResult

CURRENT = IndexSource("index")
ONE, TWO = IndexSource("index", "", "one"), IndexSource("index", "", "two")


class Named:
    """A retriever that finds its own name, k times, as long as it may answer."""

    def __init__(self, name: str) -> None:
        self.snapshot = name
        self.calls: list[int] = []
        self.searched, self.may_answer = threading.Event(), threading.Event()
        self.may_answer.set()

    def search(self, queries: Sequence[str], k: int, options: SearchOptions = AS_SET) -> list[RetrievalResult]:
        self.calls.append(len(queries))
        self.searched.set()
        assert self.may_answer.wait(10)
        if "bad" in queries:
            raise InputError(f"query 'bad' beside {len(queries) - 1} others")
        return [
            RetrievalResult(
                self.snapshot, tuple(Hit(Passage(f"{query}-{rank}", self.snapshot), 1.0) for rank in range(k))
            )
            for query in queries
        ]


class Opener:
    """Opens `Named` retrievers; `one` is the current snapshot. What is damaged cannot be opened beside another one."""

    def __init__(self, *damaged: str) -> None:
        self.damaged = damaged
        self.opened: list[Named] = []

    def __call__(self, source: IndexSource, *, checked: bool) -> Named:
        name = source.snapshot or "one"
        if name in self.damaged:
            raise CorruptArtifactError(f"{name}: damaged")
        self.opened.append(Named(name))
        return self.opened[-1]


def replica(opener: Opener) -> RetrieverReplica:
    return RetrieverReplica(Config(), CURRENT, opener)  # type: ignore[arg-type] # retrievers without models


async def searched(replica: RetrieverReplica, source: IndexSource | None) -> str:
    """Search once; return the snapshot that was searched."""
    [found] = await replica.search_many(["q"], 1, AS_SET, source)
    return found.snapshot


def test_the_first_snapshot_decides_whether_the_replica_starts() -> None:
    with pytest.raises(CorruptArtifactError, match="one: damaged"):
        replica(Opener("one"))


def test_a_request_is_answered_from_the_snapshot_that_it_names_whichever_others_are_open() -> None:
    async def scenario() -> None:
        found = replica(Opener())
        assert await found.held() == ONE
        await found.prepare(TWO)
        assert [await searched(found, each) for each in (ONE, TWO, ONE, None)] == ["one", "two", "one", "one"]
        await found.keep(TWO)
        assert found.shelf.opened() == [TWO]
        assert await searched(found, ONE) == "one"  # of a Gateway that has not switched yet
        assert await found.held() == ONE

    asyncio.run(scenario())


def test_queries_of_one_batch_are_each_searched_in_their_own_snapshot() -> None:
    one, two = Named("one"), Named("two")
    found = search_batch(["a", "b", "c"], [1, 1, 1], [AS_SET] * 3, [one, two, one])
    assert [each.snapshot for each in found if isinstance(each, RetrievalResult)] == ["one", "two", "one"]
    assert (one.calls, two.calls) == ([2], [1])


def test_a_search_that_a_swap_overtakes_is_of_the_old_snapshot_and_says_so() -> None:
    async def scenario() -> None:
        opener = Opener()
        found = replica(opener)
        [one] = opener.opened
        one.may_answer.clear()
        searching = asyncio.create_task(found.search_many(["a"], 2, AS_SET, ONE))
        await asyncio.to_thread(one.searched.wait, 10)
        await found.prepare(TWO)
        await found.keep(TWO)
        assert await searched(found, TWO) == "two"
        one.may_answer.set()
        [late] = await searching
        assert {late.snapshot} == {hit.passage.text for hit in late.hits} == {"one"}

    asyncio.run(scenario())


def test_a_snapshot_that_is_refused_changes_nothing() -> None:
    async def scenario() -> None:
        found = replica(Opener("two"))
        with pytest.raises(CorruptArtifactError, match="two: damaged"):
            await found.prepare(TWO)
        assert (await searched(found, None), found.shelf.opened()) == ("one", [ONE])

    asyncio.run(scenario())


def test_a_batch_of_different_k_gives_each_query_what_it_would_get_alone() -> None:
    retriever = Named("one")
    together = search_batch(["a", "b", "c"], [2, 3, 2], [AS_SET] * 3, [retriever] * 3)
    assert retriever.calls == [2, 1]
    alone = [search_batch([query], [k], [AS_SET], [Named("one")])[0] for query, k in (("a", 2), ("b", 3), ("c", 2))]
    assert together == alone


def test_a_query_that_fails_in_a_batch_fails_alone() -> None:
    *found, failed = search_batch(["a", "b", "bad"], [2, 3, 2], [AS_SET] * 3, [Named("one")] * 3)
    assert found == search_batch(["a", "b"], [2, 3], [AS_SET] * 2, [Named("one")] * 2)
    assert isinstance(failed, InputError)
    assert str(failed) == "query 'bad' beside 0 others"


def test_a_retriever_outside_of_serve_says_why_it_cannot_open() -> None:
    def nothing(source: IndexSource, *, checked: bool) -> Named:
        raise NotAnArtifactError(f"{source.index}: not an index")

    with pytest.raises(NotAnArtifactError, match="index: not an index"):
        RetrieverReplica(Config(), CURRENT, nothing)  # type: ignore[arg-type] # retrievers without models
