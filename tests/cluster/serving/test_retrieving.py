"""The Retriever's replica, called directly: snapshots that requests name, requests searched together, errors of one of them."""

import asyncio
import threading
from collections.abc import Sequence

import pytest

from ragray.cluster.serving.retrieving import RETRIEVE_BATCH, SMALL, Found, Lookup, RetrieverReplica, search_together
from ragray.config import Config
from ragray.errors import CorruptArtifactError, InputError, NotAnArtifactError, OverloadedError
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


def lookup(*queries: str, k: int = 1) -> Lookup:
    return Lookup(queries, k, AS_SET, None)


def together(lookups: Sequence[Lookup], retrievers: Sequence[Named]) -> list[Found | Exception]:
    return search_together(lookups, retrievers)  # type: ignore[arg-type] # retrievers without models


def snapshots(found: Found | Exception) -> list[str]:
    assert not isinstance(found, Exception)
    return [each.snapshot for each in found]


async def searched(replica: RetrieverReplica, source: IndexSource | None) -> str:
    """Search once; return the snapshot that was searched."""
    [found] = await replica.search(Lookup(("q",), 1, AS_SET, source))
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


def test_requests_that_are_searched_together_are_each_searched_in_their_own_snapshot() -> None:
    one, two = Named("one"), Named("two")
    found = together([lookup("a"), lookup("b", "c"), lookup("d", "e")], [one, two, one])
    assert [snapshots(each) for each in found] == [["one"], ["two", "two"], ["one", "one"]]
    assert (one.calls, two.calls) == ([3], [2])


def test_a_search_that_a_swap_overtakes_is_of_the_old_snapshot_and_says_so() -> None:
    async def scenario() -> None:
        opener = Opener()
        found = replica(opener)
        [one] = opener.opened
        one.may_answer.clear()
        searching = asyncio.create_task(found.search(Lookup(("a",) * (SMALL + 1), 2, AS_SET, ONE)))
        await asyncio.to_thread(one.searched.wait, 10)
        await found.prepare(TWO)
        await found.keep(TWO)
        assert await searched(found, TWO) == "two"
        one.may_answer.set()
        late, *_ = await searching
        assert {late.snapshot} == {hit.passage.text for hit in late.hits} == {"one"}

    asyncio.run(scenario())


def test_a_snapshot_that_is_refused_changes_nothing() -> None:
    async def scenario() -> None:
        found = replica(Opener("two"))
        with pytest.raises(CorruptArtifactError, match="two: damaged"):
            await found.prepare(TWO)
        assert (await searched(found, None), found.shelf.opened()) == ("one", [ONE])

    asyncio.run(scenario())


def test_requests_of_different_k_get_what_they_would_get_alone() -> None:
    retriever, lookups = Named("one"), [lookup("a", k=2), lookup("b", "c", k=3), lookup("d", k=2)]
    found = together(lookups, [retriever] * 3)
    assert retriever.calls == [2, 2]
    assert found == [together([each], [Named("one")])[0] for each in lookups]


def test_a_request_that_fails_beside_others_fails_alone() -> None:
    good, bad = [lookup("a"), lookup("b", "c")], lookup("bad")
    *found, failed = together([*good, bad], [Named("one")] * 3)
    assert found == together(good, [Named("one")] * 2)
    assert isinstance(failed, InputError)
    assert str(failed) == "query 'bad' beside 0 others"


def test_requests_that_come_while_others_are_searched_for_are_the_next_search() -> None:
    async def scenario() -> None:
        opener = Opener()
        found = replica(opener)
        [one] = opener.opened
        one.may_answer.clear()
        first = asyncio.create_task(found.search_all([lookup("a"), lookup("b")]))
        await asyncio.to_thread(one.searched.wait, 10)
        others = [asyncio.create_task(found.search_all([lookup(name)])) for name in "cde"]
        await asyncio.sleep(0)
        one.may_answer.set()
        answers = [answer for task in (first, *others) for answer in await task]
        assert [each[0].hits[0].passage.id for each in answers if not isinstance(each, Exception)] == [
            "a-0",
            "b-0",
            "c-0",
            "d-0",
            "e-0",
        ]
        assert one.calls == [2, 3]

    asyncio.run(scenario())


def test_more_requests_than_may_wait_are_refused_and_the_others_answered() -> None:
    async def scenario() -> None:
        most = Config().serve.max_queued_requests + 2 * RETRIEVE_BATCH
        answers = await replica(Opener()).search_all([lookup("a")] * (most + 5))
        refused = [each for each in answers if isinstance(each, OverloadedError)]
        assert (len(answers) - len(refused), len(refused)) == (most, 5)

    asyncio.run(scenario())


def test_an_error_that_another_process_may_not_be_able_to_read_is_told_in_words() -> None:
    class Broken(Named):
        def search(self, queries: Sequence[str], k: int, options: SearchOptions = AS_SET) -> list[RetrievalResult]:
            raise ZeroDivisionError("by zero")

    async def scenario() -> None:
        [found] = await replica(lambda source, *, checked: Broken("one")).search_all([lookup("a")])  # type: ignore[arg-type]
        assert isinstance(found, RuntimeError)
        assert str(found) == "ZeroDivisionError: by zero"

    asyncio.run(scenario())


def test_a_retriever_outside_of_serve_says_why_it_cannot_open() -> None:
    def nothing(source: IndexSource, *, checked: bool) -> Named:
        raise NotAnArtifactError(f"{source.index}: not an index")

    with pytest.raises(NotAnArtifactError, match="index: not an index"):
        RetrieverReplica(Config(), CURRENT, nothing)  # type: ignore[arg-type] # retrievers without models
