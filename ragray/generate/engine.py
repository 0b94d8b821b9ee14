"""The engine. In: requests, as they are submitted. Out: their answers as they are written, side by side.

An `Engine` joins a `Scheduler`, which decides who is in the batch, with a `Runner`, which holds the model.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol

from ragray.errors import InputError
from ragray.generate.scheduler import Scheduler
from ragray.types import FinishReason, Hit


@dataclass(frozen=True, slots=True)
class Turn:
    """What was said earlier in a conversation, and by whom."""

    role: Literal["user", "assistant"]
    text: str


@dataclass(frozen=True, slots=True)
class GenerationRequest:
    """A question and the passages it is to be answered from, best first; without passages it is asked closed-book.

    ``history`` is what was said before it, oldest first; ``instruction`` replaces that of the prompt template, unless it is empty.
    """

    question: str
    hits: tuple[Hit, ...] = ()
    history: tuple[Turn, ...] = ()
    instruction: str = ""


@dataclass(frozen=True, slots=True)
class Sampling:
    """How an answer is written: token by token, at most ``max_new_tokens`` of them.

    Each token is the most probable one; with a ``temperature`` T above 0 it is drawn from p^(1/T), of which ``top_p`` keeps the
    smallest set of tokens with at least that probability. The same ``seed`` gives the same draws, None gives others each time.

    ``max_new_tokens`` None is the engine's own limit (``generate.max_new_tokens``), which bounds every other number: prompts are cut
    to leave so much. The answer ends before the first of the texts ``stop`` that would occur in it.
    """

    max_new_tokens: int | None = None
    stop: tuple[str, ...] = ()
    temperature: float = 0.0
    top_p: float = 1.0
    seed: int | None = None


GREEDY = Sampling()


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens of all prompts of a request, and tokens that its answer consists of; the end token is not counted."""

    prompt_tokens: int = 0
    new_tokens: int = 0

    @property
    def total(self) -> int:
        """All of them."""
        return self.prompt_tokens + self.new_tokens


@dataclass(frozen=True, slots=True)
class Generation:
    """A generated text, the share of each passage that was read for it, log p(text | question), and why it ends.

    ``weights`` are those of the first passages of the request; the others did not fit. ``numbered``: ``[n]`` in the text names the
    n-th of them, and no other number stands there so.
    """

    text: str
    weights: tuple[float, ...] = ()
    log_prob: float = 0.0
    finish_reason: FinishReason = "stop"
    usage: Usage = field(default=Usage(), compare=False)
    numbered: bool = False


Piece = str | Generation
"""A text that came to an answer; or, last, the whole answer."""


@dataclass(slots=True, eq=False)
class Submission:
    """A request that waits or is being answered; ``cancelled`` may be set at any time, from any thread."""

    request: GenerationRequest
    sampling: Sampling = GREEDY
    cancelled: bool = False


class Runner(Protocol):
    """A model and the batch of answers that it is writing: one token of each per step."""

    max_running: int
    """How many answers may be written side by side."""

    gives_logits: bool
    """Whether the model gives the probabilities of the next token, which `AnswerStrategy.needs_logits` may ask for."""

    @property
    def joinable(self) -> bool:
        """Whether requests can join those that are being answered; an empty batch can always be joined."""

    def add(self, requests: Mapping[int, Submission]) -> Mapping[int, InputError]:
        """Let requests join, each under a key of the caller's; return why those were refused that did not join.

        Raises:
            ModelError: the model's output is not finite.
        """

    def remove(self, key: int) -> None:
        """Let a request leave before its answer is finished; nothing happens where it has left already."""

    def step(self) -> list[tuple[int, Piece]]:
        """Write a token of every answer. Return the text that came to each; the whole of one that is finished comes last.

        Raises:
            ModelError: the model's output is not finite.
        """


class Engine:
    """Answers requests side by side. `submit` may be called from any thread, all else from one."""

    def __init__(self, open_runner: Callable[[], Runner]) -> None:
        """Take what opens an empty runner; after an error the next step opens another, as the batch may be damaged then."""
        self._open_runner = open_runner
        runner = open_runner()
        self._runner: Runner | None = runner
        self._scheduler = Scheduler[Submission](runner.max_running)

    def __len__(self) -> int:
        """Return the number of requests that wait or are being answered."""
        return len(self._scheduler)

    @property
    def num_running(self) -> int:
        """Number of requests in the batch."""
        return self._scheduler.num_running

    def submit(self, request: GenerationRequest, sampling: Sampling = GREEDY) -> Submission:
        """Queue a request; what comes of it is returned by `step`, until it is cancelled."""
        submission = Submission(request, sampling)
        self._scheduler.submit(submission)
        return submission

    def step(self) -> list[tuple[Submission, Piece | Exception]]:
        """Let requests leave and join, and write a token of every answer; return what came of each request.

        An error is the last that comes of a request. `InputError` of one that joins is its own; any other error is that of all in
        the batch, those that join included: it may have come while their rows were put beside the others. Where no runner can be
        opened, all that wait are told why.
        """
        scheduler = self._scheduler
        try:
            runner = self._runner = self._open_runner() if self._runner is None else self._runner
        except Exception as err:
            return [(submission, err) for submission in scheduler.close()]
        for key in scheduler.leave():
            runner.remove(key)
        refused: list[tuple[Submission, Piece | Exception]] = []
        try:
            if joining := scheduler.join(joinable=runner.joinable):
                refused += [(scheduler.finish(key), err) for key, err in runner.add(joining).items()]
            pieces = runner.step() if scheduler.num_running else []
        except Exception as err:
            self._runner = None
            return [*refused, *((submission, err) for submission in scheduler.fail())]
        done = {key for key, piece in pieces if isinstance(piece, Generation)}
        written = [(scheduler.get(key), piece) for key, piece in pieces]
        for key in done:
            scheduler.finish(key)
        return [*refused, *written]

    def close(self) -> list[Submission]:
        """Forget all requests, and return those that were not answered."""
        return self._scheduler.close()


def stream(
    engine: Engine, requests: Sequence[GenerationRequest], samplings: Sequence[Sampling] = ()
) -> Iterator[tuple[int, Piece]]:
    """Submit requests to an engine of one's own, and yield what comes of them, each with its number; raises the first error.

    ``samplings``: one for each request, none for greedy decoding.
    """
    pairs = zip(requests, samplings or [GREEDY] * len(requests), strict=True)
    numbers = {engine.submit(request, sampling): number for number, (request, sampling) in enumerate(pairs)}
    while len(engine):
        for submission, piece in engine.step():
            if isinstance(piece, Exception):
                raise piece
            yield numbers[submission], piece
