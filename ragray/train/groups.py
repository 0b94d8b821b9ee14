"""Examples that must not share a batch. In: an order of examples, their groups. Out: an order that keeps a group's examples apart. Pure."""

from __future__ import annotations

from collections.abc import Sequence


def spread(order: Sequence[int], groups: Sequence[int]) -> list[int]:
    """Return the examples of ``order`` such that those of one group stand evenly apart: about n / m places, for m of n examples.

    ``groups[n]`` is the group of example n. ``order``, a random permutation, decides the order within a group, and where
    its first example stands within the first m-th part.
    """
    members: dict[int, list[int]] = {}
    for example in order:
        members.setdefault(groups[example], []).append(example)
    place = {example: number for number, example in enumerate(order)}
    wanted = {
        example: (number + place[min(own)] / len(order)) / len(own)
        for own in members.values()
        for number, example in enumerate(own)
    }
    return sorted(order, key=lambda example: (wanted[example], place[example]))
