"""Admission by expected wait: nobody is let in who would be late, and hardly anybody refused who would not."""

import heapq
import math
from collections.abc import Callable
from dataclasses import dataclass

import pytest

from ragray.serve.load.admission import TRUST, Admission


def answered(times: list[float], *, most: int = 1000) -> Admission:
    """A service that answered one request after the other, each in so many seconds."""
    admission, now = Admission(most), 0.0
    for seconds in times:
        admission.begin(now)
        now += seconds
        admission.end(now, answered=True)
    return admission


def test_before_anything_was_answered_all_are_let_in() -> None:
    admission = Admission(3)
    for number in range(3):
        assert admission.retry_after_s(0.0, within_s=0.001) == 0
        admission.begin(0.0)
        assert admission.num_open == number + 1
    assert admission.retry_after_s(0.0, within_s=0.001) == 1


def test_the_wait_is_that_of_all_before_and_the_request_itself() -> None:
    admission = answered([0.5, 0.5, 0.5])
    assert admission.pace_s(1.5) == pytest.approx(0.5)
    admission.begin(1.5, 3)
    assert admission.wait_s(1.5) == pytest.approx(2.0)
    assert admission.wait_s(1.5, 2) == pytest.approx(2.5)


def test_time_without_requests_is_no_wait() -> None:
    admission = answered([0.5])
    admission.begin(1000.0)
    admission.end(1000.5, answered=True)
    assert admission.pace_s(2000.0) == pytest.approx(0.5)


def test_who_fails_or_leaves_tells_nothing_of_the_pace_but_makes_room() -> None:
    admission = answered([0.5])
    for _ in range(20):
        admission.begin(1.0)
        admission.end(1.0, answered=False)
    assert (admission.num_open, admission.pace_s(1.0)) == (0, pytest.approx(0.5))


def test_a_service_that_stopped_answering_is_waited_for_longer_and_longer() -> None:
    admission = answered([0.5])
    admission.begin(0.5)
    assert admission.wait_s(0.5) < admission.wait_s(1.5) < admission.wait_s(60.0)


def test_only_the_latest_answers_count() -> None:
    admission = answered([10.0] * 5 + [0.1] * 64)
    assert admission.pace_s(1e4) == pytest.approx(0.1)


def test_a_refused_request_is_told_when_it_would_be_let_in() -> None:
    admission = answered([1.0])
    admission.begin(1.0, 20)
    seconds = admission.retry_after_s(1.0, within_s=10.0)
    assert seconds == math.ceil(21 - TRUST * 10.0)
    late = Admission(1000)  # the same some seconds on, having answered one request per second
    late.begin(0.0, 21)
    for second in range(1, seconds + 2):
        late.end(float(second), answered=True)
    assert late.retry_after_s(float(seconds + 1), within_s=10.0) == 0


def test_where_nothing_is_open_a_request_is_let_in_however_slow_the_last_were() -> None:
    assert answered([100.0]).retry_after_s(100.0, within_s=1.0) == 0


def test_work_is_spared_before_anybody_is_refused() -> None:
    admission = answered([1.0])
    marks = []
    for _ in range(12):
        marks.append((admission.is_short(1.0, 10.0), admission.retry_after_s(1.0, 10.0) > 0))
        admission.begin(1.0)
    assert marks == sorted(marks)
    assert set(marks) == {(False, False), (True, False), (True, True)}


@dataclass
class Outcome:
    in_time: int = 0
    late: int = 0
    refused: int = 0


def simulate(arrivals_per_s: float, seconds: float, deadline_s: float, service_s: Callable[[int], float]) -> Outcome:
    """Let requests arrive evenly at a server that answers 8 side by side, in a time that depends on how many they are."""
    admission, waiting, running, outcome = Admission(10_000), list[float](), list[tuple[float, float]](), Outcome()

    def advance(to: float) -> None:
        while running and running[0][0] <= to:
            now, began = heapq.heappop(running)
            outcome.in_time += now - began <= deadline_s
            outcome.late += now - began > deadline_s
            admission.end(now, answered=True)
            while waiting and len(running) < 8:
                heapq.heappush(running, (now + service_s(len(running) + 1), waiting.pop(0)))

    for number in range(int(arrivals_per_s * seconds)):
        now = number / arrivals_per_s
        advance(now)
        if admission.retry_after_s(now, deadline_s):
            outcome.refused += 1
            continue
        admission.begin(now)
        if len(running) < 8:
            heapq.heappush(running, (now + service_s(len(running) + 1), now))
        else:
            waiting.append(now)
    return outcome


def fixed(side_by_side: int) -> float:
    return 0.5


def batched(side_by_side: int) -> float:
    """Answers written side by side slow each other down."""
    return 0.2 + 0.05 * side_by_side


@pytest.mark.parametrize("service_s", [fixed, batched])
@pytest.mark.parametrize("deadline_s", [2.0, 5.0, 60.0])
def test_at_five_times_the_capacity_answers_come_in_time_at_nearly_the_full_rate(
    service_s: Callable[[int], float], deadline_s: float
) -> None:
    peak = 8 / service_s(8)
    outcome = simulate(5 * peak, 60.0, deadline_s, service_s)
    assert outcome.in_time >= 0.8 * peak * (60.0 - min(deadline_s, 20.0))
    assert outcome.late <= 0.02 * outcome.in_time


@pytest.mark.parametrize("service_s", [fixed, batched])
def test_below_its_capacity_a_service_refuses_nobody(service_s: Callable[[int], float]) -> None:
    outcome = simulate(0.8 * 8 / service_s(8), 60.0, 5.0, service_s)
    assert (outcome.late, outcome.refused) == (0, 0)
