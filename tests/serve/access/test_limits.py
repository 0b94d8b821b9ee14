"""Limits of a key, by a clock of the test's own: buckets that hold a minute's allowance and fill evenly."""

from datetime import UTC, datetime

import pytest

from ragray.serve.access.keys import Key
from ragray.serve.access.limits import Bucket, KeyLimits


def key(name: str = "ann", *, requests: int = 0, tokens: int = 0) -> Key:
    created = datetime(2030, 1, 1, tzinfo=UTC)
    return Key(name=name, sha256="0" * 64, requests_per_minute=requests, tokens_per_minute=tokens, created=created)


def admitted(limits: KeyLimits, one: Key, times: list[float]) -> list[bool]:
    return [limits.admit(one, now) == ("", 0) for now in times]


def test_a_key_without_limits_is_always_admitted_and_gets_no_headers() -> None:
    limits = KeyLimits()
    assert admitted(limits, key(), [0.0] * 100) == [True] * 100
    assert limits.headers(key(), 100, 0.0) == {}


def test_a_minutes_requests_may_come_at_once_and_then_one_by_one() -> None:
    limits = KeyLimits()
    assert admitted(limits, key(requests=3), [0, 0, 0, 0, 19.9, 20, 20, 40]) == [True] * 3 + [False] * 2 + [
        True,
        False,
        True,
    ]


@pytest.mark.parametrize("per_minute", [1, 7, 60, 1000])
def test_over_a_long_time_exactly_the_allowance_is_admitted(per_minute: int) -> None:
    limits, minutes = KeyLimits(), 5
    step_s = 15 / per_minute
    times = [number * step_s for number in range(round(minutes * 60 / step_s))]
    assert sum(admitted(limits, key(requests=per_minute), times)) in (
        per_minute + minutes * per_minute - 1,  # the full bucket, and what flowed in before the last request
        per_minute + minutes * per_minute,
    )


def test_the_wait_that_is_told_is_just_enough() -> None:
    limits, one = KeyLimits(), key(requests=4)
    assert admitted(limits, one, [0.0] * 4) == [True] * 4
    assert limits.admit(one, 1.0) == ("requests", 14)
    assert admitted(limits, one, [13.0, 15.0]) == [False, True]


def test_tokens_are_paid_for_afterwards_and_a_debt_is_waited_for() -> None:
    limits, one = KeyLimits(), key(tokens=60)
    assert limits.admit(one, 0.0) == ("", 0)
    limits.spend(one, 90, 0.0)
    assert limits.admit(one, 0.0) == ("tokens", 31)
    assert limits.admit(one, 31.0) == ("", 0)


def test_of_two_limits_the_longer_wait_counts_and_a_refused_request_costs_nothing() -> None:
    limits, one = KeyLimits(), key(requests=60, tokens=60)
    limits.spend(one, 100, 0.0)
    for _ in range(3):
        assert limits.admit(one, 0.0) == ("tokens", 41)
    assert limits.headers(one, 0, 0.0)["x-ratelimit-remaining-requests"] == "60"


def test_keys_do_not_share_their_limits() -> None:
    limits = KeyLimits()
    assert admitted(limits, key("ann", requests=1), [0, 0]) == [True, False]
    assert admitted(limits, key("bob", requests=1), [0, 0]) == [True, False]


def test_a_changed_allowance_begins_with_a_full_bucket() -> None:
    limits = KeyLimits()
    assert admitted(limits, key(requests=1), [0, 0]) == [True, False]
    assert admitted(limits, key(requests=2), [0, 0, 0]) == [True, True, False]


def test_headers_say_the_limit_what_is_left_and_when_all_of_it_is_there_again() -> None:
    limits, one = KeyLimits(), key(requests=6, tokens=600)
    limits.admit(one, 0.0)
    limits.spend(one, 40, 0.0)
    assert limits.headers(one, 20, 1.0) == {
        "x-ratelimit-limit-requests": "6",
        "x-ratelimit-remaining-requests": "5",
        "x-ratelimit-reset-requests": "9.000s",
        "x-ratelimit-limit-tokens": "600",
        "x-ratelimit-remaining-tokens": "550",
        "x-ratelimit-reset-tokens": "5.000s",
    }


def test_what_remains_is_never_told_as_less_than_nothing() -> None:
    assert Bucket(60, -5, 0).headers("tokens")["x-ratelimit-remaining-tokens"] == "0"
