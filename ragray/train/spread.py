"""Examples that must not share a batch. In: an order of examples, their groups. Out: an order that keeps a group's examples apart. Pure."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Sequence
from heapq import heapify, heappop, heappush


def spread(order: Sequence[int], groups: Sequence[int]) -> list[int]:
    """Return the examples of ``order`` such that between two of one group stand as many others as the groups allow.

    ``groups[n]`` is the group of example n. Examples come as early as ``order`` has them; one whose group came less than
    `distance` places ago waits. What is left over at the end, where too few groups remain, follows in its turn.
    """
    apart = distance(groups)
    waiting: dict[int, deque[int]] = {}
    place = {example: number for number, example in enumerate(order)}
    for example in order:
        waiting.setdefault(groups[example], deque()).append(example)
    ready = [(place[examples[0]], group) for group, examples in waiting.items()]
    heapify(ready)
    resting: deque[tuple[int, int]] = deque()
    spaced: list[int] = []
    while ready or resting:
        while resting and (resting[0][0] <= len(spaced) or not ready):
            group = resting.popleft()[1]
            heappush(ready, (place[waiting[group][0]], group))
        _, group = heappop(ready)
        spaced.append(waiting[group].popleft())
        if waiting[group]:
            resting.append((len(spaced) - 1 + apart, group))
    return spaced


def distance(groups: Sequence[int]) -> int:
    """Return how many places after an example the next of its group may stand: half as many as there are groups, or fewer
    where the largest group would not fit then."""
    sizes = Counter(groups)
    return max(1, min(len(sizes) // 2, len(groups) // max(sizes.values(), default=1)))
