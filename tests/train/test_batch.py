"""The plan of a run."""

import pytest

from ragray.config import TrainConfig
from ragray.train.batch import Schedule


def schedule(num_examples: int, num_workers: int = 1, **settings: object) -> Schedule:
    return Schedule(num_examples, num_workers, TrainConfig.model_validate(settings))


def test_an_epoch_shows_every_example_and_fills_its_last_step_from_its_beginning() -> None:
    plan = schedule(10, batch_size=4)
    seen = [number for step in range(plan.steps_per_epoch) for number in plan.examples(step, 0)]
    assert sorted(set(seen)) == list(range(10))
    assert seen[10:] == seen[:2]


def test_workers_share_a_step_without_overlap() -> None:
    two, one = schedule(64, num_workers=2, batch_size=4), schedule(64, num_workers=1, batch_size=8)
    for step in range(8):
        assert [*two.examples(step, 0), *two.examples(step, 1)] == one.examples(step, 0)


def test_epochs_have_different_orders_and_a_seed_repeats_them() -> None:
    plan = schedule(32, batch_size=8)
    first, second = ([plan.examples(step + epoch * 4, 0) for step in range(4)] for epoch in (0, 1))
    assert first != second
    assert first == [schedule(32, batch_size=8).examples(step, 0) for step in range(4)]
    assert first != [schedule(32, batch_size=8, seed=1).examples(step, 0) for step in range(4)]


@pytest.mark.parametrize(
    ("settings", "steps"),
    [({"epochs": 1}, 25), ({"epochs": 0.5}, 12), ({"epochs": 3}, 75), ({"max_steps": 7}, 7), ({"epochs": 0.001}, 1)],
)
def test_epochs_and_max_steps_decide_the_number_of_steps(settings: dict[str, object], steps: int) -> None:
    assert schedule(100, batch_size=4, **settings).num_steps == steps


def test_the_rate_rises_then_falls_to_nearly_zero() -> None:
    plan = schedule(100, batch_size=1, warmup_ratio=0.1)
    rates = [plan.rate(step) for step in range(100)]
    assert rates[:10] == pytest.approx([(step + 1) / 10 for step in range(10)])
    assert rates[10:] == sorted(rates[10:], reverse=True)
    assert 0 < rates[-1] < 0.02
