"""Rows are grouped by length at the least cost."""

import random
from itertools import combinations, pairwise

import pytest

from ragray.embed.batching import length_groups


def cost(lengths: list[int], groups: list[list[int]], overhead: int) -> int:
    return sum(len(group) * max(lengths[row] for row in group) + overhead for group in groups)


def least_cost(lengths: list[int], overhead: int) -> int:
    """Try every split of the sorted rows."""
    order = sorted(range(len(lengths)), key=lambda row: -lengths[row])
    splits = (cuts for size in range(len(order)) for cuts in combinations(range(1, len(order)), size))
    return min(cost(lengths, [order[a:b] for a, b in pairwise([0, *cuts, len(order)])], overhead) for cuts in splits)


@pytest.mark.parametrize("seed", range(20))
def test_no_other_split_costs_less(seed: int) -> None:
    drawn = random.Random(seed)
    lengths, overhead = drawn.choices(range(1, 60), k=drawn.randint(1, 7)), drawn.randint(0, 80)
    groups = length_groups(lengths, overhead)
    assert sorted(row for group in groups for row in group) == list(range(len(lengths)))
    assert cost(lengths, groups, overhead) == least_cost(lengths, overhead)


def test_longest_rows_come_first() -> None:
    assert length_groups([10, 200, 12, 190], 16) == [[1, 3], [2, 0]]
    assert length_groups([], 8) == []
