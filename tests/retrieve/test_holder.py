"""The holder of snapshots: a swap is seen whole or not at all, a failed one not at all, and the latest of several wins."""

import threading
import weakref
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest

from ragray.errors import NotAnArtifactError
from ragray.retrieve.holder import Served, SnapshotHolder


class Opened:
    """An open snapshot."""

    def __init__(self, name: str) -> None:
        self.name = name


def opening(name: str) -> Callable[[], Opened]:
    return lambda: Opened(name)


def held(holder: SnapshotHolder[Opened]) -> Opened:
    assert holder.current is not None
    return holder.current.snapshot


def test_a_snapshot_is_released_when_its_last_reader_is_done() -> None:
    holder = SnapshotHolder(Served(0, Opened("one")))
    reader = held(holder)
    gone = weakref.ref(reader)
    assert holder.swap(holder.reserve(), opening("two"))
    assert held(holder).name == "two"
    assert gone() is reader
    del reader
    assert gone() is None


def test_a_snapshot_that_cannot_be_opened_changes_nothing_and_the_next_one_is_served() -> None:
    holder = SnapshotHolder(Served(0, Opened("one")))

    def refuse() -> Opened:
        raise NotAnArtifactError("two: not an index")

    with pytest.raises(NotAnArtifactError):
        holder.swap(holder.reserve(), refuse)
    assert held(holder).name == "one"
    assert holder.swap(holder.reserve(), opening("three"))
    assert held(holder).name == "three"


def test_of_several_swaps_the_latest_is_served_and_those_between_are_never_opened() -> None:
    holder, opened, begun, go = SnapshotHolder[Opened](), [], threading.Event(), threading.Event()

    def open_slowly(name: str) -> Callable[[], Opened]:
        def open_() -> Opened:
            begun.set()
            assert go.wait(10)
            opened.append(name)
            return Opened(name)

        return open_

    with ThreadPoolExecutor(3) as threads:
        first = threads.submit(holder.swap, holder.reserve(), open_slowly("one"))
        assert begun.wait(10)
        numbers = [holder.reserve(), holder.reserve()]
        others = [threads.submit(holder.swap, number, open_slowly(str(number))) for number in numbers]
        go.set()
        assert [future.result() for future in (first, *others)] == [False, False, True]
    assert opened == ["one", str(numbers[-1])]
    assert held(holder).name == str(numbers[-1])


def test_a_snapshot_that_was_prepared_is_found_beside_the_served_one_until_a_newer_one_is_served() -> None:
    holder = SnapshotHolder(Served(0, Opened("one")))
    two = holder.prepare(1, opening("two"))
    assert holder.prepare(1, opening("never")) is two
    assert (held(holder).name, holder.find(1)) == ("one", two)
    holder.prepare(2, opening("three"))
    holder.release(2)
    assert holder.find(2) is None
    assert holder.switch(Served(1, two))
    assert not holder.switch(Served(0, Opened("one")))
    assert (holder.find(0), holder.find(1), holder.opened()) == (None, two, [two])
