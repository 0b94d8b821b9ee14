"""The classes that Serve runs, called directly: switching the index, batches of different k, errors on the way out."""

import asyncio
import threading
from collections.abc import Sequence
from pathlib import Path

import pytest

from ragray.cluster.serving.deployments import IndexSource, RetrieverReplica, search_batch
from ragray.cluster.serving.gateway import translate_ray_errors
from ragray.cluster.serving.service import underlying_error
from ragray.config import Config
from ragray.errors import (
    ConfigError,
    EncoderMismatchError,
    InputError,
    NotAnArtifactError,
    OverloadedError,
    ServingError,
)
from ragray.retrieve.retriever import AS_SET, SearchOptions
from ragray.types import Hit, Passage, RetrievalResult


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


class Loader:
    """Opens `Named` retrievers; folders called bad cannot be opened, others only once the gate is open."""

    def __init__(self) -> None:
        self.gate = threading.Event()
        self.gate.set()
        self.opened: dict[str, Named] = {}

    def __call__(self, index: Path, run: Path | None, config: Config) -> Named:
        self.gate.wait(5)
        if index.name == "bad":
            raise NotAnArtifactError(f"{index}: not an index")
        self.opened[index.name] = found = Named(index.name)
        return found


async def settled(replica: RetrieverReplica) -> None:
    """Wait until no index is being loaded."""
    while (await replica.health()).loading:
        await asyncio.sleep(0.01)


async def searched(replica: RetrieverReplica) -> str:
    """Search once; return the snapshot that was searched."""
    [found] = await replica.search_many(["q"], 1, AS_SET)
    assert isinstance(found, RetrievalResult)
    return found.snapshot


def test_the_first_index_decides_whether_the_replica_starts() -> None:
    with pytest.raises(NotAnArtifactError):
        asyncio.run(RetrieverReplica(Config(), Loader()).reconfigure({"index": "bad"}))


def test_the_old_index_is_served_while_the_new_one_loads() -> None:
    async def scenario() -> None:
        loader = Loader()
        replica = RetrieverReplica(Config(), loader)
        await replica.reconfigure({"index": "one"})
        loader.gate.clear()
        await replica.reconfigure({"index": "two"})
        await asyncio.sleep(0.05)
        assert await searched(replica) == "one"
        assert (await replica.health()).loading
        loader.gate.set()
        await settled(replica)
        assert await searched(replica) == "two"
        assert not (await replica.health()).loading

    asyncio.run(scenario())


def test_a_search_that_a_swap_overtakes_is_of_the_old_snapshot_and_says_so() -> None:
    async def scenario() -> None:
        loader = Loader()
        replica = RetrieverReplica(Config(), loader)
        await replica.reconfigure({"index": "one"})
        one = loader.opened["one"]
        one.may_answer.clear()
        searching = asyncio.create_task(replica.search_batch(["a", "b"], [1, 2], [AS_SET] * 2))
        await asyncio.to_thread(one.searched.wait, 10)
        await replica.reconfigure({"index": "two"})
        await settled(replica)
        assert await searched(replica) == "two"
        one.may_answer.set()
        for found in await searching:
            assert isinstance(found, RetrievalResult)
            assert {found.snapshot} == {hit.passage.text for hit in found.hits} == {"one"}

    asyncio.run(scenario())


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        ({"index": "bad"}, "bad: not an index"),
        ({"indx": "two"}, "unknown key 'indx'"),
        ({}, "no 'index'"),
        ({"index": 3}, "expected a string"),
        ({"index": "two", "snapshot": "three"}, "snapshot two is current, user_config wants three"),
    ],
)
def test_a_bad_index_changes_nothing_and_says_why(bad: dict[str, str], reason: str) -> None:
    async def scenario() -> None:
        replica = RetrieverReplica(Config(), Loader())
        await replica.reconfigure({"index": "one"})
        await replica.reconfigure(bad)
        await settled(replica)
        health = await replica.health()
        assert (health.snapshot, health.index) == ("one", "one")
        assert reason in health.last_error
        await replica.reconfigure({"index": "two"})
        await settled(replica)
        assert (await replica.health()).last_error == ""

    asyncio.run(scenario())


def test_of_several_new_indexes_the_latest_is_served_and_those_between_are_never_loaded() -> None:
    async def scenario() -> None:
        loader = Loader()
        replica = RetrieverReplica(Config(), loader)
        await replica.reconfigure({"index": "one"})
        loader.gate.clear()
        for name in ("two", "three", "four"):
            await replica.reconfigure({"index": name})
            await asyncio.sleep(0.02)
        loader.gate.set()
        await settled(replica)
        assert (await replica.health()).snapshot == "four"
        assert list(loader.opened) == ["one", "two", "four"]

    asyncio.run(scenario())


def test_an_unknown_key_of_user_config_is_named() -> None:
    with pytest.raises(ConfigError, match="unknown key 'snapshots'"):
        IndexSource.parse({"index": "one", "snapshots": "1"})


def test_a_batch_of_different_k_gives_each_query_what_it_would_get_alone() -> None:
    retriever = Named("one")
    together = search_batch(retriever, ["a", "b", "c"], [2, 3, 2], [AS_SET] * 3)
    assert retriever.calls == [2, 1]
    alone = [search_batch(Named("one"), [query], [k], [AS_SET])[0] for query, k in (("a", 2), ("b", 3), ("c", 2))]
    assert together == alone


def test_a_query_that_fails_in_a_batch_fails_alone() -> None:
    *found, failed = search_batch(Named("one"), ["a", "b", "bad"], [2, 3, 2], [AS_SET] * 3)
    assert found == search_batch(Named("one"), ["a", "b"], [2, 3], [AS_SET] * 2)
    assert isinstance(failed, InputError)
    assert str(failed) == "query 'bad' beside 0 others"


def test_errors_of_serve_and_of_replicas_come_out_as_errors_of_ragray() -> None:
    from ray.exceptions import RayActorError, RayTaskError
    from ray.serve.exceptions import BackPressureError

    cause = EncoderMismatchError("two encoders")
    for raised, expected in [
        (BackPressureError(3, 2), OverloadedError),
        (RayActorError(), ServingError),
        (RayTaskError("search", "a traceback", cause).as_instanceof_cause(), EncoderMismatchError),
    ]:
        with pytest.raises(expected) as caught, translate_ray_errors():
            raise raised
        assert "traceback" not in str(caught.value)


@pytest.mark.parametrize(
    ("message", "line"),
    [
        (
            "failed. Error:\nTraceback ...\n  File x\nragray.errors.CorruptArtifactError: a.npy: missing",
            "a.npy: missing",
        ),
        ("Error:\nKeyError: 'a'\n\nDuring handling ...\n\nValueError: no b\nsecond line", "ValueError: no b"),
        ("The actor died.\n", "The actor died."),
        ("", "no reason given"),
    ],
)
def test_the_underlying_error_is_the_last_one_raised(message: str, line: str) -> None:
    assert underlying_error(message) == line
