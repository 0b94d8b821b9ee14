"""Searches over HTTP under load, by stack. In: the sample. Out: one table and a JSON of results.

    python -m tests.bench search [--stacks default,optimised] [--retriever deployment,gateway] [--clients 1,4,16,64] [--seconds 8]

A service of `ragray serve` over the sample's passages (MiniLM, k=3), asked in closed loops: `/v1/search` with questions that were not
asked before, then with the same few, which are remembered; last `/retrieve` with 200 clients, two queries each. `optimised` is Serve
with HAProxy and RAY_SERVE_THROUGHPUT_OPTIMIZED. Clients and service share the machine. Milliseconds of processor time per request, of
the service alone, say more than requests per second where other work is going on.
"""

import argparse
import contextlib
import http.client
import json
import os
import random
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

import ragray
from ragray.artifact.files import write_json
from tests.bench.swaps import await_ready
from tests.processes import descendants

RESULTS = Path(__file__).parent / "results" / "search.json"
SAMPLE = Path(ragray.__file__).parent / "sample"
STACKS = {
    "default": {},
    "optimised": {
        "RAY_SERVE_ENABLE_HA_PROXY": "1",
        "RAY_SERVE_THROUGHPUT_OPTIMIZED": "1",
        "RAY_SERVE_DIRECT_INGRESS_MIN_DRAINING_PERIOD_S": "1",
    },
}
REMEMBERED = 50
TRAINERS = 200
PARTS = {"Gateway": b":Gateway", "Retriever": b":Retriever", "proxy": b"roxy"}
GOALS = (
    "goals: /v1/search with 16 clients 120/s (default), 300/s (optimised); /retrieve with 200 clients without an error"
)

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--stacks", default=",".join(STACKS))
parser.add_argument("--retriever", default="deployment,gateway")
parser.add_argument("--clients", default="1,4,16,64")
parser.add_argument("--seconds", type=float, default=8, help="of each measurement")
parser.add_argument("--index", type=Path, help="an index of the sample; left out, one is made")
parser.add_argument("--settings", default="", help="further settings of the service, separated by commas")
parser.add_argument("--port", type=int, default=8895)
parser.add_argument("--results", type=Path, default=RESULTS)

Ask = Callable[[http.client.HTTPConnection], int]


@dataclass(frozen=True)
class Measured:
    """What a service did with so many clients: statuses other than 200, and the processor time of its processes per request."""

    stack: str
    retriever: str
    what: str
    clients: int
    requests: int
    requests_per_s: float
    p50_ms: float
    p95_ms: float
    errors: dict[str, int]
    cpu_ms: float
    cpu_ms_by_part: dict[str, float]


def new_questions() -> Iterator[str]:
    """Yield questions of ordinary length, each once: the beginning of one of the sample, and the end of another."""
    asked = [json.loads(line)["question"].split() for line in (SAMPLE / "train.jsonl").read_text("utf-8").splitlines()]
    chooser, seen = random.Random(0), set[str]()
    while True:
        one, other = chooser.sample(asked, 2)
        question = " ".join([*one[: len(one) // 2], *other[len(other) // 2 :]])
        if question not in seen:
            seen.add(question)
            yield question


def post(connection: http.client.HTTPConnection, path: str, body: object) -> int:
    """Send a request; return the status."""
    connection.request("POST", path, json.dumps(body), {"Content-Type": "application/json"})
    response = connection.getresponse()
    response.read()
    return response.status


def askers(new: Iterator[str]) -> dict[str, Ask]:
    """Return what a client sends, by name; the iterator is shared by all threads."""
    lock, few = threading.Lock(), [next(new) for _ in range(REMEMBERED)]

    def fresh() -> str:
        with lock:
            return next(new)

    return {
        "new": lambda connection: post(connection, "/v1/search", {"query": fresh(), "k": 3}),
        "remembered": lambda connection: post(connection, "/v1/search", {"query": random.choice(few), "k": 3}),
        "retrieve": lambda connection: post(
            connection, "/retrieve", {"queries": [fresh(), fresh()], "topk": 3, "return_scores": True}
        ),
    }


def ticks(pid: int) -> tuple[str, int]:
    """Return which part of the service a process is, and its processor time in clock ticks."""
    with contextlib.suppress(OSError):
        title = Path(f"/proc/{pid}/cmdline").read_bytes()
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return next((name for name, mark in PARTS.items() if mark in title), "other"), int(fields[11]) + int(fields[12])
    return "other", 0


def cpu_s(pid: int) -> Counter[str]:
    """Return the processor time of a service so far, by part, in seconds."""
    found = Counter[str]()
    for name, used in (ticks(each) for each in [pid, *descendants(pid)]):
        found[name] += used / os.sysconf("SC_CLK_TCK")  # type: ignore[assignment] # seconds
    return found


def load(port: int, clients: int, seconds: float, ask: Ask) -> tuple[list[float], Counter[str]]:
    """Let clients ask one request after the other; return the seconds of those answered with 200, and the others by status."""
    answered, errors, end = list[float](), Counter[str](), time.monotonic() + seconds

    def loop() -> None:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=120)
        while time.monotonic() < end:
            began = time.monotonic()
            try:
                status = ask(connection)
            except (OSError, http.client.HTTPException) as err:
                connection.close()
                errors[type(err).__name__] += 1
                continue
            if status == 200:
                answered.append(time.monotonic() - began)
            else:
                errors[str(status)] += 1
        connection.close()

    threads = [threading.Thread(target=loop) for _ in range(clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return answered, errors


def measure(stack: str, retriever: str, index: Path, args: argparse.Namespace) -> Iterator[Measured]:
    """Start a service, and yield one measurement after the other."""
    settings = [f"serve.port={args.port}", f"serve.retriever={retriever}", "generate.model=first-sentence"]
    settings += filter(None, args.settings.split(","))
    command = [sys.executable, "-m", "ragray.cli", "serve", "--index", str(index), *settings]
    environment = {**os.environ, **STACKS[stack]}
    process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, start_new_session=True)
    try:
        await_ready(f"http://127.0.0.1:{args.port}", process)
        asks = askers(new_questions())
        plan = [(what, int(number)) for what in ("new", "remembered") for number in args.clients.split(",")]
        for ask in asks.values():
            load(args.port, 4, 2.0, ask)
        for what, clients in [*plan, ("retrieve", TRAINERS)]:
            before, began = cpu_s(process.pid), time.monotonic()
            answered, errors = load(args.port, clients, args.seconds, asks[what])
            seconds, used = time.monotonic() - began, cpu_s(process.pid)
            done = max(1, len(answered))
            by_part = {name: round(1000 * (used[name] - before[name]) / done, 2) for name in (*PARTS, "other")}
            p50, p95 = np.percentile(answered or [float("nan")], (50, 95)) * 1000
            yield Measured(
                *(stack, retriever, what, clients, len(answered), round(done / seconds, 1)),
                *(round(float(p50), 1), round(float(p95), 1), dict(errors), round(sum(by_part.values()), 2), by_part),
            )
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGTERM)
        process.wait(120)
        await_free(args.port)


def await_free(port: int) -> None:
    """Wait until nothing listens on a port."""
    for _ in range(300):
        with socket.socket() as trial:
            if trial.connect_ex(("127.0.0.1", port)):
                return
        time.sleep(0.1)


def made_index(folder: Path) -> Path:
    """Make an index of the sample."""
    config = ragray.load_config()
    ragray.ingest([str(SAMPLE / "corpus.jsonl")], folder / "corpus", config, executor="local")
    ragray.embed_corpus(folder / "corpus", folder / "embeddings", config, executor="local")
    ragray.build_index(folder / "embeddings", folder / "corpus", folder / "index", config, executor="local")
    return folder / "index"


def main() -> None:
    """Measure all stacks, print the table, write the JSON."""
    args = parser.parse_args()
    found = list[Measured]()
    with tempfile.TemporaryDirectory() as made:
        index = args.index or made_index(Path(made))
        for stack in args.stacks.split(","):
            for retriever in args.retriever.split(","):
                for each in measure(stack, retriever, index, args):
                    found.append(each)
                    print(each, flush=True)
    table(found)
    machine = {"cores": os.cpu_count(), "load": os.getloadavg()[0]}
    args.results.parent.mkdir(exist_ok=True)
    write_json(args.results, {"machine": machine, "measured": [asdict(each) for each in found]})


def table(found: list[Measured]) -> None:
    """Print one table."""
    shown = Table(title="searches", title_justify="left", caption=GOALS, caption_justify="left")
    headings = ("stack", "retriever", "asked", "clients", "requests/s", "p50 ms", "p95 ms", "errors", "CPU ms")
    for heading in (*headings, *PARTS):
        shown.add_column(heading, justify="right")
    for each in found:
        numbers = (each.requests_per_s, each.p50_ms, each.p95_ms)
        parts = [f"{each.cpu_ms_by_part[name]:.1f}" for name in PARTS]
        cells = (each.stack, each.retriever, each.what, str(each.clients), *(f"{number:.0f}" for number in numbers))
        shown.add_row(*cells, json.dumps(each.errors) if each.errors else "0", f"{each.cpu_ms:.1f}", *parts)
    Console(width=140).print(shown)


if __name__ == "__main__":
    main()
