"""Training while its passages are embedded again: gaps between steps with and without a refresh, and a driver killed during one.

    python -m tests.bench refresh [--passages 2000] [--steps 90] [--every 30]

Models of random weights, one worker of one thread, a refresh of one CPU at low priority, 24 examples per step. A gap is the time between
the ends of two steps, whatever happens there but checkpoints, of which there are none in the measured runs. Run `alone` has a frozen
index; in run `refreshed` gaps are told by whether an index was being made. Run `killed` ends by SIGKILL of its driver while passages are
embedded, and the same command is given again.
"""

import argparse
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path

from rich.console import Console
from rich.table import Table
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from ragray.artifact.files import write_json
from ragray.config import EncoderConfig
from ragray.index.store.snapshot import read_snapshot
from ragray.run import Run
from ragray.train.metrics import TENSORBOARD_FOLDER, read_metrics
from tests import helpers, tiny

RESULTS = Path(__file__).parent / "results" / "refresh.json"
WARM = 5
"""Steps at the beginning that are not measured."""

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--passages", type=int, default=2000)
parser.add_argument("--steps", type=int, default=90)
parser.add_argument("--every", type=int, default=30)
parser.add_argument("--results", type=Path, default=RESULTS)


@dataclass(frozen=True)
class Gaps:
    """Seconds between the ends of neighbouring steps."""

    what: str
    num_gaps: int
    median_s: float
    largest_s: float

    @property
    def ratio(self) -> float:
        """The largest gap in medians."""
        return self.largest_s / max(self.median_s, 1e-6)


@dataclass(frozen=True)
class Rig:
    """An index, examples, and the command that trains on them."""

    folder: Path
    steps: int

    def write(self, passages: int) -> None:
        """Write models, index and examples."""
        encoder = EncoderConfig(model=str(tiny.save_encoder(self.folder / "encoder")), max_length=64)
        tiny.save_decoder(self.folder / "decoder")
        corpus = helpers.write_corpus(self.folder / "corpus", helpers.some_passages(passages))
        embeddings = helpers.write_embeddings(self.folder / "embeddings", corpus, config=encoder, block_rows=200)
        helpers.write_index(self.folder / "index", embeddings, corpus)
        lines = [{"id": str(n), "question": f"{helpers.sentence(n)}?", "answers": [f"at {n % 7}"]} for n in range(64)]
        (self.folder / "train.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")

    def command(self, run: str, every: int) -> list[str]:
        """Return the command of a run; the one that is killed saves checkpoints."""
        names: dict[str, object] = {
            "max_steps": self.steps,
            "epochs": 1000,
            "batch_size": 4,
            "gradient_accumulation": 6,
            "logging_steps": 1,
        }
        names |= {"checkpoint_steps": 5 if run == "killed" else self.steps, "threads_per_worker": 1}
        names |= {"passage_encoder": "true", "refresh_steps": every, "generator_lr": 1e-3}
        settings = [f"train.{key}={value}" for key, value in names.items()]
        settings += [f"generate.model={self.folder / 'decoder'}", "retrieve.k=3", "embed.block_rows=200"]
        paths = ["--index", "index", "--examples", "train.jsonl", "--out", run]
        return [sys.executable, "-m", "ragray.cli", "train", *paths, *settings]

    def run(self, run: str, every: int) -> list[str]:
        """Train to the end; return what was logged."""
        ended = subprocess.run(self.command(run, every), cwd=self.folder, capture_output=True, text=True, check=False)
        if ended.returncode:
            raise SystemExit(ended.stderr)
        return ended.stderr.splitlines()

    def times(self, run: str) -> list[tuple[int, float, float]]:
        """Return for every step when it ended and how old its index was then."""
        events = EventAccumulator(str(self.folder / run / TENSORBOARD_FOLDER)).Reload()
        ages = {int(one["step"]): one.get("index_age_steps", 0.0) for one in read_metrics(self.folder / run)}
        return [(one.step, one.wall_time, ages[one.step]) for one in events.Scalars("train/loss")]


def gaps(what: str, seconds: list[float]) -> Gaps:
    """Sum up some gaps."""
    return Gaps(what, len(seconds), round(statistics.median(seconds), 4), round(max(seconds), 4))


def measured(rig: Rig, every: int) -> list[Gaps]:
    """Train with a frozen index and with refreshes; return the gaps of both."""
    rig.run("alone", 0)
    log = rig.run("refreshed", every)
    print(*(line for line in log if "is ready after" in line), sep="\n")
    alone, refreshed = rig.times("alone")[WARM:], rig.times("refreshed")[WARM:]
    found = [gaps("index frozen", [after[1] - before[1] for before, after in pairwise(alone)])]
    during, between = [], []
    begun = False
    for before, after in pairwise(refreshed):
        begun = (begun or before[0] % every == 0) and after[2] > before[2]
        (during if begun or after[2] <= before[2] else between).append(after[1] - before[1])
    found.append(gaps("an index is being made", during))
    if between:
        found.append(gaps("no index is being made", between))
    spent = [one["refresh_seconds"] for one in read_metrics(rig.folder / "refreshed")]
    return [*found, gaps("of which saving weights and exchanging indexes takes", spent)]


def killed(rig: Rig, every: int) -> dict[str, object]:
    """Kill a driver while passages are embedded; give the command again; return what went on."""
    refresh = rig.folder / "killed" / ".train" / "refresh"
    driver = subprocess.Popen(
        rig.command("killed", every), cwd=rig.folder, stderr=subprocess.DEVNULL, start_new_session=True
    )
    while not (blocks := [path for path in refresh.glob("step-*/embeddings/blocks/block-*") if path.exists()]):
        if driver.poll() is not None:
            raise SystemExit("the run ended before it could be killed; raise --passages")
        time.sleep(0.02)
    os.killpg(driver.pid, signal.SIGKILL)
    driver.wait()
    time.sleep(3)  # until its cluster has ended too
    reached = max((int(line["step"]) for line in read_metrics(rig.folder / "killed")), default=0)
    log = rig.run("killed", every)
    steps = [int(line["step"]) for line in read_metrics(rig.folder / "killed")]
    run, own = Run.open(rig.folder / "killed"), read_snapshot(rig.folder / "killed" / "index")
    return {
        "killed after step": reached,
        "with blocks embedded": len(blocks),
        "indexes ready afterwards": sum("is ready after" in line for line in log),
        "every step once": steps == list(range(1, rig.steps + 1)),
        "the run and its index belong together": run.facts.encoder == own.encoder,
        "left in the run": sorted(path.name for path in run.folder.iterdir()),
    }


def main() -> None:
    """Measure, print, write."""
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        rig = Rig(Path(folder), options.steps)
        rig.write(options.passages)
        found = measured(rig, options.every)
        after_kill = killed(rig, options.every)
    table = Table("gaps between steps", "number", "median s", "largest s", "largest / median")
    for one in found:
        table.add_row(one.what, str(one.num_gaps), f"{one.median_s:.3f}", f"{one.largest_s:.3f}", f"{one.ratio:.2f}")
    Console().print(table)
    Console().print(after_kill)
    load = os.getloadavg()[1]
    rows = [asdict(one) | {"ratio": round(one.ratio, 3)} for one in found]
    write_json(options.results, {"options": {k: v for k, v in vars(options).items() if k != "results"}, "load": load,
                                 "cpus": os.cpu_count(), "gaps": rows, "killed": after_kill})  # fmt: skip


if __name__ == "__main__":
    main()
