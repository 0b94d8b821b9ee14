"""Requests that are answered together: nothing waits for others, what comes meanwhile goes together, each gets its own answer."""

import asyncio
from collections.abc import Sequence
from contextvars import ContextVar

import pytest

from ragray.errors import InputError
from ragray.serve.load.gathering import Gatherer

WHOSE: ContextVar[str] = ContextVar("whose", default="nobody's")


class Calls:
    """Answers with the items in capitals once it may; remembers what each call was asked."""

    def __init__(self) -> None:
        self.asked: list[list[str]] = []
        self.whose: list[str] = []
        self.may_answer = asyncio.Event()

    async def __call__(self, items: list[str]) -> Sequence[str | Exception]:
        self.asked.append(items)
        self.whose.append(WHOSE.get())
        await self.may_answer.wait()
        if "fail" in items:
            raise InputError("all of them")
        return [InputError(item) if item == "bad" else item.upper() for item in items]


async def turns() -> None:
    """Let the loop do what is ready."""
    for _ in range(10):
        await asyncio.sleep(0)


async def asked(gatherer: Gatherer[str, str], items: str) -> list["asyncio.Task[str]"]:
    """Ask for each letter, one turn of the loop after the other."""
    tasks = []
    for item in items:
        tasks.append(asyncio.create_task(gatherer(item)))
        await turns()
    return tasks


def test_the_first_goes_at_once_and_what_comes_meanwhile_goes_together() -> None:
    async def scenario() -> None:
        calls = Calls()
        tasks = await asked(Gatherer(calls, most=3), "abcdef")
        assert calls.asked == [["a"]]
        calls.may_answer.set()
        assert await asyncio.gather(*tasks) == list("ABCDEF")
        assert calls.asked == [["a"], ["b", "c", "d"], ["e", "f"]]

    asyncio.run(scenario())


def test_what_comes_at_the_same_time_goes_together() -> None:
    async def scenario() -> None:
        calls = Calls()
        calls.may_answer.set()
        gatherer = Gatherer(calls, most=3)
        assert await asyncio.gather(*map(gatherer, "abcd")) == list("ABCD")
        assert calls.asked == [["a", "b", "c"], ["d"]]

    asyncio.run(scenario())


def test_a_full_call_begins_beside_the_one_that_runs_where_that_is_wanted() -> None:
    async def scenario() -> None:
        for overflowing, expected in ((False, ["a"]), (True, ["a", "bcd"])):
            calls = Calls()
            tasks = await asked(Gatherer(calls, most=3, overflowing=overflowing), "abcdef")
            assert ["".join(items) for items in calls.asked] == expected
            calls.may_answer.set()
            assert await asyncio.gather(*tasks) == list("ABCDEF")

    asyncio.run(scenario())


def test_an_error_is_that_of_its_item_and_that_of_a_call_is_that_of_all_its_items() -> None:
    async def scenario() -> None:
        calls = Calls()
        calls.may_answer.set()
        gatherer = Gatherer(calls, most=3)
        good, bad = await asyncio.gather(gatherer("a"), gatherer("bad"), return_exceptions=True)
        assert good == "A"
        assert repr(bad) == "InputError('bad')"
        found = await asyncio.gather(gatherer("a"), gatherer("fail"), return_exceptions=True)
        assert list(map(repr, found)) == ["InputError('all of them')"] * 2
        assert await gatherer("b") == "B"

    asyncio.run(scenario())


def test_who_leaves_takes_nobody_along_and_is_not_asked_for() -> None:
    async def scenario() -> None:
        calls = Calls()
        first, second, third = await asked(Gatherer(calls, most=3), "abc")
        first.cancel()
        second.cancel()
        calls.may_answer.set()
        assert await third == "C"
        assert calls.asked == [["a"], ["c"]]
        with pytest.raises(asyncio.CancelledError):
            await first

    asyncio.run(scenario())


def test_a_call_is_made_for_nobody_in_particular() -> None:
    async def scenario() -> None:
        WHOSE.set("the first client's")
        calls = Calls()
        calls.may_answer.set()
        await Gatherer(calls, most=3)("a")
        assert calls.whose == ["nobody's"]

    asyncio.run(scenario())
