"""Limits of a key. In: its requests and tokens, a clock. Out: whether it may ask now, when again, and headers that say so.

Both are token buckets: a bucket holds what a minute allows, and fills evenly. A request is paid for before it is answered. What
it will cost in tokens is known only afterwards: the bucket of tokens may go below zero, and lets nobody in until it is above.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

from ragray.serve.access.keys import Key

MINUTE_S = 60.0


@dataclass(frozen=True, slots=True)
class Bucket:
    """What is left of an allowance per minute, at a time in seconds."""

    per_minute: int
    left: float
    at: float

    @classmethod
    def full(cls, per_minute: int, now: float) -> Bucket:
        """Return a bucket from which nothing was taken."""
        return cls(per_minute, per_minute, now)

    def filled(self, now: float) -> Bucket:
        """Return the bucket with what flowed into it until now."""
        left = self.left + (now - self.at) * self.per_minute / MINUTE_S
        return replace(self, left=min(left, self.per_minute), at=now)

    def less(self, amount: int) -> Bucket:
        """Return the bucket after something was taken."""
        return replace(self, left=self.left - amount)

    def seconds_until(self, amount: float) -> float:
        """Return when it will hold an amount again; 0 where it does."""
        return max(0.0, amount - self.left) * MINUTE_S / self.per_minute

    def headers(self, what: str) -> dict[str, str]:
        """Return the headers that OpenAI's clients know; it is reset when it is full again."""
        return {
            f"x-ratelimit-limit-{what}": str(self.per_minute),
            f"x-ratelimit-remaining-{what}": str(max(0, math.floor(self.left))),
            f"x-ratelimit-reset-{what}": f"{self.seconds_until(self.per_minute):.3f}s",
        }


class KeyLimits:
    """The buckets of all keys that have limits; they live in this process."""

    def __init__(self) -> None:
        self._buckets: dict[tuple[str, str], Bucket] = {}

    def admit(self, key: Key, now: float) -> tuple[str, int]:
        """Take a request from a key's bucket. Returns "", 0; or what is used up (requests, tokens), and the seconds until a retry."""
        now_left = {
            what: self._bucket(key.name, what, per_minute, now) for what, per_minute in _allowances(key).items()
        }
        waits = {what: bucket.seconds_until(1) for what, bucket in now_left.items()}
        if waits and (longest := max(waits.values())) > 0:
            return max(waits, key=lambda what: waits[what]), math.ceil(longest)
        if requests := now_left.get("requests"):
            self._buckets[key.name, "requests"] = requests.less(1)
        return "", 0

    def spend(self, key: Key, num_tokens: int, now: float) -> None:
        """Take the tokens of an answered request."""
        if key.tokens_per_minute and num_tokens:
            self._buckets[key.name, "tokens"] = self._bucket(key.name, "tokens", key.tokens_per_minute, now).less(
                num_tokens
            )

    def headers(self, key: Key, num_tokens: int, now: float) -> dict[str, str]:
        """Return the headers of a response whose request has used so many tokens until now."""
        found: dict[str, str] = {}
        for what, per_minute in _allowances(key).items():
            bucket = self._bucket(key.name, what, per_minute, now)
            found |= bucket.less(num_tokens if what == "tokens" else 0).headers(what)
        return found

    def _bucket(self, name: str, what: str, per_minute: int, now: float) -> Bucket:
        """Return a bucket as it is now: a full one at first, and where the allowance was changed."""
        known = self._buckets.get((name, what))
        return known.filled(now) if known and known.per_minute == per_minute else Bucket.full(per_minute, now)


def _allowances(key: Key) -> Mapping[str, int]:
    """Return what a key may use per minute, as far as it is limited."""
    both = {"requests": key.requests_per_minute, "tokens": key.tokens_per_minute}
    return {what: number for what, number in both.items() if number}
