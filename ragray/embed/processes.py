"""Embedding without a cluster. In: blocks. Out: their files, written by processes of this machine; one that dies is replaced.

A process reads a block a line (JSON) from its standard input, answers each with a line, and ends when nobody writes any more.
Few passages are done before Ray would have started.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import tempfile
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import asdict, dataclass
from pathlib import Path
from threading import Lock
from time import monotonic
from typing import IO

from ragray.config import EmbedConfig
from ragray.embed.blocks import Block
from ragray.embed.worker import BlockWorker
from ragray.errors import RagrayError, pack, unpack
from ragray.execute.crash_markers import Attempts
from ragray.failures import told

MODULE = "ragray.embed.processes"
STARTS = 3
"""Processes in a row that may end before they begin a block; those that die over one are counted by `ragray.execute.crash_markers`."""


def embed_in_processes(
    blocks: Sequence[Block], folder: Path, config: EmbedConfig, on_block: Callable[[Block], None]
) -> float:
    """Embed blocks, ``on_block`` is told of each; return the seconds that processes spent on them, divided by their number.

    Raises:
        RagrayError: what a `BlockWorker` raises, or that processes end before they begin.
    """
    count = min(config.num_workers, len(blocks), os.cpu_count() or 1)
    crew = _Crew(folder, config)
    with ThreadPoolExecutor(count) as threads:
        futures = {threads.submit(crew.embed, block): block for block in blocks}
        seconds = 0.0
        try:
            for future in as_completed(futures):
                seconds += future.result()
                on_block(futures[future])
        finally:
            threads.shutdown(wait=False, cancel_futures=True)
            crew.end()
    return seconds / count


@dataclass(frozen=True, slots=True)
class _Process:
    """One running process, and where its standard error goes."""

    running: subprocess.Popen[str]
    stderr: IO[bytes]

    def ask(self, block: Block) -> str:
        """Have a block embedded; return the answer, nothing if the process has ended."""
        assert self.running.stdin and self.running.stdout
        try:
            self.running.stdin.write(json.dumps(asdict(block)) + "\n")
            self.running.stdin.flush()
        except OSError:
            return ""
        answer = self.running.stdout.readline()
        return answer if answer.endswith("\n") else ""

    def last_words(self) -> str:
        """Say how it ended."""
        code = self.running.wait()
        self.stderr.seek(0)
        lines = self.stderr.read().decode(errors="replace").strip().splitlines()
        return f"exit code {code}" + (f": {lines[-1]}" if lines else "")


class _Crew:
    """The processes: one for each block in hand, started when there is none to spare."""

    def __init__(self, folder: Path, config: EmbedConfig) -> None:
        self._arguments = (config.model_dump_json(), str(folder), str(max(1, int(config.cpus_per_worker))))
        self._attempts = Attempts(folder)
        self._spare: deque[_Process] = deque()
        self._started: list[_Process] = []
        self._ended = False
        self._lock = Lock()

    def embed(self, block: Block) -> float:
        """Embed a block with as many processes as that takes, one after the other; return the seconds the last one spent on it."""
        starts = 0
        while True:
            before = self._attempts.deaths(block.name).count
            try:
                process, started = self._spare.pop(), 0
            except IndexError:
                process, started = self._start(), 1
            if answer := process.ask(block):
                self._spare.append(process)
                said = json.loads(answer)
                if said["kind"]:
                    raise unpack(said["kind"], said["message"])
                return float(said["seconds"])
            starts = 0 if self._attempts.deaths(block.name).count > before else starts + started
            if starts == STARTS:
                raise RagrayError(
                    f"{starts} processes in a row ended before they could begin {block.name} ({process.last_words()})"
                )

    def end(self) -> None:
        """Kill them all; nothing half-written is ever taken for whole."""
        with self._lock:
            self._ended = True
        for process in self._started:
            process.running.kill()
        for process in self._started:
            with contextlib.suppress(OSError), process.stderr, process.running:
                pass  # closing a pipe that holds a question for a dead process fails

    def _start(self) -> _Process:
        with self._lock:
            if self._ended:
                raise RagrayError("embedding was interrupted; run again")
            stderr = tempfile.TemporaryFile()  # noqa: SIM115 - closed by `end`
            running = subprocess.Popen(
                [sys.executable, "-m", MODULE, *self._arguments],
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=stderr, text=True, encoding="utf-8",
                start_new_session=True, env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
            )  # fmt: skip
            self._started.append(_Process(running, stderr))
            return self._started[-1]


def main(config: str, folder: str, threads: str) -> None:
    """Be one of the processes."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # what libraries print is no answer
    worker: BlockWorker | None = None
    for line in sys.stdin:
        failure: RagrayError | None = None
        started = monotonic()
        try:
            if worker is None:
                worker = BlockWorker(EmbedConfig.model_validate_json(config), Path(folder), threads=int(threads))
                started = monotonic()
            worker.embed(Block(**json.loads(line)))
        except Exception as err:
            failure = told(err, folder)
        kind, message = pack(failure)
        answer = {"seconds": monotonic() - started, "kind": kind, "message": message}
        print(json.dumps(answer), file=answers, flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
