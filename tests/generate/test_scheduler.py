"""Who is in the batch: first come, first served, up to the limit; those who cancelled leave and are never let in."""

from dataclasses import dataclass

from ragray.generate.scheduler import Scheduler


@dataclass(eq=False)
class Fake:
    """A sequence with a name."""

    name: str
    cancelled: bool = False


def submitted(scheduler: Scheduler[Fake], names: str) -> list[Fake]:
    sequences = [Fake(name) for name in names]
    for sequence in sequences:
        scheduler.submit(sequence)
    return sequences


def names(joined: dict[int, Fake]) -> str:
    return "".join(sequence.name for sequence in joined.values())


def test_sequences_join_in_order_as_many_as_there_is_room_for() -> None:
    scheduler = Scheduler[Fake](3)
    submitted(scheduler, "abcde")
    joined = scheduler.join(joinable=True)
    assert names(joined) == "abc"
    assert names(scheduler.join(joinable=True)) == ""
    assert scheduler.finish(min(joined)).name == "a"
    assert names(scheduler.join(joinable=True)) == "d"
    assert (scheduler.num_running, len(scheduler)) == (3, 4)


def test_a_batch_that_cannot_be_joined_is_filled_only_when_it_is_empty() -> None:
    scheduler = Scheduler[Fake](2)
    submitted(scheduler, "abc")
    joined = scheduler.join(joinable=False)
    assert names(joined) == "ab"
    for key in joined:
        assert names(scheduler.join(joinable=False)) == ""
        scheduler.finish(key)
    assert names(scheduler.join(joinable=False)) == "c"


def test_who_cancels_leaves_the_batch_or_never_joins_it() -> None:
    scheduler = Scheduler[Fake](2)
    first, second, third, _ = submitted(scheduler, "abcd")
    joined = scheduler.join(joinable=True)
    second.cancelled = third.cancelled = True
    assert scheduler.leave() == [key for key, sequence in joined.items() if sequence is second]
    assert scheduler.leave() == []
    assert names(scheduler.join(joinable=True)) == "d"
    assert scheduler.get(min(joined)) is first


def test_a_key_is_never_used_again() -> None:
    scheduler = Scheduler[Fake](1)
    submitted(scheduler, "abc")
    keys = []
    while joined := scheduler.join(joinable=True):
        keys += joined
        scheduler.fail()
    assert len(set(keys)) == 3


def test_a_failure_empties_the_batch_and_keeps_those_that_wait_and_an_end_forgets_all() -> None:
    scheduler = Scheduler[Fake](1)
    first, second = submitted(scheduler, "ab")
    scheduler.join(joinable=True)
    assert scheduler.fail() == [first]
    assert (scheduler.num_running, len(scheduler)) == (0, 1)
    scheduler.join(joinable=True)
    [third] = submitted(scheduler, "c")
    assert scheduler.close() == [second, third]
    assert len(scheduler) == 0
