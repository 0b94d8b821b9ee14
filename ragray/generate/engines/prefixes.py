"""Prompts that were read lately. In: a prompt. Out: what a model keeps of the longest beginning that another one shares with it.

Keys and values of a token depend on the tokens before it alone, so that prompts with the same instruction, or with the same passage,
share them. T tokens, H heads, D head size.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

MAX_BYTES = 512 << 20
"""Of keys and values that are kept: 58 prompts of 200 tokens of SmolLM2-135M, in float32."""

MIN_SHARED = 16
"""Shared tokens from which on they are worth a copy."""

Layers = Sequence[tuple[Tensor, Tensor]]
"""Keys and values of each layer, (H, T, D)."""


@dataclass(frozen=True, slots=True)
class Shared:
    """A beginning that has been read: so many tokens, and the layers of the prompt that it is from."""

    num_tokens: int = 0
    layers: Layers = ()


class ReadPrompts:
    """Keeps the prompts that were used last, within `MAX_BYTES`; all are of one model."""

    def __init__(self, max_bytes: int = MAX_BYTES) -> None:
        self._max_bytes = max_bytes
        self._kept: OrderedDict[tuple[int, ...], Layers] = OrderedDict()
        self._bytes = 0
        self.usable: bool | None = None
        """Whether the model's cache keeps every key of every layer, as `Rows.joinable` says; None until it has read a prompt."""

    def __len__(self) -> int:
        return len(self._kept)

    def find(self, prompt: Sequence[int]) -> Shared:
        """Return the longest beginning of a prompt that has been read, less its last token, whose output is wanted."""
        num, best = max(((shared(prompt[:-1], kept), kept) for kept in self._kept), default=(0, ()))
        if num < MIN_SHARED:
            return Shared()
        self._kept.move_to_end(best)
        return Shared(num, self._kept[best])

    def keep(self, prompt: Sequence[int], layers: Layers) -> None:
        """Keep a prompt that was read; those that were not used for longest go."""
        size = sum(part.nbytes for layer in layers for part in layer)
        if tuple(prompt) in self._kept or size > self._max_bytes:
            return
        self._kept[tuple(prompt)] = layers
        self._bytes += size
        while self._bytes > self._max_bytes:
            _, gone = self._kept.popitem(last=False)
            self._bytes -= sum(part.nbytes for layer in gone for part in layer)


def shared(one: Sequence[int], other: Sequence[int]) -> int:
    """Return the number of tokens that two prompts begin with alike."""
    pairs = zip(one, other, strict=False)
    return next((place for place, (a, b) in enumerate(pairs) if a != b), min(len(one), len(other)))


def in_turn(prompts: Sequence[Sequence[int]], known: Sequence[int]) -> tuple[list[int], list[int]]:
    """Divide prompts into those to be read first, and those that share more with one of these than the ``known`` tokens each."""
    first: list[int] = []
    later: list[int] = []
    for number, prompt in enumerate(prompts):
        best = max((shared(prompt[:-1], prompts[other]) for other in first), default=0)
        (later if best >= known[number] + MIN_SHARED else first).append(number)
    return first, later
