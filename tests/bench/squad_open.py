"""Open-domain question answering on SQuAD, by the `ragray` commands. In: the squad-open data. Out: one table and a JSON of results.

    python -m tests.bench squad_open --data ../shared/data/squad-open --work work/squad-open

Uses 5,000 passages, among them the gold passages of 300 development questions, and measures recall@1/5/20 and exact match and F1
closed-book, with retrieved passages, and with retrieved passages after fine-tuning on training questions. Run it again after an
interruption and it goes on; a stage that is done keeps the seconds it took.
"""

import argparse
import gzip
import json
import os
import platform
import subprocess
import sys
from pathlib import Path
from time import monotonic

from rich.console import Console
from rich.table import Table

RESULTS = Path(__file__).parent / "results" / "squad_open.json"
NUM_PASSAGES = 5000
NUM_QUESTIONS = 300
SETTINGS = ["retrieve.k=2", "generate.max_new_tokens=16"]
TRAIN_SETTINGS = [
    "train.num_workers=2", "train.batch_size=2", "retrieve.k=2", "train.tune=last", "train.last_layers=12",
    "train.generator_lr=3e-4", "train.checkpoint_steps=20",
]  # fmt: skip

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--data", type=Path, default=Path("../shared/data/squad-open"))
parser.add_argument("--work", type=Path, default=Path("work/squad-open"))
parser.add_argument("--train-steps", type=int, default=48, help="optimizer steps of four questions; 0: no training")


def make_subset(data: Path, work: Path) -> None:
    """Write passages, development and training questions; every choice is spread evenly over the files."""
    work.mkdir(parents=True, exist_ok=True)
    questions = [json.loads(line) for line in (data / "dev.jsonl").read_text(encoding="utf-8").splitlines()]
    dev = [questions[number * len(questions) // NUM_QUESTIONS] for number in range(NUM_QUESTIONS)]
    wanted = {gold for question in dev for gold in question["gold_ids"]}
    with gzip.open(data / "corpus.jsonl.gz", "rt", encoding="utf-8") as file:
        corpus = [json.loads(line) for line in file]
    others = [row for row in corpus if row["id"] not in wanted]
    room = NUM_PASSAGES - len(wanted)
    chosen = wanted | {others[number * len(others) // room]["id"] for number in range(room)}
    rows = [row for row in corpus if row["id"] in chosen]
    assert len(rows) == NUM_PASSAGES
    train = (data / "train.jsonl").read_text(encoding="utf-8").splitlines()
    held = [line for line in train if set(json.loads(line)["gold_ids"]) & chosen]
    for name, lines in (("corpus", rows), ("dev", dev), ("train", [json.loads(line) for line in held])):
        text = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)
        (work / f"{name}.jsonl").write_text(text, encoding="utf-8")


class Stages:
    """Runs commands as a user does; keeps the seconds that each took when it had something to do."""

    def __init__(self, work: Path) -> None:
        self._path = work / "seconds.json"
        self.seconds: dict[str, float] = {}
        if self._path.is_file():
            self.seconds = json.loads(self._path.read_text(encoding="utf-8"))

    def run(self, stage: str, *arguments: str | Path) -> None:
        done = stage in self.seconds
        started = monotonic()
        subprocess.run([sys.executable, "-m", "ragray.cli", *map(str, arguments)], check=True, stdout=sys.stderr)
        if not done:
            self.seconds[stage] = round(monotonic() - started, 1)
            self._path.write_text(json.dumps(self.seconds), encoding="utf-8")


def main() -> None:
    """Run everything, print the table, write the JSON."""
    args = parser.parse_args()
    if not (args.data / "dev.jsonl").is_file():
        sys.exit(f"{args.data}: no dev.jsonl there; name the squad-open folder with --data")
    work: Path = args.work
    make_subset(args.data, work)
    corpus, embeddings, index, run = (work / name for name in ("corpus", "embeddings", "index", "run"))
    stages = Stages(work)
    stages.run("ingest", "ingest", work / "corpus.jsonl", "--out", corpus)
    stages.run("embed", "embed", corpus, "--out", embeddings)
    stages.run("index", "index", "build", embeddings, "--corpus", corpus, "--out", index)
    dev, reports = work / "dev.jsonl", work / "reports"
    systems: dict[str, list[str | Path]] = {"closed book": ["--closed-book"], "retrieved": ["--index", index]}
    if args.train_steps:
        stages.run(
            "train", "train", "--index", index, "--examples", work / "train.jsonl", "--out", run, *TRAIN_SETTINGS,
            f"train.max_steps={args.train_steps}",
        )  # fmt: skip
        systems["trained"] = ["--index", index, "--run", run]
    found = {}
    for name, options in systems.items():
        out = reports / name.replace(" ", "-")
        stages.run(f"evaluate {name}", "evaluate", "--examples", dev, "--out", out, *options, *SETTINGS)
        found[name] = json.loads((out / "report.json").read_text(encoding="utf-8"))
    seconds = stages.seconds
    table(found, seconds)
    RESULTS.parent.mkdir(exist_ok=True)
    machine = {"cores": os.cpu_count(), "machine": platform.machine(), "python": platform.python_version()}
    content = {"machine": machine, "passages": NUM_PASSAGES, "train_steps": args.train_steps, "seconds": seconds}
    content["systems"] = found
    RESULTS.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def table(found: dict[str, dict[str, dict[str, float]]], seconds: dict[str, float]) -> None:
    """Print one table."""
    shown = Table(title=f"squad-open, {NUM_PASSAGES} passages, {NUM_QUESTIONS} questions", title_justify="left")
    for heading in ("", *found):
        shown.add_column(heading, justify="right")
    for measure in ("exact_match", "f1", "accuracy"):
        shown.add_row(measure, *(f"{report['answers'][measure]:.1f}" for report in found.values()))
    for k in ("1", "5", "20"):
        rows = (report["retrieval"] for report in found.values())
        shown.add_row(f"recall@{k}", *(f"{row['recall'][k]:.1f}" if row else "-" for row in rows))
    shown.add_row("seconds", *(f"{seconds[f'evaluate {name}']:.0f}" for name in found))
    Console(width=100).print(shown)
    print({name: round(value, 1) for name, value in seconds.items() if not name.startswith("evaluate")})
