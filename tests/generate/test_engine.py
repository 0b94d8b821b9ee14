"""The engine with a fake model: answers as they come, what they used, cancelled and refused ones, and their own limits."""

from collections.abc import Mapping
from pathlib import Path

import pytest

from ragray.config import GenerateConfig
from ragray.errors import InputError, ModelError
from ragray.generate.engine import Engine, Generation, GenerationRequest, Piece, Sampling, Submission, Usage, stream
from ragray.generate.engines.fake import FirstSentenceRunner
from ragray.generate.engines.model import GeneratorModel
from ragray.generate.engines.transformer import TransformerGenerator
from ragray.types import Hit, Passage


def request(text: str, question: str = "who?") -> GenerationRequest:
    return GenerationRequest(question, (Hit(Passage("1", text), 1.0),))


class Choosy(FirstSentenceRunner):
    """Refuses the question "long", and fails at the word "bad"."""

    def add(self, requests: Mapping[int, Submission]) -> Mapping[int, InputError]:
        refused = {key: InputError("too long") for key, one in requests.items() if one.request.question == "long"}
        super().add({key: one for key, one in requests.items() if key not in refused})
        return refused

    def step(self) -> list[tuple[int, Piece]]:
        pieces = super().step()
        if any("bad" in piece for _, piece in pieces if isinstance(piece, str)):
            raise ModelError("the output is not finite")
        return pieces


def test_answers_come_word_by_word_side_by_side_and_say_what_they_used() -> None:
    engine = Engine(FirstSentenceRunner)
    one, two = engine.submit(request("a b")), engine.submit(request("c"))
    assert [(submission is one, piece) for submission, piece in engine.step()][:2] == [(True, "a"), (False, "c.")]
    [(submission, text), (_, whole)] = engine.step()
    assert (submission is one, text, two.cancelled) == (True, " b.", False)
    assert isinstance(whole, Generation)
    assert (whole.text, whole.finish_reason, whole.usage) == ("a b.", "stop", Usage(prompt_tokens=3, new_tokens=2))
    assert len(engine) == 0


def test_a_cancelled_request_leaves_between_two_words() -> None:
    engine = Engine(FirstSentenceRunner)
    submission = engine.submit(request("a b c"))
    engine.step()
    submission.cancelled = True
    assert engine.step() == []
    assert len(engine) == 0


def test_a_refused_request_has_its_error_alone_and_a_failed_step_is_that_of_all_in_the_batch() -> None:
    engine = Engine(Choosy)
    long, good, bad = (
        engine.submit(each) for each in (request("x", "long"), request("good day"), request("very bad day"))
    )
    first = dict[Submission, Piece | Exception](engine.step())
    assert isinstance(first[long], InputError)
    assert (first[good], first[bad]) == ("good", "very")
    failed = dict(engine.step())
    assert failed.keys() == {good, bad}
    assert all(isinstance(error, ModelError) for error in failed.values())
    assert next(piece for _, piece in stream(engine, [request("again")])) == "again."


def test_requests_that_were_not_answered_are_returned_at_the_end() -> None:
    engine = Engine(FirstSentenceRunner)
    submissions = [engine.submit(request(f"{number} words")) for number in range(10)]
    engine.step()
    assert set(engine.close()) == set(submissions)


@pytest.mark.parametrize(("wanted", "written"), [(None, 6), (2, 2), (100, 6)])
def test_a_request_may_lower_the_most_tokens_of_its_answer(
    tiny_decoder: Path, wanted: int | None, written: int
) -> None:
    model = GeneratorModel.load(tiny_decoder, device="cpu")
    generator = TransformerGenerator(model, GenerateConfig(max_new_tokens=6))
    engine = Engine(generator.open_runner)
    engine.submit(request("rome"), Sampling(max_new_tokens=wanted))
    engine.submit(request("nile"))
    pieces = [piece for _ in range(6) for _, piece in engine.step() if isinstance(piece, Generation)]
    lengths = sorted(piece.usage.new_tokens for piece in pieces)
    assert lengths == sorted([written, 6])
    assert {piece.finish_reason for piece in pieces} == {"length"}
    passages = [hit.passage for hit in request("rome").hits]
    prompts = {len(generator.template.ids("who?", passage)) for passage in passages}
    assert {piece.usage.prompt_tokens for piece in pieces} == prompts
