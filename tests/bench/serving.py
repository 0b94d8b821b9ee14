"""Answers over HTTP under load, by engine. In: the sample. Out: one table and a JSON of results.

    python -m tests.bench serving [--systems openvino,raw,transformers,torch] [--requests 32] [--clients 1,4,16] [--tokens 8,30]

Closed loops: each client sends its next question when it has its answer. Prompts hold two passages of the sample (about 200 tokens),
no two the same; passages are handed over, so that only writing is measured. `openvino` and `torch` are `/v1/chat/completions`,
streamed, of an application on 127.0.0.1 in this process, OpenVINO's model in one of its own (strategy together); `raw` is the same
pipeline of openvino-genai without ragray above it, on the same token ids; `transformers` is `generate`, one request at a time. All in
one run: compare the ratios. The first request of each client begins when those of all others do; the times to the first text leave
it out, `burst` has it.
"""

import argparse
import asyncio
import itertools
import json
import os
import platform
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import torch
import uvicorn
from rich.console import Console
from rich.table import Table

import ragray
from ragray.artifact.files import write_json
from ragray.config import GenerateConfig, ServeConfig
from ragray.generate.engine import GenerationRequest, Sampling
from ragray.generate.engines.openvino import OpenVinoGenerator, pipeline_request
from ragray.generate.engines.transformer import TransformerGenerator
from ragray.generate.generator import Generator
from ragray.generate.load import load_generator
from ragray.retrieve.retriever import AS_SET, SearchOptions
from ragray.serve.app import create_app
from ragray.serve.local import LocalAnswerer
from ragray.types import Hit, Passage, RetrievalResult

RESULTS = Path(__file__).parent / "results" / "serving.json"
SAMPLE = Path(ragray.__file__).parent / "sample"
ONE_BY_ONE = 6
ROUNDS = 4
"""Requests of each client at least."""

SLOW = ("torch",)
GOALS = "goals at 16 clients: at least 0.9 of raw, at least 8 times transformers, first token p95 below 2 s"

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--systems", default="raw,openvino,transformers,torch")
parser.add_argument("--requests", type=int, default=32, help="requests per measurement; a quarter of them for torch")
parser.add_argument("--tokens", default="8,30", help="tokens per answer at most")
parser.add_argument("--clients", default="1,4,16")
parser.add_argument("--port", type=int, default=8891)
parser.add_argument("--results", type=Path, default=RESULTS)


@dataclass(frozen=True)
class Timed:
    """One request: seconds to its first text and to its end, whether it failed, and whether it began together with all others."""

    first_s: float
    whole_s: float
    failed: bool = False
    in_burst: bool = False


@dataclass(frozen=True)
class Measured:
    """What a system did with so many clients and tokens."""

    system: str
    clients: int
    tokens: int
    requests: int
    requests_per_s: float
    first_p50_s: float
    first_p95_s: float
    burst_p95_s: float | None
    errors: int

    @classmethod
    def of(cls, system: str, clients: int, tokens: int, seconds: float, timed: Sequence[Timed]) -> "Measured":
        good = [each for each in timed if not each.failed]
        burst, first = ([each.first_s for each in good if each.in_burst is way] for way in (True, False))
        p50, p95 = (round(float(np.percentile(first, percent)), 3) for percent in (50, 95))
        burst_p95 = round(float(np.percentile(burst, 95)), 3) if burst else None
        errors = sum(each.failed for each in timed)
        rate = (len(timed) - errors) / seconds
        return cls(system, clients, tokens, len(timed), round(rate, 3), p50, p95, burst_p95, errors)


def questions() -> Iterator[GenerationRequest]:
    """Yield questions with two passages each, the pair another one every time."""
    lines = (SAMPLE / "corpus.jsonl").read_text(encoding="utf-8").splitlines()
    documents = [json.loads(line) for line in lines]
    hits = [Hit(Passage(each["id"], each["text"][:450], each.get("title", "")), 1.0) for each in documents]
    asked = [json.loads(line)["question"] for line in (SAMPLE / "test.jsonl").read_text(encoding="utf-8").splitlines()]
    for number, (one, other) in enumerate(itertools.combinations(hits, 2)):
        yield GenerationRequest(f"{asked[number % len(asked)]} ({number})", (one, other))


class Prepared:
    """The port `Retriever`: every question has its passages already."""

    snapshot = "bench"
    models = None

    def __init__(self) -> None:
        self.hits: dict[str, tuple[Hit, ...]] = {}

    def search(self, queries: Sequence[str], k: int, options: SearchOptions = AS_SET) -> list[RetrievalResult]:
        return [RetrievalResult(self.snapshot, self.hits[query]) for query in queries]


@contextmanager
def serving(generator: Generator, retriever: Prepared, port: int) -> Iterator[str]:
    """Serve on the loopback; yield the address of the route."""
    answerer = LocalAnswerer(retriever, generator, k=2, model="bench", numbered=True, max_waiting=256)  # type: ignore[arg-type] # a retriever of fixed passages
    app = create_app(answerer, ServeConfig(request_timeout_s=600))
    server = uvicorn.Server(uvicorn.Config(app, host="127.0.0.1", port=port, log_level="error"))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.05)
    try:
        yield f"http://127.0.0.1:{port}/v1/chat/completions"
    finally:
        server.should_exit = True
        thread.join()
        answerer.close()


async def one_over_http(client: httpx.AsyncClient, url: str, request: GenerationRequest, tokens: int) -> Timed:
    """Ask one question, streamed."""
    body = {"model": "bench", "messages": [{"role": "user", "content": request.question}], "max_tokens": tokens}
    started, first, ended = time.monotonic(), 0.0, False
    async with client.stream("POST", url, json={**body, "stream": True}) as response:
        async for line in response.aiter_lines():
            if not first and '"content":' in line and '"content":""' not in line.replace(" ", ""):
                first = time.monotonic() - started
            ended = ended or line == "data: [DONE]"
    whole = time.monotonic() - started
    return Timed(first or whole, whole, response.status_code != 200 or not ended)


def over_http(url: str, requests: Sequence[GenerationRequest], clients: int, tokens: int) -> list[Timed]:
    """Let so many clients ask all questions."""

    async def run() -> list[Timed]:
        waiting, timed = iter(requests), list[Timed]()

        async def loop(client: httpx.AsyncClient) -> None:
            for number, request in enumerate(waiting):
                timed.append(replace(await one_over_http(client, url, request, tokens), in_burst=number == 0))

        async with httpx.AsyncClient(timeout=600, limits=httpx.Limits(max_connections=clients)) as client:
            await asyncio.gather(*(loop(client) for _ in range(clients)))
        return timed

    return asyncio.run(run())


def raw(generator: OpenVinoGenerator, requests: Sequence[GenerationRequest], clients: int, tokens: int) -> list[Timed]:
    """Let the pipeline write the same prompts, so many at a time."""
    waiting, running, timed, burst = iter(requests), list[list[Any]](), list[Timed](), True
    while True:
        for request in itertools.islice(waiting, clients - len(running)):
            row = generator.strategy.prompts(request).prompts[0]
            running.append([time.monotonic(), 0.0, pipeline_request(generator, row, Sampling(tokens)), burst])
        burst = False
        if not running:
            return timed
        generator.pipeline.step()
        now = time.monotonic()
        for each in list(running):
            while each[2].can_read():
                each[1] = each[1] or now - each[0]
                if any(output.finish_reason.name != "NONE" for output in each[2].read().values()):
                    running.remove(each)
                    timed.append(Timed(each[1], now - each[0], in_burst=each[3]))


def one_by_one(generator: TransformerGenerator, requests: Sequence[GenerationRequest], tokens: int) -> list[Timed]:
    """Let `transformers` write the same prompts, one after the other."""
    timed = []
    for request in requests:
        started = time.monotonic()
        written(generator, request, tokens)
        timed.append(Timed(time.monotonic() - started, time.monotonic() - started))
    return timed


def written(generator: TransformerGenerator, request: GenerationRequest, tokens: int) -> list[int]:
    """Return the ids that `transformers` writes greedily."""
    [row] = generator.strategy.prompts(request).prompts
    with torch.inference_mode():
        ids = generator.model.model.generate(
            torch.tensor([list(row)]), max_new_tokens=tokens, do_sample=False, pad_token_id=generator.model.pad_id
        )
    return [token for token in ids[0][len(row) :].tolist() if token not in generator.model.stop_ids()]


def equal_tokens(ours: OpenVinoGenerator, theirs: TransformerGenerator, requests: Sequence[GenerationRequest]) -> float:
    """Return the share of tokens up to the first that differs, over greedy answers of 30 tokens."""
    equal = total = 0
    for request in requests:
        row = ours.strategy.prompts(request).prompts[0]
        handle, found = pipeline_request(ours, row, Sampling(30)), list[int]()
        while ours.pipeline.has_non_finished_requests():
            ours.pipeline.step()
            while handle.can_read():
                found += [token for output in handle.read().values() for token in output.generated_ids]
        found = [token for token in found if token not in ours.stop_ids]
        expected = written(theirs, request, 30)
        equal += len(list(itertools.takewhile(lambda pair: pair[0] == pair[1], zip(found, expected, strict=False))))
        total += max(len(found), len(expected))
    return equal / total


def measure(name: str, clients: int, tokens: int, run: Callable[[], list[Timed]], found: list[Measured]) -> None:
    """Time one run, and show it."""
    started = time.monotonic()
    timed = run()
    found.append(Measured.of(name, clients, tokens, time.monotonic() - started, timed))
    print(found[-1], flush=True)


def main() -> None:
    """Measure all systems, print the table, write the JSON."""
    args = parser.parse_args()
    systems, tokens = args.systems.split(","), [int(number) for number in args.tokens.split(",")]
    numbers_of_clients = [int(number) for number in args.clients.split(",")]
    config = GenerateConfig(strategy="together", max_new_tokens=max(tokens), batch_size=max(numbers_of_clients))
    asked, found = questions(), list[Measured]()

    def next_requests(number: int) -> list[GenerationRequest]:
        return list(itertools.islice(asked, number))

    openvino = OpenVinoGenerator.load(config)
    plain = TransformerGenerator.load(config, device="cpu")
    served = load_generator(config.model_copy(update={"engine": "openvino"}), device="cpu")
    generators: dict[str, Generator] = {"openvino": served, "torch": plain}
    share = equal_tokens(openvino, plain, next_requests(ONE_BY_ONE))
    print(f"greedy tokens equal to those of transformers: {share:.3f}", flush=True)
    for most in tokens:
        for name in systems:
            if name == "transformers":
                requests = next_requests(ONE_BY_ONE)
                measure(name, 1, most, lambda r=requests, t=most: one_by_one(plain, r, t), found)  # type: ignore[misc] # a lambda with defaults
                continue
            prepared = Prepared()
            number = max(args.requests // 4, 4) if name in SLOW else args.requests
            plan = {clients: next_requests(max(number, ROUNDS * clients)) for clients in numbers_of_clients}
            if name == "raw":
                for clients, requests in plan.items():
                    measure(name, clients, most, lambda r=requests, c=clients, t=most: raw(openvino, r, c, t), found)  # type: ignore[misc] # a lambda with defaults
                continue
            prepared.hits = {one.question: one.hits for requests in plan.values() for one in requests}
            with serving(generators[name], prepared, args.port) as url:
                for clients, requests in plan.items():
                    measure(name, clients, most, lambda r=requests, c=clients, t=most: over_http(url, r, c, t), found)  # type: ignore[misc] # a lambda with defaults
    table(found)
    machine = {"cores": os.cpu_count(), "machine": platform.machine(), "load": os.getloadavg()[0]}
    args.results.parent.mkdir(exist_ok=True)
    content = {"machine": machine, "equal_tokens": share, "measured": [asdict(each) for each in found]}
    write_json(args.results, content)


def table(found: Sequence[Measured]) -> None:
    """Print one table; the last columns compare with `raw` of as many clients and with `transformers`."""
    by = {(each.system, each.clients, each.tokens): each.requests_per_s for each in found}
    shown = Table(title="answers", title_justify="left", caption=GOALS, caption_justify="left")
    for heading in (
        "system",
        "clients",
        "tokens",
        "requests/s",
        "first p50 s",
        "first p95 s",
        "burst p95 s",
        "errors",
        "of raw",
        "of one by one",
    ):
        shown.add_column(heading, justify="right")
    for each in found:
        raws, alone = by.get(("raw", each.clients, each.tokens)), by.get(("transformers", 1, each.tokens))
        ratios = [f"{each.requests_per_s / rate:.2f}" if rate else "-" for rate in (raws, alone)]
        numbers = (each.requests_per_s, each.first_p50_s, each.first_p95_s, each.burst_p95_s or float("nan"))
        shown.add_row(
            each.system, str(each.clients), str(each.tokens), *(f"{n:.2f}" for n in numbers), str(each.errors), *ratios
        )
    Console(width=110).print(shown)
