"""Examples of one group stand apart, evenly over an epoch."""

import random

from ragray.config import TrainConfig
from ragray.train.groups import spread
from ragray.train.schedule import Progress, Schedule

RANDOM = random.Random(0)


def least_gap(order: list[int], groups: list[int]) -> int:
    """The fewest places between two examples of one group."""
    last: dict[int, int] = {}
    gaps = [len(order)]
    for place, example in enumerate(order):
        if groups[example] in last:
            gaps.append(place - last[groups[example]])
        last[groups[example]] = place
    return min(gaps)


def test_examples_of_groups_of_one_size_stand_as_far_apart_as_there_are_groups() -> None:
    groups = [n // 5 for n in range(500)]
    order = RANDOM.sample(range(500), 500)
    spaced = spread(order, groups)
    assert sorted(spaced) == list(range(500))
    assert least_gap(order, groups) < 10
    assert least_gap(spaced, groups) == 100


def test_groups_of_many_sizes_stand_about_as_far_apart_as_the_largest_allows() -> None:
    groups = [group for group in range(100) for _ in range(1 + group % 10)]
    spaced = spread(RANDOM.sample(range(len(groups)), len(groups)), groups)
    assert least_gap(spaced, groups) >= 0.8 * len(groups) / 10


def test_groups_of_one_example_keep_the_order() -> None:
    assert spread([3, 0, 2, 1], [0, 1, 2, 3]) == [3, 0, 2, 1]


def test_no_step_of_an_epoch_holds_two_examples_of_a_group_whatever_the_number_of_ranks() -> None:
    groups = tuple(n % 40 for n in range(160))
    for ranks in (1, 2):
        schedule = Schedule(160, ranks, TrainConfig(batch_size=8), groups)
        progress = Progress()
        seen = []
        while progress.step < schedule.steps_per_epoch:
            step = [number for rank in range(ranks) for number in schedule.examples(progress, rank)]
            assert len({groups[number] for number in step}) == len(step)
            seen += step
            progress = schedule.after(progress)
        assert sorted(seen) == list(range(160))
