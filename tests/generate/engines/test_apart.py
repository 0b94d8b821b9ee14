"""A generator in a process of its own: the same answers; what dies, hangs or fails costs only the requests that it was answering."""

import gc
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator

import pytest

from ragray.errors import ConfigError, InputError, ServingError
from ragray.generate.engine import Engine, Generation, GenerationRequest, Submission
from ragray.generate.engines import apart
from ragray.generate.engines.apart import ApartGenerator
from ragray.generate.engines.fake import FirstSentenceGenerator
from ragray.types import Hit, Passage
from tests.generate.engines import fragile
from tests.processes import descendants, left_after

LOST = "try again in a few seconds"


def asked(question: str) -> GenerationRequest:
    return GenerationRequest(question, (Hit(Passage("1", "The Elbe flows through Hamburg. It is long."), 1.0),))


def processes() -> list[int]:
    return descendants(os.getpid(), apart.MODULE.encode())


def open_apart(load: Callable[[], fragile.Fragile] = fragile.load, *, step_timeout_s: float = 60) -> ApartGenerator:
    return ApartGenerator(load, FirstSentenceGenerator().check, name="fragile", step_timeout_s=step_timeout_s)


@pytest.fixture(scope="module")
def generator() -> Iterator[ApartGenerator]:
    yield open_apart()


def outcomes(engine: Engine, *questions: str) -> list[str]:
    """Ask all at once; return for each its answer, or its error's type and message."""
    submitted = [engine.submit(asked(question)) for question in questions]
    found: dict[Submission, str] = {}
    while len(engine):
        for submission, item in engine.step():
            if isinstance(item, Generation):
                found[submission] = item.text
            elif isinstance(item, Exception):
                found[submission] = f"{type(item).__name__}: {item}"
    return [found[submission] for submission in submitted]


def test_answers_are_those_of_the_generator_in_this_process(generator: ApartGenerator) -> None:
    requests = [asked("where?"), GenerationRequest("closed book")]
    assert generator.generate(requests) == FirstSentenceGenerator().generate(requests)
    assert list(generator.stream(requests[0])) == list(FirstSentenceGenerator().stream(requests[0]))


def test_a_request_joins_leaves_and_is_refused_by_itself(generator: ApartGenerator) -> None:
    runner = generator.open_runner()
    refused = runner.add({1: Submission(asked("a")), 2: Submission(asked("refused")), 3: Submission(asked("b"))})
    assert {key: type(err) for key, err in refused.items()} == {2: InputError}
    runner.step()
    runner.remove(1)
    assert (len(runner), {key for key, _ in runner.step()}) == (1, {3})


@pytest.mark.parametrize(
    ("question", "error"),
    [
        ("fail", "ModelError: the output is not finite"),
        ("break", "ServingError: RuntimeError: out of memory; try again, or set generate.engine=torch"),
        ("die", f"ServingError: fragile: its process ended (exit code 7); {LOST}"),
    ],
)
def test_what_ends_a_batch_is_told_to_those_in_it_and_the_next_request_is_answered(
    generator: ApartGenerator, question: str, error: str
) -> None:
    engine = Engine(generator.open_runner)
    assert outcomes(engine, question, "where?") == [error, error]
    assert outcomes(engine, "where?") == ["The Elbe flows through Hamburg."]


def test_a_process_that_hangs_is_ended_and_another_one_started() -> None:
    generator = open_apart(step_timeout_s=0.3)
    engine, others = Engine(generator.open_runner), set(processes())
    assert outcomes(engine, "hang") == [
        f"ServingError: fragile: its process did not answer for 0.3 s and was ended; {LOST}"
    ]
    assert outcomes(engine, "where?") == ["The Elbe flows through Hamburg."]
    assert len(set(processes()) - others) == 1


@pytest.mark.parametrize(
    ("load", "kind", "message"),
    [
        (fragile.load_nothing, ConfigError, "there is no such model"),
        (fragile.load_and_die, ServingError, r"its process ended \(exit code 3\)"),
    ],
)
def test_what_cannot_be_loaded_says_why(
    load: Callable[[], fragile.Fragile], kind: type[Exception], message: str
) -> None:
    with pytest.raises(kind, match=message):
        open_apart(load).wait()
    with pytest.raises(kind, match=message):
        open_apart(load).open_runner()


def test_a_process_ends_with_its_generator() -> None:
    before = set(processes())
    generator = open_apart()
    own = set(processes()) - before
    assert len(own) == 1
    del generator
    gc.collect()
    assert own & set(processes()) == set()


DRIVER = """
from ragray.generate.engine import Submission
from tests.generate.engines.test_apart import asked, open_apart
runner = open_apart(step_timeout_s={limit_s}).open_runner()
runner.add({{1: Submission(asked("{question}"))}})
print("begun", flush=True)
runner.step()
input()
"""


@pytest.mark.parametrize(
    ("question", "limit_s", "number"),
    [("hang", 1, signal.SIGKILL), ("where?", 60, signal.SIGINT), ("where?", 60, signal.SIGTERM)],
)
def test_no_process_outlives_a_program_that_is_ended(question: str, limit_s: int, number: int) -> None:
    code = DRIVER.format(question=question, limit_s=limit_s)
    command, pipe = [sys.executable, "-c", code], subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=subprocess.DEVNULL) as driver:
        assert driver.stdout
        driver.stdout.readline()
        children = descendants(driver.pid, apart.MODULE.encode())
        driver.send_signal(number)
        driver.wait()
    assert len(children) == 1
    assert left_after(children, apart.MODULE.encode(), 30) == []
