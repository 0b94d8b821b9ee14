"""Five times as many requests as can be answered. In: a generator that takes a fixed time. Out: one table and a JSON of results.

    python -m tests.bench overload [--times 5] [--seconds 20] [--service 0.5] [--timeout 4]

First the peak: closed loops of twice as many clients as answers are written side by side. Then requests arrive evenly, so many times as
fast, whether answered or not, each with `x-request-timeout`. Both ask `/v1/answer` of an application on 127.0.0.1 in a process of its
own, with the fake retriever and a generator that writes 8 answers side by side, each in a fixed time.
"""

import argparse
import asyncio
import json
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import httpx
import numpy as np
import uvicorn
from rich.console import Console
from rich.table import Table

from ragray.artifact.files import write_json
from ragray.config import ServeConfig
from ragray.errors import InputError
from ragray.generate.engine import Generation, Piece, Submission
from ragray.generate.engines.fake import FirstSentenceGenerator, FirstSentenceRunner
from ragray.retrieve.retriever import AS_SET, SearchOptions
from ragray.serve.app import create_app
from ragray.serve.load.deadline import TIMEOUT_HEADER
from ragray.serve.local import LocalAnswerer
from ragray.types import Hit, Passage, RetrievalResult

RESULTS = Path(__file__).parent / "results" / "overload.json"
SIDE_BY_SIDE = 8
TICK_S = 0.005
GOALS = "goals at five times the capacity: goodput at least 0.8 of the peak, refusals within 100 ms"

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--times", type=float, default=5.0, help="requests per second, as a multiple of the peak")
parser.add_argument("--seconds", type=float, default=20.0, help="length of each of the two measurements")
parser.add_argument("--service", type=float, default=0.5, help="seconds that an answer takes to write")
parser.add_argument("--timeout", type=float, default=4.0, help="seconds that a request wants to wait")
parser.add_argument("--port", type=int, default=8872)
parser.add_argument("--results", type=Path, default=RESULTS)
parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)


class Fixed(FirstSentenceGenerator):
    """Writes each answer in a fixed time."""

    def __init__(self, service_s: float) -> None:
        self.service_s = service_s

    def open_runner(self) -> FirstSentenceRunner:
        return FixedRunner(self.service_s)


class FixedRunner(FirstSentenceRunner):
    max_running = SIDE_BY_SIDE

    def __init__(self, service_s: float) -> None:
        super().__init__()
        self._service_s = service_s
        self._due: dict[int, float] = {}

    def add(self, requests: Mapping[int, Submission]) -> Mapping[int, InputError]:
        self._due |= dict.fromkeys(requests, time.monotonic() + self._service_s)
        return {}

    def remove(self, key: int) -> None:
        self._due.pop(key, None)

    def __len__(self) -> int:
        return len(self._due)

    def step(self) -> list[tuple[int, Piece]]:
        time.sleep(TICK_S)
        done = [key for key, due in self._due.items() if due <= time.monotonic()]
        for key in done:
            del self._due[key]
        return [(key, Generation("The Seine.", (1.0,))) for key in done]


class OnePassage:
    """Finds the same passage for every query."""

    snapshot = "bench"

    def search(self, queries: Sequence[str], k: int, options: SearchOptions = AS_SET) -> list[RetrievalResult]:
        return [RetrievalResult("bench", (Hit(Passage("1", "The Seine flows through Paris."), 1.0),)) for _ in queries]


def serve(port: int, service_s: float) -> None:
    """Serve until the process is ended."""
    answerer = LocalAnswerer(OnePassage(), Fixed(service_s), k=1, max_waiting=1000)  # type: ignore[arg-type] # a fake
    uvicorn.run(create_app(answerer, ServeConfig()), host="127.0.0.1", port=port, log_level="error")


@dataclass(frozen=True)
class Seen:
    """One response: its status and the seconds that it took."""

    status: int
    seconds: float


async def ask(client: httpx.AsyncClient, timeout_s: float) -> Seen:
    """Ask a question."""
    started = time.monotonic()
    headers = {TIMEOUT_HEADER: str(timeout_s)}
    response = await client.post("/v1/answer", json={"question": "Which river?"}, headers=headers)
    return Seen(response.status_code, time.monotonic() - started)


async def closed(client: httpx.AsyncClient, seconds: float, timeout_s: float) -> list[Seen]:
    """Let clients ask one question after the other."""
    seen, end = list[Seen](), time.monotonic() + seconds

    async def loop() -> None:
        while time.monotonic() < end:
            seen.append(await ask(client, timeout_s))

    await asyncio.gather(*(loop() for _ in range(2 * SIDE_BY_SIDE)))
    return seen


async def arriving(client: httpx.AsyncClient, seconds: float, timeout_s: float, per_s: float) -> list[Seen]:
    """Let requests arrive evenly."""
    began, tasks = time.monotonic(), list[asyncio.Task[Seen]]()
    for number in range(int(seconds * per_s)):
        await asyncio.sleep(max(0.0, began + number / per_s - time.monotonic()))
        tasks.append(asyncio.create_task(ask(client, timeout_s)))
    return list(await asyncio.gather(*tasks))


@dataclass(frozen=True)
class Measured:
    """What came of the requests of one measurement."""

    load: str
    requests: int
    answered_per_s: float
    in_time_per_s: float
    answer_p95_s: float | None
    refused: int
    refusal_p50_s: float | None
    refusal_p99_s: float | None
    others: dict[int, int]

    @classmethod
    def of(cls, load: str, seen: Sequence[Seen], seconds: float, timeout_s: float) -> "Measured":
        answers = [each.seconds for each in seen if each.status == 200]
        refusals = [each.seconds for each in seen if each.status == 429]
        others = dict(Counter(each.status for each in seen if each.status not in (200, 429)))
        in_time = sum(each <= timeout_s for each in answers)
        rates, p95 = (len(answers) / seconds, in_time / seconds), percentile(answers, 95)
        return cls(
            load, len(seen), *rates, p95, len(refusals), percentile(refusals, 50), percentile(refusals, 99), others
        )


def percentile(seconds: Sequence[float], percent: float) -> float | None:
    """Return a percentile, None of nothing."""
    return round(float(np.percentile(seconds, percent)), 4) if seconds else None


async def measure(args: argparse.Namespace) -> list[Measured]:
    """Measure the peak, then the overload."""
    limits, base = httpx.Limits(max_connections=None), f"http://127.0.0.1:{args.port}"
    async with httpx.AsyncClient(base_url=base, timeout=120, limits=limits) as client:
        for _ in range(300):
            try:
                await client.get("/healthz")
                break
            except httpx.ConnectError:
                await asyncio.sleep(0.2)
        await closed(client, 3.0, args.timeout)
        found = []
        for load in ("peak", f"{args.times:g} x peak"):
            began = time.monotonic()
            if load == "peak":
                seen = await closed(client, args.seconds, args.timeout)
            else:
                seen = await arriving(client, args.seconds, args.timeout, args.times * found[0].answered_per_s)
            found.append(Measured.of(load, seen, time.monotonic() - began, args.timeout))
            print(found[-1], flush=True)
        return found


def main() -> None:
    """Measure, print the table, write the JSON."""
    args = parser.parse_args()
    if args.serve:
        serve(args.port, args.service)
        return
    options = ["--serve", "--port", str(args.port), "--service", str(args.service)]
    with subprocess.Popen([sys.executable, "-m", "tests.bench", "overload", *options]) as server:
        try:
            found = asyncio.run(measure(args))
        finally:
            server.kill()
    shown = Table(title="overload", title_justify="left", caption=GOALS, caption_justify="left")
    headings = ("load", "requests", "answers/s", "in time/s", "answer p95 s", "refused", "refusal p50 ms", "p99 ms")
    for heading in (*headings, "other statuses", "of peak"):
        shown.add_column(heading, justify="right")
    for each in found:
        cells = (each.load, str(each.requests), f"{each.answered_per_s:.1f}", f"{each.in_time_per_s:.1f}")
        times = (str(each.answer_p95_s), str(each.refused))
        refusals = [f"{1000 * s:.0f}" if s is not None else "-" for s in (each.refusal_p50_s, each.refusal_p99_s)]
        of_peak = each.in_time_per_s / found[0].answered_per_s
        shown.add_row(*cells, *times, *refusals, json.dumps(each.others), f"{of_peak:.2f}")
    Console(width=140).print(shown)
    settings = {"times": args.times, "seconds": args.seconds, "service_s": args.service, "timeout_s": args.timeout}
    write_json(args.results, {"settings": settings, "measured": [asdict(each) for each in found]})
