"""The choice of a token. In: log-probabilities of the next token. Out: the most probable one, or one drawn as `Sampling` says.

V vocabulary.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ragray.generate.engine import GREEDY, Sampling


class TokenChooser:
    """Chooses the tokens of one answer, with random numbers of its own, so that others in the batch change nothing."""

    def __init__(self, sampling: Sampling) -> None:
        self._temperature = sampling.temperature
        self._top_p = sampling.top_p
        self._random: torch.Generator | None = None
        if sampling.temperature:
            self._random = torch.Generator()
            self._random.manual_seed(self._random.seed() if sampling.seed is None else sampling.seed)

    def __call__(self, logp_V: Tensor) -> int:
        """Return the next token."""
        if not self._temperature:
            return int(logp_V.argmax())
        p_V = nucleus((logp_V.double().cpu() / self._temperature).softmax(-1), self._top_p)
        return int(torch.multinomial(p_V, 1, generator=self._random))


def nucleus(p_V: Tensor, top_p: float) -> Tensor:
    """Keep the smallest set of the most probable tokens whose probabilities sum to ``top_p`` or more; zero for all others.

    Holtzman et al. 2020, The Curious Case of Neural Text Degeneration, section 3.1.
    """
    if top_p >= 1:
        return p_V
    sorted_V, order_V = p_V.sort(descending=True, stable=True)
    kept_V = sorted_V.cumsum(-1) - sorted_V < top_p
    return torch.zeros_like(p_V).scatter(0, order_V[kept_V], sorted_V[kept_V])


GREEDILY = TokenChooser(GREEDY)
"""The most probable token."""
