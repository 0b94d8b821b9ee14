"""Lexical, dense and hybrid search on SciFact (BEIR). In: the scifact data. Out: one table and a JSON of results.

    python -m tests.bench scifact --data ../shared/data/scifact --work work/bench/scifact

Ingests, embeds and indexes the 5,183 abstracts, whole, as BEIR does (MiniLM, exact search, English BM25), then measures the three modes
on the 300 test claims. Embedding takes minutes; run it again and finished stages are reused.
"""

import argparse
import json
import os
import platform
import sys
from pathlib import Path
from time import monotonic

from rich.console import Console
from rich.table import Table

from ragray.api import build_index, embed_corpus, ingest
from ragray.config import Config, load_config
from ragray.evaluate.retrieval import evaluate_retrieval

RESULTS = Path(__file__).parent / "results" / "scifact.json"
MODES = ("lexical", "dense", "hybrid")
MEASURES = ("ndcg@10", "recall@1", "recall@5", "recall@10", "recall@20", "recall@100", "mrr@10")
SETTINGS = ["ingest.max_tokens=512"]

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--data", type=Path, default=Path("../shared/data/scifact"))
parser.add_argument("--work", type=Path, default=Path("work/bench/scifact"))
parser.add_argument("--results", type=Path, default=RESULTS)
parser.add_argument("overrides", nargs="*", help="section.key=value on top of the bench's own settings")


def build(data: Path, work: Path, config: Config) -> Path:
    """Run the three stages; what is finished is reused."""
    corpus, embeddings, index = (work / name for name in ("corpus", "embeddings", "index"))
    ingest([str(data / "corpus.jsonl.gz")], corpus, config)
    embed_corpus(corpus, embeddings, config)
    build_index(embeddings, corpus, index, config)
    return index


def measure(index: Path, data: Path, settings: list[str]) -> dict[str, dict[str, float | int | str]]:
    """Evaluate every mode on the test claims."""
    found = {}
    for mode in MODES:
        started = monotonic()
        config = load_config(None, [*settings, f"retrieve.mode={mode}"])
        report = evaluate_retrieval(index, data / "queries.jsonl", data / "qrels-test.tsv", config)
        found[mode] = {**report.to_json(), "seconds": round(monotonic() - started, 2)}
    return found


def main() -> None:
    """Run everything, print the table, write the JSON."""
    args = parser.parse_args()
    if not (args.data / "qrels-test.tsv").is_file():
        sys.exit(f"{args.data}: no qrels-test.tsv there; name the scifact folder with --data")
    settings = [*SETTINGS, *args.overrides]
    config = load_config(None, settings)
    found = measure(build(args.data, args.work, config), args.data, settings)
    shown = Table(title="SciFact, 5,183 abstracts, 300 test claims", title_justify="left")
    for heading in ("", *MEASURES, "seconds"):
        shown.add_column(heading, justify="right")
    for mode, report in found.items():
        shown.add_row(mode, *(f"{report[measure]:.4f}" for measure in MEASURES), f"{report['seconds']}")
    Console(width=110).print(shown)
    machine = {"cores": os.cpu_count(), "machine": platform.machine(), "python": platform.python_version()}
    args.results.parent.mkdir(exist_ok=True)
    args.results.write_text(json.dumps({"machine": machine, "settings": settings, "modes": found}, indent=2) + "\n")
