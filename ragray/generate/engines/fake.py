"""A generator without weights. In: questions with their passages. Out: the first sentence of the best passage, word by word."""

from __future__ import annotations

from collections.abc import Mapping

from ragray.errors import InputError
from ragray.generate.answer.markers import with_known_numbers
from ragray.generate.answer.stop import before_stop
from ragray.generate.engine import Generation, GenerationRequest, Piece, Sampling, Submission, Usage
from ragray.generate.generator import Generator
from ragray.types import FinishReason


class FirstSentenceGenerator(Generator):
    """Answers with the first sentence of the best passage, or "I do not know." without one; with ``numbered`` it cites `[1]`."""

    def __init__(self, *, numbered: bool = False) -> None:
        self._numbered = numbered

    def check(self, question: str, instruction: str = "") -> None:
        """Accept every question."""

    def open_runner(self) -> FirstSentenceRunner:
        """Begin an empty batch."""
        return FirstSentenceRunner(numbered=self._numbered)


class FirstSentenceRunner:
    """Answers that are written side by side, one word of each per step."""

    max_running = 8
    gives_logits = False
    joinable = True

    def __init__(self, *, numbered: bool = False) -> None:
        self._numbered = numbered
        self._rest: dict[int, list[str]] = {}
        self._whole: dict[int, Generation] = {}

    def __len__(self) -> int:
        """Return the number of answers that are being written."""
        return len(self._rest)

    def add(self, requests: Mapping[int, Submission]) -> Mapping[int, InputError]:
        """Let requests join; none is refused."""
        for key, submission in requests.items():
            self._whole[key] = whole = _answer(submission.request, submission.sampling, numbered=self._numbered)
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


def _answer(request: GenerationRequest, sampling: Sampling, *, numbered: bool) -> Generation:
    """Make an answer whose tokens are its words."""
    texts = [hit.passage.text for hit in request.hits]
    whole = f"{texts[0].partition('. ')[0].removesuffix('.')}." if texts else "I do not know."
    if numbered and texts:
        whole = f"{with_known_numbers(whole, 0)} [1]"
    words = whole.split(" ")[: sampling.max_new_tokens]
    text, stopped = before_stop(" ".join(words), sampling.stop)
    reason: FinishReason = "stop" if stopped or " ".join(words) == whole else "length"
    weights = tuple(float(number == 0) for number in range(len(texts)))
    said = (request.instruction, *(turn.text for turn in request.history), request.question)
    num_read = sum(len(part.split()) for part in (*said, *texts))
    return Generation(
        text.strip(), weights, finish_reason=reason, usage=Usage(num_read, len(text.split())), numbered=numbered
    )
