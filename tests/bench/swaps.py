"""A service under steady load while its index is swapped, a bad snapshot is promoted, its processes are killed, a key is revoked.

    python -m tests.bench swaps [--minutes 10] [--clients 8] [--port 8850] [serve.retriever=gateway ...]

A service of its own (fake encoder and generator) answers searches, answers and streamed chats in turns. Passages say which snapshot
they belong to, so that every citation can be held against the snapshot that the response's header names. Reported are all responses
but 200, by what had happened in the seconds before, and every answer whose passages are not those of its snapshot.
"""

import argparse
import asyncio
import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import faiss
import httpx
import numpy as np
from rich.console import Console
from rich.table import Table

from ragray.artifact.files import write_json
from ragray.artifact.manifest import publish, read_manifest
from ragray.config import IndexConfig
from ragray.index.store.lifecycle import promote, rollback
from ragray.index.store.segment import FAISS_FILE
from ragray.index.store.snapshot import (
    SEGMENTS,
    find_current,
    publish_snapshot,
    read_snapshot,
    successor,
    write_current,
)
from ragray.serve.access.keys import add_key, revoke_key
from ragray.types import Passage
from tests import helpers
from tests.processes import descendants

RESULTS = Path(__file__).parent / "results" / "swaps.json"
ROWS = 60
SWAPS = 20
AFTER_S = 20.0
"""Seconds after an event within which a response that is not 200 is counted as its consequence."""

REVOKED_WITHIN_S = 3.0

COLOURS = ("red", "blue")
TITLES = {
    "shard": "ray::ShardSearcher",
    "retriever": "ray::ServeReplica:ragray:Retriever",
    "generator": "ray::ServeReplica:ragray:Generator",
    "gateway": "ray::ServeReplica:ragray:Gateway",
}

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--minutes", type=float, default=10)
parser.add_argument("--clients", type=int, default=8)
parser.add_argument("--port", type=int, default=8850)
parser.add_argument("--results", type=Path, default=RESULTS)
parser.add_argument("settings", nargs="*", default=[])


def write_snapshots(folder: Path) -> dict[str, str]:
    """Write an index of two snapshots and one whose FAISS file is of other vectors; return their names by colour."""
    names: dict[str, str] = {}
    for colour in COLOURS:
        passages = [Passage(f"{colour}-{n}", f"{helpers.sentence(n)} in {colour}.", "", f"d{n}") for n in range(ROWS)]
        corpus = helpers.write_corpus(folder / colour / "corpus", passages)
        embeddings = helpers.write_embeddings(folder / colour / "embeddings", corpus)
        name = f"00000{len(names) + 1}-{colour}"
        config = IndexConfig(segment_rows=ROWS // 3, lexical="plain")
        helpers.write_index(folder / "index", embeddings, corpus, config, name=name)
        names[colour] = name
    names["bad"] = "000003-bad"
    helpers.write_index(folder / "index", embeddings, corpus, name=names["bad"])
    garble(next((folder / "index" / SEGMENTS).glob("000003-bad*")))
    write_current(folder / "index", names["red"])
    return names


def garble(segment: Path) -> None:
    """Let FAISS hold vectors that no row has; sizes and checksums of the manifest are right."""
    manifest = read_manifest(segment, "segment")
    index = faiss.IndexIVFFlat(faiss.IndexFlatIP(64), 64, 8, faiss.METRIC_INNER_PRODUCT)
    vectors = np.random.default_rng(0).normal(size=(ROWS, 64)).astype(np.float32)
    index.train(vectors)
    index.add(vectors)
    faiss.write_index(index, str(segment / FAISS_FILE))
    files = [segment / entry.path for entry in manifest.files]
    publish(segment, kind="segment", fingerprint=manifest.fingerprint, facts=manifest.facts, files=files)


@dataclass
class Load:
    """The clients, and what they saw."""

    url: str
    secrets: dict[str, str]
    colours: dict[str, str]
    """The colour of each snapshot."""
    ended: bool = False
    last_event: tuple[float, str] = (0.0, "")
    done: Counter[str] = field(default_factory=Counter)
    failed: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)
    switched: list[tuple[float, str]] = field(default_factory=list)
    slowest_s: float = 0.0
    revoked_at: float = 0.0

    async def run(self, clients: int) -> None:
        """Ask until `ended`."""
        limits = httpx.Limits(max_connections=clients, max_keepalive_connections=0)
        async with httpx.AsyncClient(base_url=self.url, timeout=120, limits=limits) as client:
            await asyncio.gather(*(self._ask(client, number) for number in range(clients)))

    async def _ask(self, client: httpx.AsyncClient, number: int) -> None:
        asks = (self._search, self._answer, self._chat)
        while not self.ended:
            number += 1
            started = time.monotonic()
            name = "stays" if number % 8 else "revoked"
            headers = {"Authorization": f"Bearer {self.secrets[name]}"}
            kind = asks[number % 3].__name__[1:]
            try:
                seen = await asks[number % 3](client, helpers.sentence(number % ROWS), headers)
            except httpx.HTTPError as err:
                seen = type(err).__name__
            self.slowest_s = max(self.slowest_s, time.monotonic() - started)
            if name == "revoked" and self.revoked_at:
                self._hold_refused(seen, started)
            elif seen:
                happened, event = self.last_event
                after = event if time.monotonic() - happened < AFTER_S else "nothing"
                self.failed[f"{kind}: {seen} after {after}"] += 1
                await asyncio.sleep(0.2)
            else:
                self.done[kind] += 1

    def _hold_refused(self, seen: str, started: float) -> None:
        """A revoked key is refused with 401, after a moment in which its file is read again."""
        if seen == "401":
            self.done["refused with the revoked key"] += 1
        elif started > self.revoked_at + REVOKED_WITHIN_S:
            self.wrong.append(f"revoked key: {seen or 200}")

    async def _search(self, client: httpx.AsyncClient, text: str, headers: dict[str, str]) -> str:
        response = await client.post("/v1/search", json={"query": text, "k": 3}, headers=headers)
        return self._checked(response, lambda body: [hit["id"] for hit in body["hits"]])

    async def _answer(self, client: httpx.AsyncClient, text: str, headers: dict[str, str]) -> str:
        response = await client.post("/v1/answer", json={"question": text, "k": 3}, headers=headers)
        return self._checked(response, lambda body: [cited["id"] for cited in body["citations"]])

    async def _chat(self, client: httpx.AsyncClient, text: str, headers: dict[str, str]) -> str:
        body = {"model": "first-sentence", "messages": [{"role": "user", "content": text}], "stream": True}
        async with client.stream("POST", "/v1/chat/completions", json=body, headers=headers) as response:
            content = (await response.aread()).decode()
        if response.status_code != 200:
            return f"{response.status_code}"
        events = [line.removeprefix("data: ") for line in content.splitlines() if line.startswith("data: ")]
        parsed = [json.loads(each) for each in events if each != "[DONE]"]
        if any("error" in each for each in parsed):
            return "error event"
        if events[-1] != "[DONE]":
            return "cut off"
        self._hold(response, [cited["id"] for each in parsed for cited in each.get("citations") or []])
        return ""

    def _checked(self, response: httpx.Response, ids: Callable[[dict], list[str]]) -> str:  # type: ignore[type-arg] # a JSON body
        if response.status_code == 200:
            self._hold(response, ids(response.json()))
            return ""
        return f"{response.status_code}"

    def _hold(self, response: httpx.Response, ids: list[str]) -> None:
        """Hold the passages of an answer against the snapshot that its header names."""
        snapshot = response.headers.get("x-ragray-snapshot", "none")
        if {each.partition("-")[0] for each in ids} != {self.colours.get(snapshot)}:
            self.wrong.append(f"{response.request.url.path}: {snapshot} cites {ids}")
        if not self.switched or self.switched[-1][1] != snapshot:
            self.switched.append((time.monotonic(), snapshot))


@dataclass
class Event:
    """Something that happens at a share of the time."""

    at: float
    name: str
    do: Callable[[], None]


def events(folder: Path, names: dict[str, str], colours: dict[str, str], pid: int, keys: Path) -> list[Event]:
    """Return what happens: swaps all the time, everything else in between."""
    index = folder / "index"

    def swap() -> None:
        current = find_current(index)
        promote(index, names["blue"] if current == names["red"] else names["red"])

    def sync_and_back() -> None:
        """Publish a child of the current snapshot, as `sync` does, and go back to its parent."""
        parent = read_snapshot(index, names["red"])
        child = successor(index, parent, f"child {time.time()}", parent.segments)
        promote(index, parent.name)
        publish_snapshot(index, child, expected=parent.name)
        colours[child.name] = "red"
        rollback(index)

    def kill(kind: str) -> Callable[[], None]:
        def do() -> None:
            found = descendants(pid, TITLES[kind].encode())
            print(f"  kill {kind}: {found[:1]} of {len(found)}", flush=True)
            for process in found[:1]:
                os.kill(process, signal.SIGKILL)

        return do

    def bad() -> None:
        write_current(index, names["bad"])

    swaps = [Event((number + 0.5) / SWAPS, "swap", swap) for number in range(SWAPS)]
    swaps[SWAPS // 2] = Event(swaps[SWAPS // 2].at, "rollback", sync_and_back)
    others = [
        Event(0.11, "revoked key", lambda: revoke_key(keys, "revoked")),
        Event(0.21, "bad snapshot", bad),
        Event(0.31, "killed shard", kill("shard")),
        Event(0.41, "killed retriever", kill("retriever")),
        Event(0.61, "killed generator", kill("generator")),
        Event(0.81, "killed gateway", kill("gateway")),
    ]
    return sorted([*swaps, *others], key=lambda event: event.at)


async def measure(load: Load, planned: list[Event], clients: int, minutes: float) -> list[str]:
    """Run the clients, let everything happen in time; return what `/readyz` said after each event."""
    asking, said = asyncio.create_task(load.run(clients)), []
    started = time.monotonic()
    headers = {"Authorization": f"Bearer {load.secrets['stays']}"}
    async with httpx.AsyncClient(base_url=load.url, timeout=30) as client:
        for event in planned:
            await asyncio.sleep(max(0.0, started + 60 * minutes * event.at - time.monotonic()))
            load.last_event = time.monotonic(), event.name
            await asyncio.to_thread(event.do)
            if event.name == "revoked key":
                load.revoked_at = time.monotonic()
            await asyncio.sleep(3)
            try:
                ready = (await client.get("/readyz", headers=headers)).json()
                said.append(f"{event.name}: {ready.get('snapshot')} {ready.get('status')} {ready.get('last_error')}")
            except (httpx.HTTPError, ValueError) as err:
                said.append(f"{event.name}: {type(err).__name__}")
            counts = f"{sum(load.done.values())} answered, {sum(load.failed.values())} not, {len(load.wrong)} wrong"
            print(f"{time.monotonic() - started:6.1f} s {said[-1]}; {counts}", flush=True)
        await asyncio.sleep(max(0.0, started + 60 * minutes - time.monotonic()))
    load.ended = True
    await asyncio.wait_for(asking, 120)
    return said


def await_ready(url: str, process: subprocess.Popen[bytes]) -> None:
    """Wait until the service can answer."""
    while True:
        if process.poll() is not None:
            sys.exit("the service ended before it was ready")
        try:
            if httpx.get(f"{url}/readyz", timeout=10).status_code == 200:
                return
        except httpx.TransportError:
            pass
        time.sleep(0.5)


def main() -> None:
    """Start the service, measure, print one table, write the JSON."""
    args = parser.parse_args()
    url = f"http://127.0.0.1:{args.port}"
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        names, keys = write_snapshots(folder), folder / "keys.json"
        secrets = {name: add_key(keys, name) for name in ("stays", "revoked")}
        settings = [
            f"serve.port={args.port}",
            f"serve.keys_file={keys}",
            "generate.model=first-sentence",
            *args.settings,
        ]
        command = [sys.executable, "-m", "ragray.cli", "serve", "--index", str(folder / "index"), *settings]
        process = subprocess.Popen(command, start_new_session=True)
        try:
            await_ready(url, process)
            colours = {names[colour]: colour for colour in COLOURS} | {names["bad"]: "bad"}
            load = Load(url, secrets, colours)
            planned = events(folder, names, colours, process.pid, keys)
            said = asyncio.run(measure(load, planned, args.clients, args.minutes))
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGTERM)
            process.wait(120)
    report(load, said, args)


def report(load: Load, said: list[str], args: argparse.Namespace) -> None:
    """Print the table, write the JSON."""
    total = sum(load.done.values())
    shown = Table(title=f"{args.minutes:g} minutes, {args.clients} clients: {total} answered", title_justify="left")
    shown.add_column("not answered")
    shown.add_column("requests", justify="right")
    for what, number in sorted(load.failed.items()):
        shown.add_row(what, str(number))
    shown.add_row("answered from other passages than the header's snapshot", str(len(load.wrong)))
    Console(width=110).print(shown)
    print(f"{len(load.switched)} switches seen; slowest answer {load.slowest_s:.1f} s; wrong: {load.wrong[:3]}")
    result = {
        "minutes": args.minutes,
        "clients": args.clients,
        "settings": args.settings,
        "cores": os.cpu_count(),
        "load": os.getloadavg()[0],
        "answered": dict(load.done),
        "failed": dict(load.failed),
        "wrong": load.wrong,
        "switches": len(load.switched),
        "slowest_s": round(load.slowest_s, 2),
        "ready": said,
    }
    args.results.parent.mkdir(exist_ok=True)
    write_json(args.results, result)


if __name__ == "__main__":
    main()
