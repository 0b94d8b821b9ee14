"""The port `Generator`. In: questions with their passages. Out: answers, with each passage's share in them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence

from ragray.generate.engine import GREEDY, Engine, Generation, GenerationRequest, Piece, Runner, Sampling, stream


class Generator(ABC):
    """A loaded model, of which any number of batches may be opened, one in use at a time."""

    @abstractmethod
    def check(self, question: str, instruction: str = "") -> None:
        """Raise `InputError`, which names the limit, where a question with its instruction ("": the usual) is too long."""

    @abstractmethod
    def open_runner(self) -> Runner:
        """Begin an empty batch."""

    def order(self, request: GenerationRequest) -> tuple[object, ...]:
        """Return what requests are sorted by before they are answered; here those with the same passages come together.

        An engine may keep what it has read, and prompts with the same passage begin alike.
        """
        return len(request.hits), [hit.passage.id for hit in request.hits], _length(request)

    def generate(self, requests: Sequence[GenerationRequest], samplings: Sequence[Sampling] = ()) -> list[Generation]:
        """Answer several requests, as many side by side as the engine allows; ``samplings``: one for each, none for greedy decoding.

        Raises:
            InputError: a question is too long.
            ModelError: the model's output is not finite.
        """
        order = sorted(range(len(requests)), key=lambda number: self.order(requests[number]))
        how = [samplings[number] for number in order] if samplings else ()
        pieces = stream(Engine(self.open_runner), [requests[number] for number in order], how)
        done = {order[place]: piece for place, piece in pieces if isinstance(piece, Generation)}
        return [done[number] for number in range(len(requests))]

    def stream(self, request: GenerationRequest, sampling: Sampling = GREEDY) -> Iterator[Piece]:
        """Yield the answer piece by piece as it is written, then, last, the whole `Generation`; raises as `generate` does."""
        return (piece for _, piece in stream(Engine(self.open_runner), [request], [sampling]))


def by_length(request: GenerationRequest) -> tuple[object, ...]:
    """Return an order in which requests of like length come together, so that little is padded."""
    return len(request.hits), _length(request)


def _length(request: GenerationRequest) -> int:
    return max((len(hit.passage.text) for hit in request.hits), default=0) + len(request.question)
