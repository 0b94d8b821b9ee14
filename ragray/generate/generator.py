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

    def generate(self, requests: Sequence[GenerationRequest], samplings: Sequence[Sampling] = ()) -> list[Generation]:
        """Answer several requests, as many side by side as the engine allows; ``samplings``: one for each, none for greedy decoding.

        Raises:
            InputError: a question is too long.
            ModelError: the model's output is not finite.
        """
        # Those of like length are written together, so that little is padded.
        order = sorted(range(len(requests)), key=lambda number: (len(requests[number].hits), _length(requests[number])))
        how = [samplings[number] for number in order] if samplings else ()
        pieces = stream(Engine(self.open_runner), [requests[number] for number in order], how)
        done = {order[place]: piece for place, piece in pieces if isinstance(piece, Generation)}
        return [done[number] for number in range(len(requests))]

    def stream(self, request: GenerationRequest, sampling: Sampling = GREEDY) -> Iterator[Piece]:
        """Yield the answer piece by piece as it is written, then, last, the whole `Generation`; raises as `generate` does."""
        return (piece for _, piece in stream(Engine(self.open_runner), [request], [sampling]))


def _length(request: GenerationRequest) -> int:
    return max((len(hit.passage.text) for hit in request.hits), default=0) + len(request.question)
