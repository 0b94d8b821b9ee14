"""A generator without weights. In: questions with their passages. Out: the first sentence of the best passage, word by word."""

from __future__ import annotations

from collections.abc import Mapping

from ragray.errors import InputError
from ragray.generate.engine import Generation, GenerationRequest, Piece, Submission, Usage
from ragray.generate.generator import Generator


class FirstSentenceGenerator(Generator):
    """Answers with the first sentence of the best passage, or "I do not know." without one."""

    def check(self, question: str) -> None:
        """Accept every question."""

    def open_runner(self) -> FirstSentenceRunner:
        """Begin an empty batch."""
        return FirstSentenceRunner()


class FirstSentenceRunner:
    """Answers that are written side by side, one word of each per step."""

    max_running = 8
    gives_logits = False
    joinable = True

    def __init__(self) -> None:
        self._rest: dict[int, list[str]] = {}
        self._whole: dict[int, Generation] = {}

    def __len__(self) -> int:
        """Return the number of answers that are being written."""
        return len(self._rest)

    def add(self, requests: Mapping[int, Submission]) -> Mapping[int, InputError]:
        """Let requests join; none is refused."""
        for key, submission in requests.items():
            self._whole[key] = whole = _answer(submission.request)
            first, *rest = whole.text.split(" ")
            self._rest[key] = [first, *(f" {word}" for word in rest)]
        return {}

    def remove(self, key: int) -> None:
        """Let a request leave."""
        self._rest.pop(key, None)
        self._whole.pop(key, None)

    def step(self) -> list[tuple[int, Piece]]:
        """Write a word of every answer."""
        pieces: list[tuple[int, Piece]] = []
        for key, words in list(self._rest.items()):
            pieces.append((key, words.pop(0)))
            if not words:
                del self._rest[key]
                pieces.append((key, self._whole.pop(key)))
        return pieces


def _answer(request: GenerationRequest) -> Generation:
    texts = [hit.passage.text for hit in request.hits]
    text = f"{texts[0].partition('. ')[0].removesuffix('.')}." if texts else "I do not know."
    weights = tuple(float(number == 0) for number in range(len(texts)))
    num_read = sum(len(part.split()) for part in (request.question, *texts))
    return Generation(text, weights, usage=Usage(num_read, len(text.split(" "))))
