"""The thread that owns a generator: requests share a batch, leave it when nobody waits, and have errors of their own."""

import asyncio
import threading
from collections.abc import Mapping

import pytest

from ragray.errors import InputError, ModelError, ServingError
from ragray.generate.engine import Generation, GenerationRequest, Piece, Submission
from ragray.generate.engines.fake import FirstSentenceGenerator, FirstSentenceRunner
from ragray.serve.model_thread import ModelThread
from ragray.types import Hit, Passage


def prompt(text: str) -> GenerationRequest:
    return GenerationRequest(text, (Hit(Passage("1", text), 1.0),))


class Recording(FirstSentenceGenerator):
    """Writes a word per step, as many steps as it may; keeps how many answers were written side by side."""

    def __init__(self, *, steps: int = 10_000, refused: str = "\n", broken: str = "\n") -> None:
        self.refused, self.broken = refused, broken
        self.may = threading.Semaphore(steps)
        self.sizes: list[int] = []
        self.removed = 0

    def open_runner(self) -> FirstSentenceRunner:
        return RecordingRunner(self)


class RecordingRunner(FirstSentenceRunner):
    def __init__(self, owner: Recording) -> None:
        super().__init__()
        self._owner = owner

    def add(self, requests: Mapping[int, Submission]) -> Mapping[int, InputError]:
        questions = {key: one.request.question for key, one in requests.items()}
        refused = {key: InputError("too long") for key, one in questions.items() if self._owner.refused in one}
        super().add({key: one for key, one in requests.items() if key not in refused})
        if any("breaks" in one for one in questions.values()):
            raise RuntimeError("out of memory")
        return refused

    def remove(self, key: int) -> None:
        self._owner.removed += key in self._rest
        super().remove(key)

    def step(self) -> list[tuple[int, Piece]]:
        self._owner.may.acquire(timeout=10)
        self._owner.sizes.append(len(self))
        pieces = super().step()
        if any(self._owner.broken in piece for _, piece in pieces if isinstance(piece, str)):
            raise ModelError("the output is not finite")
        return pieces


async def texts(thread: ModelThread, *questions: str) -> list[str | Exception]:
    found = await asyncio.gather(*(thread.generate(prompt(q)) for q in questions), return_exceptions=True)
    return [
        one.text if isinstance(one, Generation) else one for one in found if not isinstance(one, asyncio.CancelledError)
    ]


async def until_running(thread: ModelThread, number: int) -> None:
    async with asyncio.timeout(10):
        while thread.num_open != number:
            await asyncio.sleep(0.01)


def test_answers_are_written_side_by_side_and_each_gets_its_own() -> None:
    generator = Recording(steps=0)

    async def scenario() -> None:
        thread = ModelThread(generator)
        asking = asyncio.create_task(texts(thread, "one", "one two", "one two three"))
        await until_running(thread, 3)
        generator.may.release(10_000)
        assert await asking == ["one.", "one two.", "one two three."]
        thread.close()

    asyncio.run(scenario())
    assert max(generator.sizes) == 3


def test_a_prompt_that_is_refused_costs_no_other() -> None:
    async def scenario() -> list[str | Exception]:
        thread = ModelThread(Recording(refused="long"))
        found = await texts(thread, "one", "long", "two")
        thread.close()
        return found

    first, refused, last = asyncio.run(scenario())
    assert (first, last) == ("one.", "two.")
    assert isinstance(refused, InputError)


def test_a_step_that_fails_reaches_those_in_the_batch_and_the_next_request_is_answered() -> None:
    async def scenario() -> None:
        thread = ModelThread(Recording(broken="bad"))
        with pytest.raises(ModelError):
            await thread.generate(prompt("bad"))
        assert await texts(thread, "one") == ["one."]
        thread.close()

    asyncio.run(scenario())


@pytest.mark.parametrize("streamed", [False, True])
def test_who_stops_waiting_leaves_the_batch_between_two_tokens(streamed: bool) -> None:
    generator = Recording(steps=3)

    async def scenario() -> None:
        thread = ModelThread(generator)
        words = " ".join(["word"] * 500)
        if streamed:
            pieces = thread.stream(prompt(words))
            await anext(pieces)
            await pieces.aclose()
        else:
            asking = asyncio.create_task(thread.generate(prompt(words)))
            await until_running(thread, 1)
            asking.cancel()
            await asyncio.wait([asking])
        generator.may.release(10_000)
        assert await texts(thread, "one") == ["one."]
        await until_running(thread, 0)
        thread.close()

    asyncio.run(scenario())
    assert generator.removed == 1
    assert len(generator.sizes) < 500


def test_who_leaves_before_its_turn_is_never_computed() -> None:
    generator = Recording(steps=0)

    async def scenario() -> None:
        thread = ModelThread(generator)
        tasks = [asyncio.create_task(thread.generate(prompt(f"a{number}"))) for number in range(20)]
        await until_running(thread, 20)
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
        generator.may.release(10_000)
        assert await texts(thread, "one") == ["one."]
        thread.close()

    asyncio.run(scenario())
    assert max(generator.sizes) <= 9


def test_a_stream_yields_the_text_and_then_the_whole() -> None:
    async def scenario() -> None:
        thread = ModelThread(Recording())
        *pieces, last = [piece async for piece in thread.stream(prompt("one two three"))]
        assert "".join(str(piece) for piece in pieces) == "one two three."
        assert isinstance(last, Generation)
        thread.close()

    asyncio.run(scenario())


def test_requests_are_told_when_the_thread_ends() -> None:
    generator = Recording(steps=0)

    async def scenario() -> None:
        thread = ModelThread(generator)
        asking = asyncio.create_task(thread.generate(prompt("one two three")))
        await until_running(thread, 1)
        thread.close()
        generator.may.release(10_000)
        with pytest.raises(ServingError):
            await asking
        with pytest.raises(ServingError):
            await thread.generate(prompt("one"))

    asyncio.run(scenario())


def test_a_batch_that_breaks_while_a_request_joins_is_not_gone_on_with() -> None:
    generator = Recording(steps=1)

    async def scenario() -> None:
        thread = ModelThread(generator)
        running = asyncio.create_task(thread.generate(prompt("one two three")))
        await until_running(thread, 1)
        joining = asyncio.create_task(thread.generate(prompt("breaks")))
        await until_running(thread, 2)
        generator.may.release(1)
        for failed in await asyncio.gather(running, joining, return_exceptions=True):
            assert isinstance(failed, RuntimeError)
        generator.may.release(10_000)
        assert await texts(thread, "one") == ["one."]
        thread.close()

    asyncio.run(scenario())
