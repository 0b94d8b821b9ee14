"""Memory of `ragray ingest` and `ragray embed` at 25k and at 252k passages. In: the wiki-250k data. Out: one table and a JSON of results.

    python -m tests.bench memory --data ../shared/data/wiki-250k --work work/memory

The small corpus is the large one with each of its shards cut to a tenth, so that both run on the same number of workers; the encoder is
the fake `hash:384`. Measured is the proportional set size (PSS: shared pages count once) of the command with all its processes, Ray's
own included, every 0.2 s. Exits with an error where the peak of the large corpus is more than 1.2 times that of the small one.
"""

import argparse
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from time import monotonic, sleep

import pyarrow.parquet as pq
from rich.console import Console
from rich.table import Table

RESULTS = Path(__file__).parent / "results" / "memory.json"
SMALL_SHARD_ROWS = 3125
INTERVAL_S = 0.2
MAX_RATIO = 1.2
MIB = 1 << 20
SETTINGS = ["embed.model=hash:384"]

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--data", type=Path, default=Path("../shared/data/wiki-250k"))
parser.add_argument("--work", type=Path, help="write here, and keep it (default: a temporary folder)")
parser.add_argument("overrides", nargs="*", help="section.key=value, for instance ingest.near_duplicates=0.8")


@dataclass(frozen=True)
class Peak:
    """The largest memory that a command had: in all, and by the kind of process at that moment."""

    mib: float
    seconds: float
    processes: dict[str, float]


def tree(root: int) -> Iterator[int]:
    """Yield a process and all that it started."""
    children: dict[int, list[int]] = {}
    for folder in Path("/proc").iterdir():
        try:
            if folder.name.isdigit():
                parent = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
                children.setdefault(parent, []).append(int(folder.name))
        except (FileNotFoundError, ProcessLookupError):  # it has ended meanwhile
            continue
    ahead = [root]
    while ahead:
        process = ahead.pop()
        yield process
        ahead += children.get(process, ())


def pss_bytes(process: int) -> int:
    """Return the proportional set size of a process, 0 where it has ended."""
    try:
        lines = Path(f"/proc/{process}/smaps_rollup").read_text().splitlines()
    except (FileNotFoundError, ProcessLookupError, PermissionError):
        return 0
    return next((int(line.split()[1]) << 10 for line in lines if line.startswith("Pss:")), 0)


def kind(process: int, root: int) -> str:
    """Name what a process is for: the command itself, an actor, a part of Ray."""
    if process == root:
        return "command"
    try:
        line = Path(f"/proc/{process}/cmdline").read_bytes().decode(errors="replace").replace("\0", " ")
    except (FileNotFoundError, ProcessLookupError):
        return "ended"
    if line.startswith("ray::"):
        return line.split()[0].partition("(")[0].partition(".")[0]
    return next((part for part in ("raylet", "gcs_server", "agent", "monitor") if part in line), "other")


def measured(arguments: Sequence[str | Path]) -> Peak:
    """Run a command of ragray; sample its memory until it ends."""
    command = [sys.executable, "-m", "ragray.cli", *map(str, arguments), *SETTINGS]
    started = monotonic()
    best, processes = 0, Counter[str]()
    with subprocess.Popen(command, stdout=sys.stderr) as running:
        while running.poll() is None:
            sizes = {process: pss_bytes(process) for process in tree(running.pid)}
            if sum(sizes.values()) > best:
                best = sum(sizes.values())
                processes = Counter[str]()
                for process, size in sizes.items():
                    processes[kind(process, running.pid)] += size
            sleep(INTERVAL_S)
    if running.returncode:
        sys.exit(f"{' '.join(command)}: exit code {running.returncode}")
    by_kind = {name: round(size / MIB, 1) for name, size in processes.most_common()}
    return Peak(round(best / MIB, 1), round(monotonic() - started, 1), by_kind)


def make_small(shards: Sequence[Path], folder: Path) -> Path:
    """Write every shard anew with its first rows only."""
    folder.mkdir(parents=True, exist_ok=True)
    for shard in shards:
        with pq.ParquetFile(shard) as file:
            table = next(file.iter_batches(SMALL_SHARD_ROWS))
        with pq.ParquetWriter(folder / shard.name, table.schema) as writer:
            writer.write_batch(table)
    return folder


def run(data: Path, work: Path, overrides: Sequence[str]) -> dict[str, dict[str, Peak]]:
    """Measure both stages on both corpora."""
    shards = sorted(data.glob("*.parquet"))
    found: dict[str, dict[str, Peak]] = {}
    for size, source in {"25k": make_small(shards, work / "source"), "252k": data}.items():
        corpus, embeddings = work / size / "corpus", work / size / "embeddings"
        shutil.rmtree(work / size, ignore_errors=True)  # what is there already would cost nothing
        commands = {
            "ingest": ["ingest", source, "--out", corpus, *overrides],
            "embed": ["embed", corpus, "--out", embeddings, *overrides],
        }
        found[size] = {stage: measured(command) for stage, command in commands.items()}
    return found


def table(found: dict[str, dict[str, Peak]]) -> None:
    """Print one table."""
    shown = Table(title="peak PSS of the command and all its processes, MiB", title_justify="left")
    for heading in ("stage", *found, "ratio", "seconds", "at the peak of the larger"):
        shown.add_column(heading, justify="left" if heading in ("stage", "at the peak of the larger") else "right")
    for stage in found["25k"]:
        small, large = found["25k"][stage], found["252k"][stage]
        shares = ", ".join(
            f"{name} {small.processes.get(name, 0):.0f} -> {mib:.0f}" for name, mib in large.processes.items()
        )
        row = (f"{small.mib:.0f}", f"{large.mib:.0f}", f"{large.mib / small.mib:.2f}", f"{large.seconds:.0f}")
        shown.add_row(stage, *row, shares)
    Console(width=140).print(shown)


def main() -> None:
    """Run everything, print the table, write the JSON."""
    args = parser.parse_args()
    if not list(args.data.glob("*.parquet")):
        sys.exit(f"{args.data}: no Parquet files there; name the wiki-250k folder with --data")
    with tempfile.TemporaryDirectory() as temporary:
        found = run(args.data, args.work or Path(temporary), args.overrides)
    table(found)
    peaks = {size: max(peak.mib for peak in stages.values()) for size, stages in found.items()}
    ratio = round(peaks["252k"] / peaks["25k"], 3)
    machine = {"cores": os.cpu_count(), "machine": platform.machine(), "python": platform.python_version()}
    content = {"machine": machine, "overrides": args.overrides, "peak_mib": peaks, "ratio": ratio, "limit": MAX_RATIO}
    content["stages"] = {
        size: {stage: asdict(peak) for stage, peak in stages.items()} for size, stages in found.items()
    }
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    print(f"ingest + embed: {peaks['25k']:.0f} MiB at 25k, {peaks['252k']:.0f} MiB at 252k passages, ratio {ratio:.2f}")
    if ratio > MAX_RATIO:
        sys.exit(f"the ratio is above {MAX_RATIO}")
