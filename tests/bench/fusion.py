"""Ways to join dense and lexical search, side by side. In: the shared data. Out: a table for each set and a JSON of results.

    python -m tests.bench fusion --data ../shared/data --work work/bench/fusion

Sets: squad-open (1,717 development questions on 20,000 passages) and SciFact (300 test claims on 5,183 abstracts), with MiniLM and exact
search. `convex tuned` is fitted, as `ragray index tune` fits, to other questions of the set: 800 training questions, 809 training claims.
A last table shows nDCG@10 on these by dense weight: the default is chosen there. Indexes and vectors of questions are kept in --work, and
used when they are there; embedding squad-open takes ten minutes. Intervals hold 95% of the means of resampled queries.
"""

import argparse
import os
import platform
import sys
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

from ragray.api import build_index, embed_corpus, ingest
from ragray.artifact.digest import fingerprint
from ragray.artifact.files import write_json
from ragray.config import RetrieveConfig, load_config
from ragray.evaluate.encoded import EncodedQueries, encode_queries
from ragray.evaluate.fusion_fit import WEIGHTS, Setting, fit
from ragray.evaluate.fusion_grid import Candidates, search_once
from ragray.evaluate.intervals import interval
from ragray.evaluate.judged import JudgedQueries, judged_by_examples, judged_by_qrels
from ragray.examples import read_examples
from ragray.retrieve.load import load_retriever
from ragray.retrieve.retriever import LocalRetriever
from ragray.stages.tune import DEFAULT, figures, measured, values_of
from tests.bench.scifact import SETTINGS as WHOLE_ABSTRACTS

RESULTS = Path(__file__).parent / "results" / "fusion.json"
TRAIN_QUESTIONS = 800
SHOWN = ("ndcg@10", "recall@1", "recall@5", "recall@10")
RRF_K = RetrieveConfig().rrf_k
SETS: dict[str, list[str]] = {"squad-open": [], "scifact": WHOLE_ABSTRACTS}
Values = dict[str, list[float]]

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--data", type=Path, default=Path("../shared/data"))
parser.add_argument("--work", type=Path, default=Path("work/bench/fusion"))
parser.add_argument("--results", type=Path, default=RESULTS)


def retriever_of(name: str, data: Path, work: Path) -> LocalRetriever:
    """Open the index of a set; it is built where it is missing."""
    corpus, embeddings, index = (work / part for part in ("corpus", "embeddings", "index"))
    config = load_config(None, [*SETS[name], "retrieve.mode=hybrid"])
    if not (index / "CURRENT").is_file():
        ingest([str(data / "corpus.jsonl.gz")], corpus, config, executor="local")
        embed_corpus(corpus, embeddings, config, executor="local")
        build_index(embeddings, corpus, index, config, executor="local")
    return load_retriever(index, None, config)


def questions(name: str, data: Path) -> tuple[JudgedQueries, JudgedQueries]:
    """Return the queries that are measured, and those that are fitted to."""
    if name == "scifact":
        test, train = (judged_by_qrels(data / "queries.jsonl", data / f"qrels-{one}.tsv") for one in ("test", "train"))
        return test, train
    dev, train = (read_examples(data / f"{one}.jsonl") for one in ("dev", "train"))
    some = [train[number * len(train) // TRAIN_QUESTIONS] for number in range(TRAIN_QUESTIONS)]
    return judged_by_examples(dev, "dev.jsonl"), judged_by_examples(some, "train.jsonl")


def encoded(retriever: LocalRetriever, judged: JudgedQueries, work: Path) -> EncodedQueries:
    """Encode the queries, or take their vectors from an earlier run."""
    path = work / f"queries-{fingerprint(dict(judged.texts))}.npy"
    if path.is_file():
        return EncodedQueries(judged.texts, np.load(path), judged.refused)
    found = encode_queries("fusion", retriever, judged)
    assert found.vectors_ND is not None  # the mode is hybrid
    np.save(path, found.vectors_ND)
    return found


def searched(retriever: LocalRetriever, judged: JudgedQueries, work: Path) -> Candidates:
    """Search for all queries once by vectors and once by BM25."""
    return search_once("fusion", retriever, encoded(retriever, judged, work), judged.relevant, "")


def rows(found: Candidates, judged: JudgedQueries, tuned: Setting) -> dict[str, Values]:
    """Return the values of every query, by way of searching and measure."""
    ranked = {
        "BM25": found.lexical(),
        "dense": found.dense(),
        f"RRF, k {RRF_K}": found.by_ranks(RRF_K, DEFAULT[1]),
        f"convex default, {label(DEFAULT)}": found.convex(*DEFAULT),
        f"convex tuned, {label(tuned)}": found.convex(*tuned),
        "convex default without pairs": replace(found, pair_weight=0.0).convex(*DEFAULT),
    }
    return {row: measured(found.names, one, judged.relevant) for row, one in ranked.items()}


def label(setting: Setting) -> str:
    """Name a setting."""
    return f"weight {setting[0]:g} of {setting[1]}"


def measure(name: str, data: Path, work: Path) -> tuple[dict[str, object], dict[float, float]]:
    """Return what was measured on a set, and nDCG@10 on its training queries by dense weight."""
    retriever = retriever_of(name, data, work)
    test, train = questions(name, data)
    values = values_of(searched(retriever, train, work), train.relevant)
    fitted = fit({setting: np.array(own["ndcg@10"]) for setting, own in values.items()}, DEFAULT)
    found = rows(searched(retriever, test, work), test, fitted.best)
    default = next(own["ndcg@10"] for row, own in found.items() if row.startswith("convex default,"))
    means = {row: {key: asdict(one) for key, one in figures(own).items()} for row, own in found.items()}
    over = {row: np.subtract(own["ndcg@10"], default) for row, own in found.items()}
    report = {
        "queries": len(test.texts),
        "train_queries": len(train.texts),
        "rows": means,
        "winner": max(found, key=lambda row: float(np.mean(found[row]["ndcg@10"]))),
        "over_default": {
            row: {"mean": float(own.mean()), "interval": interval(own.tolist())} for row, own in over.items()
        },
        "held_out_gain_on_train": {"mean": fitted.gain, "interval": fitted.edges},
    }
    weights = {weight: float(np.mean(values[weight, DEFAULT[1]]["ndcg@10"])) for weight in WEIGHTS}
    return report, weights


def show(name: str, report: dict, console: Console) -> None:
    """Print the table of a set; * marks the best."""
    shown = Table(title=f"{name}, {report['queries']:,} queries", title_justify="left")
    for heading in ("", *SHOWN, "nDCG@10 over default"):
        shown.add_column(heading)
    for row, own in report["rows"].items():
        cells = [cell(own[one]) for one in SHOWN]
        shown.add_row(f"{row}{' *' * (row == report['winner'])}", *cells, cell(report["over_default"][row], "+"))
    console.print(shown)


def cell(figure: dict, sign: str = "") -> str:
    """Return a mean with its interval."""
    low, high = figure["interval"]
    return f"{figure['mean']:{sign}.3f} [{low:{sign}.3f}, {high:{sign}.3f}]"


def main() -> None:
    """Run everything, print the tables, write the JSON."""
    args = parser.parse_args()
    if missing := [name for name in SETS if not (args.data / name / "corpus.jsonl.gz").is_file()]:
        sys.exit(f"{args.data}: no {missing[0]}/corpus.jsonl.gz there; name the folder of the shared data with --data")
    console, sets, weights = Console(width=160), {}, {}
    for name in SETS:
        (args.work / name).mkdir(parents=True, exist_ok=True)
        sets[name], weights[name] = measure(name, args.data / name, args.work / name)
        show(name, sets[name], console)
    shown = Table("dense weight", *weights, "mean", title="nDCG@10 on the training queries", title_justify="left")
    mean = {weight: sum(own[weight] for own in weights.values()) / len(weights) for weight in WEIGHTS}
    for weight, value in mean.items():
        best = " *" * (value == max(mean.values()))
        shown.add_row(f"{weight:g}{best}", *(f"{own[weight]:.3f}" for own in weights.values()), f"{value:.3f}")
    console.print(shown)
    machine = {"cores": os.cpu_count(), "machine": platform.machine(), "python": platform.python_version()}
    write_json(args.results, {"machine": machine, "sets": sets, "train_ndcg@10_by_weight": weights})
