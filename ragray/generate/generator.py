"""The port `Generator`. In: questions with their passages. Out: answers, with each passage's share in them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence

from ragray.generate.engine import Engine, Generation, GenerationRequest, Piece, Runner, stream


class Generator(ABC):
    """A loaded model, of which any number of batches may be opened, one in use at a time."""

    @abstractmethod
    def check(self, question: str) -> None:
        """Raise `InputError`, which names the limit, where a question is too long for the model."""

    @abstractmethod
    def open_runner(self) -> Runner:
        """Begin an empty batch."""

    def generate(self, requests: Sequence[GenerationRequest]) -> list[Generation]:
        """Answer several requests, as many side by side as the engine allows.

        Raises:
            InputError: a question is too long.
            ModelError: the model's output is not finite.
        """
        # Those of like length are written together, so that little is padded.
        order = sorted(range(len(requests)), key=lambda number: (len(requests[number].hits), _length(requests[number])))
        pieces = stream(Engine(self.open_runner), [requests[number] for number in order])
        done = {order[place]: piece for place, piece in pieces if isinstance(piece, Generation)}
        return [done[number] for number in range(len(requests))]

    def stream(self, request: GenerationRequest) -> Iterator[Piece]:
        """Yield the answer piece by piece as it is written, then, last, the whole `Generation`; raises as `generate` does."""
        return (piece for _, piece in stream(Engine(self.open_runner), [request]))


def _length(request: GenerationRequest) -> int:
    return max((len(hit.passage.text) for hit in request.hits), default=0) + len(request.question)
