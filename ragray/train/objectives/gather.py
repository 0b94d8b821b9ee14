"""Rows of all ranks. In: this rank's rows. Out: those of all ranks, in their order; gradients flow back to the rank of a row."""

from __future__ import annotations

from typing import Any, Protocol

import torch
from torch import Tensor, distributed


class Ranks(Protocol):
    """The ranks of a training, as one of them sees them."""

    @property
    def rank(self) -> int:
        """The number of this rank."""

    def gather(self, rows_N: Tensor) -> Tensor:
        """Return the rows of all ranks, (world size * N, ...), the same on every rank; a collective, which every rank must reach.

        A row's gradient is the sum of those of all ranks' losses. So where the gradients of the weights are averaged over the
        ranks, they are those of the mean of the losses: what one rank with all rows computes.
        """


class AllRanks:
    """The ranks of torch.distributed's default group; one rank where there is none."""

    @property
    def rank(self) -> int:
        """The number of this rank."""
        return distributed.get_rank() if distributed.is_initialized() else 0

    def gather(self, rows_N: Tensor) -> Tensor:
        """Return the rows of all ranks."""
        if not distributed.is_initialized():
            return rows_N
        gathered: Tensor = _Gather.apply(rows_N)  # type: ignore[no-untyped-call] # torch leaves it untyped
        return gathered


class _Gather(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, rows_N: Tensor) -> Tensor:
        parts = [torch.empty_like(rows_N) for _ in range(distributed.get_world_size())]
        distributed.all_gather(parts, rows_N.contiguous())
        ctx.num_rows = len(rows_N)
        return torch.cat(parts)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        total = gradients[0].clone(memory_format=torch.contiguous_format)
        distributed.all_reduce(total)
        start = distributed.get_rank() * ctx.num_rows
        return total[start : start + ctx.num_rows]
