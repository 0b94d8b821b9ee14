"""Random kills over `embed` and `index build` on a two-node cluster. In: the squad-open data. Out: one table and a JSON of results.

    python -m tests.bench kills --data ../shared/data/squad-open

A third of the kills each hits the driver, an actor or task, and a whole worker node (a fresh one joins), always by SIGKILL and at
random moments. Every round embeds and indexes the corpus anew and takes as many kills as fit into it; after a killed driver the same
command runs again with a random number of workers. Then every block must equal that of an undisturbed run byte by byte, and the index
must hold every passage once. Recomputed are the blocks and segments that a process had begun when it died.
"""

import argparse
import gzip
import json
import os
import platform
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from rich.console import Console
from rich.table import Table

from ragray.api import build_index, embed_corpus
from ragray.artifact.files import write_json
from ragray.cluster.session import prepare_environment
from ragray.config import load_config
from ragray.embed.blocks import BLOCK_FOLDER, Embeddings
from ragray.index.search.reader import IndexReader
from ragray.index.store.snapshot import SEGMENTS
from ragray.types import Passage
from tests.helpers import write_corpus
from tests.processes import descendants

RESULTS = Path(__file__).parent / "results" / "kills.json"
ROOT = Path(__file__).parents[2]
KINDS = ("driver", "actor", "node")
TITLES = {"embed": b"EmbedBlocks", "index": b"ray::BuildSegments"}
NODE_CPUS = 3
POLL_S = 0.05
PATIENCE_S = 600
KILLS_PER_STAGE = 3
"""At most, in one round: so that both stages get their share."""

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--data", type=Path, default=Path("../shared/data/squad-open"))
parser.add_argument("--kills", type=int, default=30)
parser.add_argument("--passages", type=int, default=20_000)
parser.add_argument("--seed", type=int, default=0)
parser.add_argument("--results", type=Path, default=RESULTS)
parser.add_argument("--stages", nargs="+", default=["embed", "index"], choices=["embed", "index"])
parser.add_argument("--job", nargs=4, metavar=("STAGE", "FOLDER", "ADDRESS", "WORKERS"), help=argparse.SUPPRESS)


@dataclass
class Tally:
    """What was counted over all rounds."""

    kills: Counter[str] = field(default_factory=Counter)
    rounds: int = 0
    runs: int = 0
    units: Counter[str] = field(default_factory=Counter)
    recomputed: Counter[str] = field(default_factory=Counter)
    lost: int = 0
    doubled: int = 0
    blocks_that_differ: int = 0
    finished_blocks_rewritten: int = 0
    seconds: float = 0


def job(stage: str, folder: Path, address: str, workers: str) -> None:
    """Be the driver: run one stage to its end."""
    overrides = [
        "embed.model=hash:256",
        "embed.block_rows=128",
        f"embed.num_workers={workers}",
        "index.segment_rows=1500",
    ]
    config = load_config(None, overrides)
    corpus, embeddings = folder.parent / "corpus", folder / "embeddings"
    if stage == "embed":
        embed_corpus(corpus, embeddings, config, address=address)
    else:
        build_index(embeddings, corpus, folder / "index", config, address=address)


class Watch:
    """Looks at a stage's folder again and again: which units were begun by a process that died, and were finished ones rewritten?"""

    def __init__(self, stage: str, folder: Path) -> None:
        self._begun = folder / "embeddings" / "attempts" if stage == "embed" else folder / "index" / SEGMENTS
        self._done = folder / "embeddings" / BLOCK_FOLDER if stage == "embed" else folder / "index" / SEGMENTS
        self._markers: dict[str, set[str]] = {}
        self._files: dict[str, int] = {}
        self.dead: set[str] = set()
        self.rewritten = 0

    @property
    def num_done(self) -> int:
        return len(self._files)

    def look(self) -> None:
        done = {path.name: path for path in self._done.glob("[!.]*")} if self._done.is_dir() else {}
        for name, path in done.items():
            changed = path.stat().st_mtime_ns if path.is_file() else 0
            self.rewritten += self._files.setdefault(name, changed) != changed
        present: dict[str, set[str]] = {}
        for path in self._begun.glob("*") if self._begun.is_dir() else []:
            if path.suffix == ".tmp" or self._begun != self._done:
                present.setdefault(path.name.lstrip(".").removesuffix(".tmp").rpartition(".")[0], set()).add(path.name)
        for unit, markers in present.items():
            before = self._markers.setdefault(unit, set())
            if markers - before or unit in self._files:
                self.dead |= markers & before
            before |= markers

    def until(self, moment: float, process: "subprocess.Popen[bytes]") -> bool:
        """Look until a moment, or the end of the process; say whether it still runs."""
        while process.poll() is None and time.monotonic() < moment:
            self.look()
            time.sleep(POLL_S)
        return process.poll() is None


class Chaos:
    """A cluster of two nodes, the kills that are still to come, and the tally."""

    def __init__(self, work: Path, passages: list[Passage], args: argparse.Namespace) -> None:
        from ray.cluster_utils import Cluster

        self.work, self.ids, self.stages = work, [passage.id for passage in passages], args.stages
        self.draw = random.Random(args.seed)
        self.pending = [KINDS[number % 3] for number in range(args.kills)]
        self.draw.shuffle(self.pending)
        self.tally = Tally()
        write_corpus(work / "corpus", passages, shard_rows=max(1, len(passages) // 3))
        self.cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": NODE_CPUS, "include_dashboard": False})
        self.node = self.cluster.add_node(num_cpus=NODE_CPUS)

    def start(self, stage: str, folder: Path) -> "subprocess.Popen[bytes]":
        workers = str(self.draw.randint(1, 4))
        self.tally.runs += 1
        command = [sys.executable, "-m", "tests.bench", "kills", "--job", stage, folder, self.cluster.address, workers]
        with (self.work / "drivers.log").open("ab") as log:
            return subprocess.Popen(command, cwd=ROOT, stdout=log, stderr=log)

    def stage(self, stage: str, folder: Path, *, disturbed: bool = True) -> Watch:
        """Run a stage to its end, through some of the pending kills."""
        watch, process = Watch(stage, folder), self.start(stage, folder)
        deadline = time.monotonic() + PATIENCE_S
        last = max(0, len(self.pending) - KILLS_PER_STAGE) if disturbed else len(self.pending)
        while True:
            working = len(self.pending) > last and self.wait_for_work(watch, process)
            if working and watch.until(time.monotonic() + self.draw.uniform(0, 2), process):
                self.kill(self.pending[-1], stage, process)
            else:
                watch.until(deadline, process)
            if process.poll() == 0:
                return watch
            if process.poll() is not None:
                if process.returncode != -signal.SIGKILL:
                    sys.exit(f"{stage} failed by itself:\n{(self.work / 'drivers.log').read_text()[-3000:]}")
                process = self.start(stage, folder)
            elif time.monotonic() > deadline:
                process.kill()
                raise TimeoutError(f"{stage}: no end after {PATIENCE_S} s")

    def wait_for_work(self, watch: Watch, process: "subprocess.Popen[bytes]") -> bool:
        """Wait until further units are done, in one case of five only for a moment; say whether the process still runs."""
        if self.draw.random() < 0.2:
            return watch.until(time.monotonic() + self.draw.uniform(0, 4), process)
        before, deadline = watch.num_done, time.monotonic() + PATIENCE_S
        while watch.num_done <= before and time.monotonic() < deadline:
            if not watch.until(time.monotonic() + POLL_S, process):
                return False
        return True

    def kill(self, kind: str, stage: str, process: "subprocess.Popen[bytes]") -> None:
        if kind == "driver":
            process.kill()
            process.wait()
        elif kind == "actor":
            if not (pids := descendants(os.getpid(), TITLES[stage])):
                return  # none at this moment: this kill is still to come
            os.kill(self.draw.choice(pids), signal.SIGKILL)
        else:
            self.cluster.remove_node(self.node, allow_graceful=False)
            self.node = self.cluster.add_node(num_cpus=NODE_CPUS)
        self.tally.kills[f"{kind}, {stage}"] += 1
        self.pending.pop()

    def round(self, reference: Path) -> None:
        folder = self.work / "round"
        shutil.rmtree(folder, ignore_errors=True)
        self.tally.rounds += 1
        for stage in self.stages:
            watch = self.stage(stage, folder)
            self.tally.units[stage] += watch.num_done
            self.tally.recomputed[stage] += len(watch.dead)
            self.tally.finished_blocks_rewritten += watch.rewritten
            self.compare(stage, folder, reference)

    def compare(self, stage: str, folder: Path, reference: Path) -> None:
        """Count the passages that a stage lost or doubled, and the blocks whose bytes are not those of the undisturbed run."""
        if stage == "embed":
            embeddings, undisturbed = (Embeddings.open(path / "embeddings") for path in (folder, reference))
            found = [i for ids, _ in embeddings.iter_blocks() for i in ids]
            assert len(embeddings.blocks) == len(undisturbed.blocks)
            pairs = zip(embeddings.blocks, undisturbed.blocks, strict=True)
            self.tally.blocks_that_differ += sum(one.read_bytes() != other.read_bytes() for one, other in pairs)
        else:
            segments = IndexReader.open(folder / "index").segments
            found = [i for opened in segments for i in opened.segment.passages["id"].to_pylist()]
        counts = Counter(found)
        self.tally.lost += len(set(self.ids) - set(counts))
        self.tally.doubled += sum(counts.values()) - len(counts)


def read_passages(data: Path, count: int) -> list[Passage]:
    with gzip.open(data / "corpus.jsonl.gz", "rt", encoding="utf-8") as file:
        rows = [json.loads(line) for line, _ in zip(file, range(count), strict=False)]
    return [Passage(row["id"], row["text"], row.get("title", "")) for row in rows]


def main() -> None:
    """Run everything, print the table, write the JSON."""
    args = parser.parse_args()
    if args.job:
        stage, folder, address, workers = args.job
        return job(stage, Path(folder), address, workers)
    if not (args.data / "corpus.jsonl.gz").is_file():
        sys.exit(f"{args.data}: no corpus.jsonl.gz there; name the squad-open folder with --data")
    prepare_environment()
    os.environ["PYTHONPATH"] = str(ROOT)
    with tempfile.TemporaryDirectory(prefix="ragray-kills-") as work:
        chaos = Chaos(Path(work), read_passages(args.data, args.passages), args)
        try:
            for stage in args.stages:
                chaos.stage(stage, Path(work) / "reference", disturbed=False)
            started = time.monotonic()
            while chaos.pending:
                chaos.round(Path(work) / "reference")
            chaos.tally.seconds = round(time.monotonic() - started, 1)
        finally:
            chaos.cluster.shutdown()
    report(chaos.tally, args)
    return None


def report(tally: Tally, args: argparse.Namespace) -> None:
    """Print one table and write the JSON."""
    shares = {stage: 100 * tally.recomputed[stage] / tally.units[stage] for stage in args.stages}
    shown = Table(title=f"{sum(tally.kills.values())} kills, {args.passages} passages", title_justify="left")
    shown.add_column("")
    shown.add_column("", justify="right")
    for kind, count in sorted(tally.kills.items()):
        shown.add_row(f"killed: {kind}", str(count))
    for name in ("rounds", "runs", "lost", "doubled", "blocks_that_differ", "finished_blocks_rewritten"):
        shown.add_row(name.replace("_", " "), str(getattr(tally, name)))
    for stage, share in shares.items():
        shown.add_row(f"recomputed: {stage}", f"{tally.recomputed[stage]} of {tally.units[stage]} ({share:.1f}%)")
    shown.add_row("seconds", f"{tally.seconds:.0f}")
    Console(width=100).print(shown)
    machine = {"cores": os.cpu_count(), "machine": platform.machine(), "python": platform.python_version()}
    content = {"machine": machine, "passages": args.passages, "seed": args.seed, **vars(tally)}
    write_json(args.results, content | {"recomputed_percent": shares})
