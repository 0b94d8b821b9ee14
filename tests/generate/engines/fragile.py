"""A fake generator that does what a question asks of it: die, hang, or fail."""

import os
import time
from collections.abc import Mapping

from ragray.errors import ConfigError, InputError, ModelError
from ragray.generate.engine import Piece, Submission
from ragray.generate.engines.fake import FirstSentenceGenerator, FirstSentenceRunner


class Fragile(FirstSentenceGenerator):
    def open_runner(self) -> FirstSentenceRunner:
        return FragileRunner()


class FragileRunner(FirstSentenceRunner):
    def __init__(self) -> None:
        super().__init__()
        self._questions: dict[int, str] = {}

    def add(self, requests: Mapping[int, Submission]) -> Mapping[int, InputError]:
        self._questions |= {key: one.request.question for key, one in requests.items()}
        refused = {key: InputError("too long") for key, question in self._questions.items() if question == "refused"}
        super().add({key: one for key, one in requests.items() if key not in refused})
        return refused

    def step(self) -> list[tuple[int, Piece]]:
        asked = set(self._questions.values())
        if "die" in asked:
            os._exit(7)
        if "hang" in asked:
            time.sleep(1000)
        if "fail" in asked:
            raise ModelError("the output is not finite")
        if "break" in asked:
            raise RuntimeError("out of memory")
        return super().step()


def load() -> Fragile:
    return Fragile()


def load_nothing() -> Fragile:
    raise ConfigError("there is no such model")


def load_and_die() -> Fragile:
    os._exit(3)
