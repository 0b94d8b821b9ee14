"""What training workers and whoever embeds the passages again tell each other. In: a request. Out: a reply; files of one folder.

One request stands at a time. A newer one replaces it, and what was begun for the old one is of no use then.
"""

from __future__ import annotations

import json
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TypeVar

from ragray.artifact.files import write_json

REQUEST, REPLY, STATE = "request.json", "reply.json", "refresh.json"
WEIGHTS = "passage_encoder"

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Request:
    """An index that is wanted: of the weights saved at ``step``, or the ``snapshot`` that has been searched before.

    ``token`` tells it from all others; ``error``: why the weights could not be saved.
    """

    token: str
    step: int = 0
    snapshot: str = ""
    error: str = ""


@dataclass(frozen=True, slots=True)
class Reply:
    """The answer to the request with the same token: a snapshot that is open, and the number of its swap; or why there is none."""

    token: str
    number: int = -1
    snapshot: str = ""
    error: str = ""


@dataclass(frozen=True, slots=True)
class IndexState:
    """What a checkpoint records: of which step's weights the searched index is, its snapshot, and the step that a refresh is under way for.

    0 stands for the index that the run began with, and for no refresh.
    """

    step: int
    snapshot: str
    pending: int = 0


@dataclass(frozen=True, slots=True)
class RefreshFolder:
    """The folder of a run's refreshes."""

    path: Path

    def of_step(self, step: int) -> Path:
        """Return the folder for the weights of a step and what is made of them."""
        return self.path / f"step-{step:08}"

    def weights(self, step: int) -> Path:
        """Return the folder of a step's passage encoder; it is there once it is whole."""
        return self.of_step(step) / WEIGHTS

    def ask(self, request: Request) -> None:
        """Make a request."""
        _write(self.path / REQUEST, request)

    def asked(self) -> Request | None:
        """Return the request that stands."""
        return _read(self.path / REQUEST, Request)

    def answer(self, reply: Reply) -> None:
        """Answer a request."""
        _write(self.path / REPLY, reply)

    def answered(self, token: str) -> Reply | None:
        """Return the answer to the request with a token, None until there is one."""
        reply = _read(self.path / REPLY, Reply)
        return reply if reply and reply.token == token else None

    def keep_only(self, steps: set[int]) -> None:
        """Remove the folders of all other steps."""
        kept = {self.of_step(step) for step in steps}
        for folder in self.path.glob("step-*"):
            if folder not in kept:
                shutil.rmtree(folder, ignore_errors=True)


def write_state(checkpoint: Path, state: IndexState) -> None:
    """Write into a checkpoint which index is searched."""
    _write(checkpoint / STATE, state)


def read_state(checkpoint: Path) -> IndexState | None:
    """Return which index a checkpoint's run searched, None where it says nothing."""
    return _read(checkpoint / STATE, IndexState)


def _write(path: Path, value: Request | Reply | IndexState) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_json(path, asdict(value))


def _read(path: Path, kind: type[T]) -> T | None:
    try:
        return kind(**json.loads(path.read_text(encoding="utf-8")))
    except FileNotFoundError:
        return None
