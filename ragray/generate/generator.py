"""The port `Generator`. In: questions with their passages. Out: answers, with each passage's share in them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from ragray.types import FinishReason, Hit


@dataclass(frozen=True, slots=True)
class Prompt:
    """A question and the passages it is to be answered from, best first; without passages it is asked closed-book."""

    question: str
    hits: tuple[Hit, ...] = ()


@dataclass(frozen=True, slots=True)
class Generation:
    """A generated text, p(passage | question, text) for every passage of the prompt, log p(text | question), and why it ends."""

    text: str
    weights: tuple[float, ...] = ()
    log_prob: float = 0.0
    finish_reason: FinishReason = "stop"


class GenerationBatch(Protocol):
    """Answers that are written side by side, a token each a step. Questions join and leave between two steps."""

    @property
    def room(self) -> int:
        """How many further questions may join now."""

    def __len__(self) -> int:
        """Return the number of questions whose answers are being written."""

    def add(self, prompts: Mapping[int, Prompt]) -> None:
        """Let questions join, each under a key of the caller's.

        Raises:
            InputError: one of the questions is too long; none of them has joined.
            ModelError: the model's output is not finite.
        """

    def remove(self, key: int) -> None:
        """Let a question leave before its answer is finished; nothing happens where it has left already."""

    def step(self) -> list[tuple[int, str | Generation]]:
        """Write a token of every answer; return the text that came to each, and of those that are finished the whole, last."""


class Generator(Protocol):
    """Writes answers."""

    def check(self, question: str) -> None:
        """Raise `InputError`, which names the limit, where a question is too long for the model."""

    def open_batch(self) -> GenerationBatch:
        """Begin a batch that questions may join."""

    def generate(self, prompts: Sequence[Prompt]) -> list[Generation]:
        """Answer several prompts together; raises as `GenerationBatch.add` does."""

    def stream(self, prompt: Prompt) -> Iterator[str | Generation]:
        """Yield the answer piece by piece as it is written, then, last, the whole `Generation`."""


def stream_alone(generator: Generator, prompt: Prompt) -> Iterator[str | Generation]:
    """Stream one answer from a batch of its own."""
    batch = generator.open_batch()
    batch.add({0: prompt})
    while len(batch):
        for _, piece in batch.step():
            yield piece


def generate_together(generator: Generator, prompts: Sequence[Prompt]) -> list[Generation]:
    """Answer prompts in one batch that all of them join at once."""
    batch = generator.open_batch()
    batch.add(dict(enumerate(prompts)))
    done: dict[int, Generation] = {}
    while len(batch):
        done.update({key: piece for key, piece in batch.step() if isinstance(piece, Generation)})
    return [done[number] for number in range(len(prompts))]
