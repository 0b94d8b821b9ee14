"""Copies of a deployment under load that rises and falls. In: a service of its own. Out: how many ran when, and every response but 200.

    python -m tests.bench autoscale [--port 8850] [--least 1] [--most 2] [--seconds 60]

The Generator (a tiny model of random weights, one answer at a time, so that requests wait) begins with `--least` copies; with 0 none
runs until the first question, and none again after the last. One client asks, then sixteen, then one, then (with `--least 0`) nobody.
A phase ends early once the copies expected of it have run for a while.
"""

import argparse
import asyncio
import contextlib
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import httpx
from rich.console import Console
from rich.table import Table

from ragray.artifact.files import write_json
from tests import helpers, tiny
from tests.bench.swaps import await_ready
from tests.processes import descendants

RESULTS = Path(__file__).parent / "results" / "autoscale.json"
TITLE = b"ray::ServeReplica:ragray:Generator"
HOLD_S = 10.0
"""Seconds for which a phase goes on once the copies expected of it run."""

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--port", type=int, default=8850)
parser.add_argument("--least", type=int, default=1)
parser.add_argument("--most", type=int, default=2)
parser.add_argument("--seconds", type=float, default=60, help="of each phase, at most")
parser.add_argument("--results", type=Path, default=RESULTS)


@dataclass
class Phase:
    """So many clients, and what was seen meanwhile: the copies in order, responses by status, the slowest."""

    clients: int
    expected: int
    copies: list[int] = field(default_factory=list)
    statuses: Counter[str] = field(default_factory=Counter)
    slowest_s: float = 0.0
    seconds: float = 0.0
    ended: bool = False


async def ask(client: httpx.AsyncClient, phase: Phase) -> None:
    """Ask one question after the other until the phase ends."""
    number = 0
    while not phase.ended:
        number += 1
        started = time.monotonic()
        try:
            response = await client.post("/v1/answer", json={"question": helpers.sentence(number % 40)})
            phase.statuses[str(response.status_code)] += 1
        except httpx.HTTPError as err:
            phase.statuses[type(err).__name__] += 1
        phase.slowest_s = max(phase.slowest_s, time.monotonic() - started)


async def run(phase: Phase, url: str, pid: int, seconds: float) -> None:
    """Let the clients ask until the copies expected have run for a while, or the time is over."""
    started, reached = time.monotonic(), 0.0
    async with httpx.AsyncClient(base_url=url, timeout=300) as client:
        asking = [asyncio.create_task(ask(client, phase)) for _ in range(phase.clients)]
        while time.monotonic() - started < seconds and not (reached and time.monotonic() - reached > HOLD_S):
            copies = len(descendants(pid, TITLE))
            if phase.copies[-1:] != [copies]:
                phase.copies.append(copies)
                print(
                    f"  {phase.clients} clients: {copies} copies after {time.monotonic() - started:.0f} s", flush=True
                )
            reached = (reached or time.monotonic()) if copies == phase.expected else 0.0
            await asyncio.sleep(0.5)
        phase.ended = True
        await asyncio.gather(*asking)
    phase.seconds = round(time.monotonic() - started, 1)


def main() -> None:
    """Start the service, run the phases, print the table, write the JSON."""
    args = parser.parse_args()
    url = f"http://127.0.0.1:{args.port}"
    scale = [f"serve.generator_replicas={args.least}", f"serve.generator_max_replicas={args.most}"]
    delays = ["serve.upscale_delay_s=1", "serve.downscale_delay_s=5"]
    slow = ["generate.batch_size=1", "generate.max_new_tokens=100", "serve.request_timeout_s=300"]
    phases = [Phase(1, 1), Phase(16, args.most), Phase(1, 1), *([Phase(0, 0)] if args.least == 0 else [])]
    with tempfile.TemporaryDirectory() as made:
        index = helpers.index_of(Path(made), helpers.some_passages(40))
        model = tiny.save_decoder(Path(made) / "model")
        settings = [f"generate.model={model}", *slow, f"serve.port={args.port}", *scale, *delays]
        command = [sys.executable, "-m", "ragray.cli", "serve", "--index", str(index), *settings]
        process = subprocess.Popen(command, start_new_session=True)
        try:
            await_ready(url, process)
            print(f"  ready with {len(descendants(process.pid, TITLE))} copies", flush=True)
            for phase in phases:
                asyncio.run(run(phase, url, process.pid, args.seconds))
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGTERM)
            process.wait(120)
    report(phases, args)


def report(phases: list[Phase], args: argparse.Namespace) -> None:
    """Print the table, write the JSON."""
    shown = Table(title="copies of the Generator", title_justify="left")
    for heading in ("clients", "copies", "seconds", "responses by status", "slowest s"):
        shown.add_column(heading, justify="right")
    for each in phases:
        copies = " -> ".join(map(str, each.copies))
        shown.add_row(str(each.clients), copies, f"{each.seconds:g}", str(dict(each.statuses)), f"{each.slowest_s:.2f}")
    Console(width=110).print(shown)
    rows = [
        {"clients": each.clients, "copies": each.copies, "seconds": each.seconds, "statuses": dict(each.statuses)}
        for each in phases
    ]
    args.results.parent.mkdir(exist_ok=True)
    write_json(args.results, {"least": args.least, "most": args.most, "load": os.getloadavg()[0], "phases": rows})


if __name__ == "__main__":
    main()
