"""Questions to answers. In: a retriever and a generator, whichever they are. Out: answers with their sources."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from ragray.generate.generator import Generation, Generator, Prompt
from ragray.retrieve.retriever import Retriever
from ragray.text.checks import require_text
from ragray.types import Answer, Citation


class Pipeline:
    """Retrieves, then generates. Without a retriever every question is answered closed-book."""

    def __init__(self, retriever: Retriever | None, generator: Generator, *, k: int) -> None:
        self._retriever = retriever
        self._generator = generator
        self._k = k

    def answer(self, questions: Sequence[str]) -> list[Answer]:
        """Answer several questions together.

        Raises:
            InputError: a question is blank or cannot be written as UTF-8.
        """
        prompts = self.prompts(questions)
        generations = self._generator.generate(prompts)
        return [to_answer(prompt, done, self._snapshot) for prompt, done in zip(prompts, generations, strict=True)]

    def stream(self, question: str) -> Iterator[str | Answer]:
        """Yield one answer piece by piece, then, last, the whole `Answer`."""
        [prompt] = self.prompts([question])
        for piece in self._generator.stream(prompt):
            yield to_answer(prompt, piece, self._snapshot) if isinstance(piece, Generation) else piece

    def prompts(self, questions: Sequence[str]) -> list[Prompt]:
        """Retrieve for every question, after all are checked as `answer` says."""
        for number, question in enumerate(questions):
            require_text(question, f"question {number}")
        if self._retriever is None:
            return [Prompt(question) for question in questions]
        found = self._retriever.search(questions, self._k)
        return [Prompt(question, tuple(hits)) for question, hits in zip(questions, found, strict=True)]

    @property
    def _snapshot(self) -> str:
        return self._retriever.snapshot if self._retriever else ""


def to_answer(prompt: Prompt, generation: Generation, snapshot: str) -> Answer:
    """Join a generation with the passages it was written from, best supported first."""
    cited = [Citation(hit, weight) for hit, weight in zip(prompt.hits, generation.weights, strict=True)]
    ranked = sorted(cited, key=lambda citation: -citation.weight)
    return Answer(
        prompt.question, generation.text, tuple(ranked), generation.log_prob, snapshot, generation.finish_reason
    )
