"""Ctrl-C and SIGTERM end a command at any moment: its code, one line, no process left."""

import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.processes import descendants, marked

SAID = {
    signal.SIGINT: (130, "ragray: interrupted; run the same command to go on\n"),
    signal.SIGTERM: (143, "ragray: terminated; run the same command to go on\n"),
}
BOTH = pytest.mark.parametrize("number", SAID, ids=lambda number: signal.Signals(number).name)

BEGIN = """
import os, signal, subprocess, sys, time
from ragray import interrupts
interrupts.watch()
def ready(): open(sys.argv[1], "w").close()
def ends(work):
    try: work()
    except (KeyboardInterrupt, SystemExit): interrupts.end()
"""
SLEEPS = "ends(lambda: (ready(), time.sleep(600)))"
IN_C = """
import ctypes
interrupts.allow(0.5)
mutex = ctypes.create_string_buffer(64)
ready()
while True:
    try:
        for _ in range(2): ctypes.CDLL(None).pthread_mutex_lock(mutex)  # waits for itself, and no signal wakes it
    except BaseException: pass
"""
SWALLOWS = """
interrupts.allow(0.5)
ready()
while True:
    try: time.sleep(600)
    except BaseException: pass
"""
REPLACED = """
interrupts.allow(0.5)
for number in (signal.SIGINT, signal.SIGTERM): signal.signal(number, lambda *_: None)
ready()
while True: time.sleep(600)
"""
LEAVES_CHILDREN = """
interrupts.allow(0.5)
subprocess.Popen([sys.executable, "-c", "import subprocess, time; subprocess.Popen(['sleep', '600']); time.sleep(600)"],
                 start_new_session=True)
time.sleep(1)
ready()
while True:
    try: time.sleep(600)
    except BaseException: pass
"""
SLOW_BUT_ALLOWED = """
def drained():
    try: ready(); time.sleep(600)
    except BaseException:
        interrupts.allow(600)
        time.sleep(1.5)
        print("drained", flush=True)
        raise
interrupts.allow(1)
ends(drained)
"""
FORKS = """
child = os.fork()
if not child:
    while True: time.sleep(600)
time.sleep(1)
ready()
os.kill(child, signal.SIGTERM)
_, status = os.waitpid(child, 0)
time.sleep(0.5)
assert interrupts.received() == 0
sys.exit(os.WTERMSIG(status))
"""


@pytest.fixture
def marker() -> Iterator[str]:
    """A text for the environment of a command; what is left of the command is ended."""
    text = f"RAGRAY_TEST_MARKER={uuid.uuid4().hex}"
    yield text
    for pid in marked(text):
        os.kill(pid, signal.SIGKILL)


def start(marker: str, *arguments: str) -> subprocess.Popen[str]:
    name, value = marker.split("=")
    return subprocess.Popen(
        [sys.executable, *arguments],
        env={**os.environ, name: value},
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


def script(marker: str, code: str, tmp_path: Path) -> subprocess.Popen[str]:
    """Start a script and return once it says that it is ready."""
    running = start(marker, "-c", BEGIN + code, str(tmp_path / "ready"))
    wait_for(running, (tmp_path / "ready").exists)
    return running


def wait_for(running: subprocess.Popen[str], moment: Callable[[], object]) -> None:
    deadline = time.monotonic() + 240
    while not moment() and running.poll() is None and time.monotonic() < deadline:
        time.sleep(0.02)


def none_left(marker: str) -> bool:
    """Return whether all are gone; a process that was killed takes a moment to go."""
    deadline = time.monotonic() + 60
    while marked(marker) and time.monotonic() < deadline:
        time.sleep(0.1)
    return not marked(marker)


@BOTH
@pytest.mark.parametrize(
    "code",
    [SLEEPS, IN_C, SWALLOWS, REPLACED, LEAVES_CHILDREN],
    ids=["sleeps", "in C", "swallows", "replaced", "children"],
)
def test_a_process_ends_whatever_it_does(marker: str, tmp_path: Path, code: str, number: signal.Signals) -> None:
    running = script(marker, code, tmp_path)
    running.send_signal(number)
    _, errors = running.communicate(timeout=240)
    assert (running.returncode, errors) == SAID[number]
    assert none_left(marker)


def test_a_second_and_a_third_signal_change_nothing(marker: str, tmp_path: Path) -> None:
    running = script(marker, SWALLOWS, tmp_path)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGINT):
        running.send_signal(number)
        time.sleep(0.05)
    _, errors = running.communicate(timeout=240)
    assert (running.returncode, errors) == SAID[signal.SIGINT]


def test_who_is_allowed_longer_gets_it(marker: str, tmp_path: Path) -> None:
    running = script(marker, SLOW_BUT_ALLOWED, tmp_path)
    running.send_signal(signal.SIGTERM)
    output, errors = running.communicate(timeout=240)
    assert (output, running.returncode, errors) == ("drained\n", *SAID[signal.SIGTERM])


def test_a_child_that_is_told_to_end_does_not_end_its_parent(marker: str, tmp_path: Path) -> None:
    running = script(marker, FORKS, tmp_path)
    _, errors = running.communicate(timeout=240)
    assert (running.returncode, errors) == (signal.SIGTERM, "")


def test_an_ignored_signal_stays_ignored(marker: str, tmp_path: Path) -> None:
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        running = script(marker, SLEEPS, tmp_path)
    finally:
        signal.signal(signal.SIGINT, before)
    running.send_signal(signal.SIGINT)
    time.sleep(0.5)
    assert running.poll() is None
    running.send_signal(signal.SIGTERM)
    _, errors = running.communicate(timeout=240)
    assert (running.returncode, errors) == SAID[signal.SIGTERM]


@BOTH
def test_a_command_that_is_just_starting_ray_ends(marker: str, tmp_path: Path, number: signal.Signals) -> None:
    source = tmp_path / "corpus.jsonl"
    source.write_text('{"id": "1", "text": "The river rises in the mountains and flows to the sea."}\n')
    arguments = ["ingest", str(source), "--out", str(tmp_path / "corpus"), "embed.model=hash:64"]
    running = start(marker, "-m", "ragray.cli", *arguments)
    wait_for(running, lambda: descendants(running.pid, b"gcs_server"))
    running.send_signal(number)
    running.send_signal(number)
    _, errors = running.communicate(timeout=240)
    assert (running.returncode, errors) == SAID[number]
    assert none_left(marker)
