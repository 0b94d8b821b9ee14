"""A generator without weights. In: questions with their passages. Out: the first sentence of the best passage, word by word."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from ragray.generate.generator import Generation, Prompt, generate_together, stream_alone

BATCH_SIZE = 8


class FirstSentenceGenerator:
    """Answers with the first sentence of the best passage, or "I do not know." without one."""

    def check(self, question: str) -> None:
        """Accept every question."""

    def open_batch(self) -> FirstSentenceBatch:
        """Begin a batch that questions may join."""
        return FirstSentenceBatch()

    def generate(self, prompts: Sequence[Prompt]) -> list[Generation]:
        """Answer several prompts together."""
        return generate_together(self, prompts)

    def stream(self, prompt: Prompt) -> Iterator[str | Generation]:
        """Yield the answer word by word, then the whole."""
        return stream_alone(self, prompt)


class FirstSentenceBatch:
    """Answers that are written side by side, a word each a step."""

    def __init__(self) -> None:
        self._rest: dict[int, list[str]] = {}
        self._whole: dict[int, Generation] = {}

    @property
    def room(self) -> int:
        """How many further questions may join now."""
        return BATCH_SIZE - len(self._rest)

    def __len__(self) -> int:
        return len(self._rest)

    def add(self, prompts: Mapping[int, Prompt]) -> None:
        """Let questions join."""
        for key, prompt in prompts.items():
            self._whole[key] = whole = _answer(prompt)
            first, *rest = whole.text.split(" ")
            self._rest[key] = [first, *(f" {word}" for word in rest)]

    def remove(self, key: int) -> None:
        """Let a question leave."""
        self._rest.pop(key, None)

    def step(self) -> list[tuple[int, str | Generation]]:
        """Write a word of every answer."""
        pieces: list[tuple[int, str | Generation]] = []
        for key, words in list(self._rest.items()):
            pieces.append((key, words.pop(0)))
            if not words:
                del self._rest[key]
                pieces.append((key, self._whole.pop(key)))
        return pieces


def _answer(prompt: Prompt) -> Generation:
    if not prompt.hits:
        return Generation("I do not know.")
    first = prompt.hits[0].passage.text.partition(". ")[0].removesuffix(".")
    return Generation(first + ".", weights=(1.0, *(0.0 for _ in prompt.hits[1:])))
