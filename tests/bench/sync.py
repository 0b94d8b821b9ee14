"""Syncing an index with a corpus that changed a little. In: the squad-open data. Out: one table and a JSON of results.

    python -m tests.bench sync --data ../shared/data/squad-open --passages 20000

Indexes the documents but one percent, then changes 1% of them, deletes 1% and adds the 1% held back. Compares the seconds of that
sync with those of embedding everything, searches for every text that is gone (by vectors, by words, by both), compacts, and asks the
development questions of the compacted index and of a fresh build over the changed corpus. Of few passages, the fixed costs of a sync
(Ray, the model) dominate. Run it again after an interruption and it goes on; what is embedded stays in --work.
"""

import argparse
import gzip
import json
import os
import platform
import shutil
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

from ragray.api import build_index, compact_index, embed_corpus, ingest, sync_index
from ragray.artifact.files import write_json
from ragray.config import Config, load_config
from ragray.corpus.table import Corpus
from ragray.embed.load import load_encoder
from ragray.embed.passage_text import encoder_text
from ragray.index.search.reader import IndexReader
from ragray.retrieve.retriever import LocalRetriever, Mode
from ragray.stages.sync import SyncReport
from ragray.types import RetrievalResult

RESULTS = Path(__file__).parent / "results" / "sync.json"
GOAL = "goal: seconds of the sync at most 6% of those of embedding everything; nothing that is gone is found"
MODES: tuple[Mode, ...] = ("dense", "lexical", "hybrid")
ADDED, CHANGED, DELETED = 0, 33, 66
"""Which of every hundred documents is held back, changed, deleted."""
NUM_QUESTIONS = 200

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--data", type=Path, default=Path("../shared/data/squad-open"))
parser.add_argument("--work", type=Path, default=Path("work/bench/sync"))
parser.add_argument("--passages", type=int, default=5000)
parser.add_argument("--results", type=Path, default=RESULTS)
parser.add_argument("overrides", nargs="*", help="section.key=value")


@dataclass(frozen=True)
class Agreement:
    """How the answers of two indexes compare, over the questions: share with the same ten hits, largest difference of a score."""

    same_hits: float
    score_difference: float


def write_documents(data: Path, work: Path, count: int) -> None:
    """Write the documents before and after the change."""
    with gzip.open(data / "corpus.jsonl.gz", "rt", encoding="utf-8") as file:
        rows = [json.loads(line) for line in file][:count]
    before = [row for number, row in enumerate(rows) if number % 100 != ADDED]
    after = [
        {**row, "text": f"{row['text']} This paragraph was revised."} if number % 100 == CHANGED else row
        for number, row in enumerate(rows)
        if number % 100 != DELETED
    ]
    work.mkdir(parents=True, exist_ok=True)
    for name, documents in (("before", before), ("after", after)):
        text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in documents)
        (work / f"{name}.jsonl").write_text(text, encoding="utf-8")


@dataclass(frozen=True)
class Embedding:
    """Seconds that embedding everything took, and those that an actor spent on its blocks; the rest is Ray, loading, publishing."""

    seconds: float
    encode_seconds: float

    @property
    def overhead(self) -> float:
        """Share of the stage that is not encoding."""
        return 1 - self.encode_seconds / self.seconds


def build(work: Path, name: str, config: Config) -> Embedding:
    """Ingest, embed and index documents, unless that is done; return how long embedding them took."""
    corpus, embeddings, seconds = work / f"{name}-corpus", work / f"{name}-embeddings", work / f"{name}-seconds.json"
    ingest([str(work / f"{name}.jsonl")], corpus, config)
    report = embed_corpus(corpus, embeddings, config)
    if not report.reused:
        write_json(seconds, {"seconds": report.seconds, "encode_seconds": report.encode_seconds})
    build_index(embeddings, corpus, work / f"{name}-index", config)
    return Embedding(**json.loads(seconds.read_text(encoding="utf-8")))


def texts_gone(work: Path) -> list[str]:
    """Return the texts, as the encoder sees them, that the corpus held before the change and does not after it."""

    def texts(name: str) -> dict[str, None]:
        passages = Corpus.open(work / f"{name}-corpus").iter_passages()
        return dict.fromkeys(encoder_text(passage.title, passage.text) for passage in passages)

    return list(texts("before").keys() - texts("after").keys())


def num_found(retriever: LocalRetriever, texts: Sequence[str], mode: Mode) -> int:
    """Count the texts that a search for their very words returns."""
    results = retriever.search(texts, 10, mode=mode)
    shown = [{encoder_text(hit.passage.title, hit.passage.text) for hit in result.hits} for result in results]
    return sum(text in texts_shown for text, texts_shown in zip(texts, shown, strict=True))


def agreement(found: Sequence[RetrievalResult], others: Sequence[RetrievalResult]) -> Agreement:
    """Compare the answers to the same questions."""
    one, other = ([result.hits for result in results] for results in (found, others))
    same = [{hit.passage.id for hit in a} == {hit.passage.id for hit in b} for a, b in zip(one, other, strict=True)]
    differences = [
        abs(a.score - b.score) for left, right in zip(one, other, strict=True) for a, b in zip(left, right, strict=True)
    ]
    return Agreement(float(np.mean(same)), max(differences))


def main() -> None:
    """Run everything, print the table, write the JSON."""
    args = parser.parse_args()
    if not (args.data / "corpus.jsonl.gz").is_file():
        sys.exit(f"{args.data}: no corpus.jsonl.gz there; name the squad-open folder with --data")
    config = load_config(None, args.overrides)
    work: Path = args.work / str(args.passages)
    write_documents(args.data, work, args.passages)
    embedding = build(work, "before", config)
    ingest([str(work / "after.jsonl")], work / "after-corpus", config)
    index = work / "index"
    shutil.rmtree(index, ignore_errors=True)
    shutil.copytree(work / "before-index", index)
    report = sync_index(index, work / "after-corpus", config)
    again_s = sync_index(index, work / "after-corpus", config).seconds
    encoder = load_encoder(report.snapshot.encoder_config)
    gone = texts_gone(work)
    found = {mode: num_found(LocalRetriever.open(index, encoder), gone, mode) for mode in MODES}
    known = {mode: num_found(LocalRetriever.open(work / "before-index", encoder), gone, mode) for mode in MODES}
    compact_s = compact_index(index, config).seconds
    build(work, "after", config)
    lines = (args.data / "dev.jsonl").read_text(encoding="utf-8").splitlines()[:NUM_QUESTIONS]
    questions = [str(json.loads(line)["question"]) for line in lines]
    compacted, fresh = (LocalRetriever(IndexReader.open(work / name), encoder) for name in ("index", "after-index"))
    agreed = {
        mode: agreement(compacted.search(questions, 10, mode=mode), fresh.search(questions, 10, mode=mode))
        for mode in MODES
    }
    table(report, embedding, again_s, compact_s, len(gone), known, found, agreed)
    content = {
        "machine": {"cores": os.cpu_count(), "machine": platform.machine(), "python": platform.python_version()},
        "documents": args.passages,
        "embed_s": embedding.seconds,
        "embed_overhead": embedding.overhead,
        "sync_s": report.seconds,
        "share": report.seconds / embedding.seconds,
        "sync_again_s": again_s,
        "compact_s": compact_s,
        "sync": {key: value for key, value in asdict(report).items() if key not in ("snapshot", "seconds")},
        "texts_gone": len(gone),
        "gone_found_before": known,
        "gone_found_after": found,
        "compacted_next_to_fresh": {mode: asdict(value) for mode, value in agreed.items()},
    }
    args.results.parent.mkdir(exist_ok=True)
    known_sizes = json.loads(args.results.read_text(encoding="utf-8")) if args.results.is_file() else {}
    write_json(args.results, {**known_sizes, str(args.passages): content})


def table(
    report: SyncReport,
    embedding: Embedding,
    again_s: float,
    compact_s: float,
    num_gone: int,
    known: dict[Mode, int],
    found: dict[Mode, int],
    agreed: dict[Mode, Agreement],
) -> None:
    """Print one table."""
    shown = Table(title=f"sync of {report.unchanged:,} unchanged passages", caption=GOAL, title_justify="left")
    shown.add_column("")
    shown.add_column("", justify="right")
    counts = f"{report.added} / {report.changed} / {report.deleted} / {report.embedded}"
    for name, value in (
        ("added / changed / deleted / embedded", counts),
        ("seconds: embedding everything", f"{embedding.seconds:.1f}"),
        ("of them not encoding (Ray, loading models, publishing)", f"{100 * embedding.overhead:.1f}%"),
        ("seconds: sync", f"{report.seconds:.1f} ({100 * report.seconds / embedding.seconds:.1f}%)"),
        ("seconds: the same sync again", f"{again_s:.1f}"),
        ("seconds: compact", f"{compact_s:.1f}"),
        ("texts that are gone", str(num_gone)),
    ):
        shown.add_row(name, value)
    for mode in MODES:
        shown.add_row(f"{mode}: found before / after the sync", f"{known[mode]} / {found[mode]}")
        difference = f"{100 * agreed[mode].same_hits:.1f}% / {agreed[mode].score_difference:.0e}"
        shown.add_row(f"{mode}: compacted and fresh, same ten hits / score difference", difference)
    Console(width=100).print(shown)
