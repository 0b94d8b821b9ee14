"""Rows of all ranks: the same as one rank has, gradients included. Two processes, forked."""

import multiprocessing
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import distributed

from ragray.train.objectives.gather import AllRanks

ROWS = torch.arange(8.0).reshape(4, 2)


def loss_of(pool: torch.Tensor, first: int, count: int) -> torch.Tensor:
    """A loss of some rows that depends on all of them: a mean over these."""
    return (pool[first : first + count] @ pool.T).sin().sum() / count


def work(rank: int, store: str, results: Any) -> None:
    torch.set_num_threads(1)
    distributed.init_process_group("gloo", store=distributed.FileStore(store, 2), rank=rank, world_size=2)
    own = ROWS[2 * rank : 2 * rank + 2].clone().requires_grad_()
    ranks = AllRanks()
    pool = ranks.gather(own)
    loss_of(pool, 2 * ranks.rank, 2).backward()
    results.put((rank, pool.tolist(), own.grad.tolist()))  # type: ignore[union-attr] # it has one by now


def test_two_ranks_have_the_gradients_of_one_with_all_rows(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    results = context.Queue()
    processes = [context.Process(target=work, args=(rank, str(tmp_path / "store"), results)) for rank in range(2)]
    for process in processes:
        process.start()
    found = sorted(results.get(timeout=60) for _ in processes)
    for process in processes:
        process.join(timeout=60)
    whole = ROWS.clone().requires_grad_()
    (loss_of(whole, 0, 4)).backward()
    assert whole.grad is not None
    for rank, pool, gradient in found:
        assert pool == ROWS.tolist()
        mean_of_ranks = torch.tensor(gradient) / 2  # as DistributedDataParallel does for the weights below
        torch.testing.assert_close(mean_of_ranks, whole.grad[2 * rank : 2 * rank + 2])


def test_one_rank_keeps_its_rows() -> None:
    assert AllRanks().gather(ROWS) is ROWS
    assert AllRanks().rank == 0


@pytest.fixture(autouse=True)
def _no_group_is_left() -> None:
    assert not distributed.is_initialized()
