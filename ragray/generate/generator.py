"""The port `Generator`. In: questions with their passages. Out: answers, with each passage's share in them. With a fake."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from ragray.types import Hit


@dataclass(frozen=True, slots=True)
class Prompt:
    """A question and the passages it is to be answered from, best first; without passages it is asked closed-book."""

    question: str
    hits: tuple[Hit, ...] = ()


@dataclass(frozen=True, slots=True)
class Generation:
    """A generated text, p(passage | question, text) for every passage of the prompt, and log p(text | question)."""

    text: str
    weights: tuple[float, ...] = ()
    log_prob: float = 0.0


class Generator(Protocol):
    """Writes answers."""

    def generate(self, prompts: Sequence[Prompt]) -> list[Generation]:
        """Answer several prompts together."""

    def stream(self, prompt: Prompt) -> Iterator[str | Generation]:
        """Yield the answer piece by piece as it is written, then, last, the whole `Generation`."""


class FirstSentenceGenerator:
    """A fake generator: answers with the first sentence of the best passage, or "I do not know." without one."""

    def generate(self, prompts: Sequence[Prompt]) -> list[Generation]:
        """Answer several prompts together."""
        return [self._answer(prompt) for prompt in prompts]

    def stream(self, prompt: Prompt) -> Iterator[str | Generation]:
        """Yield the answer word by word, then the whole."""
        whole = self._answer(prompt)
        for number, word in enumerate(whole.text.split(" ")):
            yield word if number == 0 else f" {word}"
        yield whole

    def _answer(self, prompt: Prompt) -> Generation:
        if not prompt.hits:
            return Generation("I do not know.")
        first = prompt.hits[0].passage.text.partition(". ")[0].removesuffix(".")
        return Generation(first + ".", weights=(1.0, *(0.0 for _ in prompt.hits[1:])))
