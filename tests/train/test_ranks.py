"""Several ranks, as threads of this process: they equal one, and their number may change between resumes."""

from collections import Counter
from pathlib import Path

import pytest
import torch

from ragray.train.schedule import Rank
from tests.train.rig import EXAMPLES, Ranks, Rig


@pytest.fixture(scope="module")
def rig(tiny_decoder: Path, tiny_encoder: Path, tiny_encoder_index: Path) -> Rig:
    return Rig(tiny_decoder, tiny_encoder, tiny_encoder_index)


def weights(ranks: Ranks, number: int = 0) -> dict[str, torch.Tensor]:
    return {name: parameter.detach() for name, parameter in ranks.loops[number].components.trainable()}


def losses(ranks: Ranks, **stop: object) -> list[float]:
    """Mean loss of every step over all ranks."""
    steps = ranks.run(**stop)  # type: ignore[arg-type] # passed on as it came
    return [sum(step.loss for step in row) / len(row) for row in zip(*steps, strict=True)]


def assert_close(first: Ranks, second: Ranks) -> None:
    for name, value in weights(first).items():
        torch.testing.assert_close(value, weights(second)[name], rtol=0, atol=2e-3)


def test_two_ranks_equal_one_with_the_doubled_batch(rig: Rig) -> None:
    one, two = rig.ranks(1, batch_size=4), rig.ranks(2, batch_size=2)
    assert losses(two) == pytest.approx(losses(one), rel=1e-3)
    assert_close(two, one)
    for name, value in weights(two).items():
        assert torch.equal(value, weights(two, 1)[name])


def test_two_ranks_of_together_equal_one_with_the_doubled_batch_also_where_an_epoch_does_not_divide(rig: Rig) -> None:
    """What is drawn for a prompt depends on the epoch and the example, not on the rank; 11 examples in steps of 4, two epochs."""
    one = rig.ranks(1, together=True, batch_size=4, max_steps=6)
    two = rig.ranks(2, together=True, batch_size=2, max_steps=6)
    assert losses(two) == pytest.approx(losses(one), rel=1e-3)
    assert_close(two, one)


def test_ranks_that_change_within_the_same_global_batch_change_nothing(rig: Rig, tmp_path: Path) -> None:
    """2 -> 1 -> 2 ranks of 4 examples per step; the question encoder is fixed, so that a retrieval made anew finds the same."""
    settings = {"encoder_lr": 0, "batch_size": 2}
    whole = rig.ranks(1, gradient_accumulation=2, **settings)
    expected = losses(whole)
    first, middle = rig.ranks(2, **settings), rig.ranks(1, gradient_accumulation=2, **settings)
    found = losses(first, stop_at=2, folder=tmp_path)
    middle.restore(tmp_path)
    found += losses(middle, stop_at=4, folder=tmp_path)
    last = rig.ranks(2, **settings)
    last.restore(tmp_path)
    found += losses(last)
    assert found == pytest.approx(expected, rel=1e-3)
    assert_close(last, whole)


def test_ranks_that_change_see_every_example_of_an_epoch_once_and_the_loss_goes_on(rig: Rig, tmp_path: Path) -> None:
    """2 -> 1 -> 2 ranks of 2 examples each: 4, then 2, then 4 examples per step."""
    seen: list[str] = []
    settings = {"epochs": 1, "max_steps": 0, "seen": seen}
    examples = [*EXAMPLES, *(EXAMPLES[0].__class__(f"more{n}", f"and number {n}?", ("red",)) for n in range(4))]
    settings["examples"] = examples
    first = rig.ranks(2, **settings)
    before = first.run(stop_at=1, folder=tmp_path)
    middle = rig.ranks(1, **settings)
    middle.restore(tmp_path)
    for name, value in weights(middle).items():
        assert torch.equal(value, weights(first)[name])
    between = middle.run(stop_at=3, folder=tmp_path)
    last = rig.ranks(2, **settings)
    last.restore(tmp_path)
    after = last.run()
    assert [[step.step for step in steps] for steps in (*before, *between, *after)] == [[1]] * 2 + [[2, 3]] + [
        [4, 5]
    ] * 2
    assert Counter(seen) == Counter(example.id for example in examples)
    assert [round(step.epoch, 3) for step in after[0]] == [0.75, 1.0]
    assert last.loops[0].num_steps == 5


def test_a_checkpoint_of_two_ranks_loads_on_each_of_three(rig: Rig, tmp_path: Path) -> None:
    """Weights and the optimizer's state are the same on all ranks."""
    first = rig.ranks(2)
    first.run(stop_at=2, folder=tmp_path)
    expected = [first.loops[0].optimizer.state[p]["exp_avg"] for _, p in first.loops[0].components.trainable()]
    for number in range(3):
        loop = rig.loop(rank=Rank(number, 3))
        loop.restore(tmp_path)
        found = [loop.optimizer.state[parameter]["exp_avg"] for _, parameter in loop.components.trainable()]
        for mine, theirs in zip(found, expected, strict=True):
            assert torch.equal(mine, theirs)
        assert (loop.progress.step, loop.progress.examples_seen) == (2, 8)
