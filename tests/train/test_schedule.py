"""The plan of a run."""

from collections import Counter
from collections.abc import Callable, Sequence

import pytest
import torch
from torch.optim.lr_scheduler import LRScheduler
from transformers import (
    get_constant_schedule_with_warmup,
    get_cosine_schedule_with_warmup,
    get_linear_schedule_with_warmup,
)

from ragray.config import TrainConfig
from ragray.train.schedule import Progress, Schedule, epoch_order


def schedule(num_examples: int, world_size: int = 1, **settings: object) -> Schedule:
    return Schedule(num_examples, world_size, TrainConfig.model_validate(settings))


def planned(plan: Schedule, steps: int, progress: Progress | None = None) -> list[Progress]:
    """Progress before each of some steps, and after the last."""
    found = [progress or Progress()]
    for _ in range(steps):
        found.append(plan.after(found[-1]))
    return found


def seen(plan: Schedule, steps: Sequence[Progress]) -> list[int]:
    return [number for step in steps for rank in range(plan.world_size) for number in plan.examples(step, rank)]


def test_an_epoch_shows_every_example_and_fills_its_last_step_from_its_beginning() -> None:
    plan = schedule(10, batch_size=4)
    numbers = seen(plan, planned(plan, plan.steps_per_epoch)[:-1])
    assert sorted(set(numbers)) == list(range(10))
    assert numbers[10:] == numbers[:2]


def test_ranks_share_a_step_without_overlap() -> None:
    two, one = schedule(64, 2, batch_size=4), schedule(64, 1, batch_size=8)
    for progress in planned(two, 8)[:-1]:
        assert [*two.examples(progress, 0), *two.examples(progress, 1)] == one.examples(progress, 0)


def test_epochs_have_different_orders_and_a_seed_repeats_them() -> None:
    plan, other = schedule(32, batch_size=8), schedule(32, batch_size=8, seed=1)
    steps = planned(plan, 8)
    first, second = seen(plan, steps[:4]), seen(plan, steps[4:8])
    assert first != second
    assert first == seen(schedule(32, batch_size=8), steps[:4])
    assert first != seen(other, steps[:4])


def test_the_examples_are_permuted_once_per_epoch() -> None:
    plan = schedule(1000, 2, batch_size=4)
    epoch_order.cache_clear()
    seen(plan, planned(plan, 2 * plan.steps_per_epoch)[:-1])
    assert epoch_order.cache_info().misses == 2


@pytest.mark.parametrize(
    ("settings", "steps"),
    [({"epochs": 1}, 25), ({"epochs": 0.5}, 12), ({"epochs": 3}, 75), ({"max_steps": 7}, 7), ({"epochs": 0.001}, 1)],
)
def test_epochs_and_max_steps_decide_the_number_of_steps(settings: dict[str, object], steps: int) -> None:
    plan = schedule(100, batch_size=4, **settings)
    assert [plan.num_steps(progress) for progress in planned(plan, steps)] == [steps] * (steps + 1)


def test_the_rate_rises_then_falls_to_nearly_zero() -> None:
    plan = schedule(100, batch_size=1, warmup_ratio=0.1)
    rates = [plan.rate(progress) for progress in planned(plan, 99)]
    assert rates[:10] == pytest.approx([(step + 1) / 10 for step in range(10)])
    assert rates[10:] == sorted(rates[10:], reverse=True)
    assert 0 < rates[-1] < 0.02


@pytest.mark.parametrize("num_examples", [60, 61, 67])
def test_a_change_of_the_number_of_ranks_loses_and_repeats_no_example(num_examples: int) -> None:
    """2 -> 1 -> 2 ranks within an epoch: each example once, but for those that fill up the last step of the epoch."""
    two, one = schedule(num_examples, 2, batch_size=4), schedule(num_examples, 1, batch_size=4)
    first = planned(two, 2)
    second = planned(one, 3, first[-1])
    third = planned(two, two.num_steps(second[-1]) - 5, second[-1])
    numbers = seen(two, first[:-1]) + seen(one, second[:-1]) + seen(two, third[:-1])
    assert numbers[:num_examples] == list(epoch_order(0, 0, num_examples))
    assert numbers[num_examples:] == numbers[: len(numbers) - num_examples]
    assert len(numbers) - num_examples < two.step_size
    assert third[-1].examples_seen == num_examples
    assert two.epoch(third[-1]) == 1


def test_after_a_change_of_the_number_of_ranks_later_epochs_show_each_example_as_often() -> None:
    two, one = schedule(61, 2, batch_size=4, epochs=3), schedule(61, 1, batch_size=4, epochs=3)
    first = planned(two, 11)
    second = planned(one, one.num_steps(first[-1]) - 11, first[-1])
    counts = Counter(seen(two, first[:-1]) + seen(one, second[:-1]))
    assert min(counts[number] for number in range(61)) == 3
    assert sum(counts.values()) < 3 * 61 + two.step_size + 2 * one.step_size


def test_the_learning_rate_goes_on_where_the_number_of_ranks_changes() -> None:
    two, one = schedule(64, 2, batch_size=4, epochs=2), schedule(64, 1, batch_size=4, epochs=2)
    at = planned(two, 6)[-1]
    assert one.num_steps(at) == 6 + 20
    assert one.rate(at) == pytest.approx(two.rate(at), rel=0.05)
    assert one.epoch(at) == two.epoch(at)


def test_max_steps_counts_optimizer_steps_of_any_size() -> None:
    two, one = schedule(64, 2, batch_size=4, max_steps=6), schedule(64, 1, batch_size=4, max_steps=6)
    at = planned(two, 3)[-1]
    assert one.num_steps(at) == 6
    assert one.rate(at) == pytest.approx(two.rate(at))


@pytest.mark.parametrize(
    ("name", "theirs"),
    [
        ("linear", get_linear_schedule_with_warmup),
        ("cosine", get_cosine_schedule_with_warmup),
        ("constant", lambda optimizer, warmup, _: get_constant_schedule_with_warmup(optimizer, warmup)),
    ],
)
@pytest.mark.parametrize("warmup", [{"warmup_steps": 7}, {"warmup_ratio": 0.07}])
def test_a_schedule_is_that_of_transformers_by_its_name(
    name: str, theirs: Callable[..., LRScheduler], warmup: dict[str, object]
) -> None:
    """While it warms up it is one step ahead of theirs, whose first step has the rate zero."""
    plan = schedule(100, batch_size=1, lr_schedule=name, **warmup)
    optimizer = torch.optim.SGD([torch.zeros(1)], lr=1.0)
    scheduler, expected = theirs(optimizer, 7, 100), []
    for _ in range(100):
        expected.append(scheduler.get_last_lr()[0])
        optimizer.step()
        scheduler.step()
    rates = [plan.rate(progress) for progress in planned(plan, 99)]
    assert rates[7:] == pytest.approx(expected[7:], abs=1e-9)
    assert rates[:7] == pytest.approx(expected[1:8])
