"""Signals while a service runs: which of them ask, which force, and when they end the process at once."""

import os
import signal
from dataclasses import dataclass

import pytest

from ragray.cluster.serving.stop import Stop


@dataclass
class Clock:
    """A clock that is set by hand."""

    now: float = 100.0

    def __call__(self) -> float:
        return self.now


def up(clock: Clock) -> Stop:
    stop = Stop(clock=clock)
    stop.up = True
    return stop


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_the_first_signal_asks_and_gives_the_exit_code(number: int, code: int) -> None:
    stop = up(Clock())
    assert stop.exit_code == 0
    stop.on_signal(number)
    assert (stop.asked.is_set(), stop.forced.is_set(), stop.exit_code) == (True, False, code)


def test_signals_within_two_seconds_are_one_and_a_later_one_forces() -> None:
    clock = Clock()
    stop = up(clock)
    stop.on_signal(signal.SIGTERM)
    for clock.now in (100.0, 101.9):
        stop.on_signal(signal.SIGINT)
        assert not stop.forced.is_set()
    clock.now = 102.1
    stop.on_signal(signal.SIGINT)
    assert (stop.forced.is_set(), stop.exit_code) == (True, 143)


def test_before_the_service_is_up_a_signal_ends_the_process_unless_a_request_waits() -> None:
    with pytest.raises(SystemExit) as ended:
        Stop().on_signal(signal.SIGINT)
    assert ended.value.code == 130
    waiting = Stop()
    waiting.num_waiting = lambda: 1
    told: list[str] = []
    waiting.when_asked = lambda: told.append("refuse others")
    waiting.on_signal(signal.SIGINT)
    waiting.leave_if_idle()
    assert waiting.asked.is_set()
    assert told == ["refuse others"]
    waiting.num_waiting = lambda: 0
    with pytest.raises(SystemExit):
        waiting.leave_if_idle()


def test_before_the_service_is_up_a_later_signal_does_not_wait_for_requests() -> None:
    clock = Clock()
    stop = Stop(clock=clock)
    stop.num_waiting = lambda: 1
    stop.on_signal(signal.SIGINT)
    clock.now += 5
    stop.on_signal(signal.SIGINT)
    with pytest.raises(SystemExit):
        stop.leave_if_idle()


def test_handlers_are_put_back_and_an_ignored_signal_stays_ignored() -> None:
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    term = signal.getsignal(signal.SIGTERM)
    try:
        with up(Clock()) as stop:
            os.kill(os.getpid(), signal.SIGINT)
            assert not stop.asked.is_set()
            os.kill(os.getpid(), signal.SIGTERM)
            assert stop.asked.wait(10)
        assert signal.getsignal(signal.SIGTERM) == term
    finally:
        signal.signal(signal.SIGINT, before)
