"""Lexical, dense and hybrid search in Chinese, and by English questions. In: a corpus with questions. Out: one table and a JSON of results.

    python -m tests.bench chinese
    python -m tests.bench chinese --data FOLDER --work work/bench/another

Without --data that is the Chinese part of the sample: 100 passages, 200 Chinese questions, 34 English ones. A folder named with --data
holds `corpus.jsonl` or `corpus.jsonl.gz` (id, title, text) and one or more other `.jsonl` files of examples with `gold_ids`, as squad-open
does. Passages are embedded with multilingual-e5-small. The intervals hold 95% of the means of resampled questions.
"""

import argparse
import json
import os
import platform
import sys
from pathlib import Path

from rich.console import Console
from rich.table import Table

from ragray import sample
from ragray.api import build_index, embed_corpus, ingest
from ragray.artifact.files import write_json
from ragray.config import load_config
from ragray.evaluate.retrieval import evaluate_retrieval
from ragray.examples import read_examples
from ragray.types import Example

RESULTS = Path(__file__).parent / "results" / "chinese.json"
MODES = ("lexical", "dense", "hybrid")
MEASURES = ("recall@1", "recall@5", "ndcg@10", "mrr@10")
SETTINGS = ["embed.model=multilingual-e5-small"]

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--data", type=Path, help="folder of a corpus and examples; the sample without it")
parser.add_argument("--work", type=Path, default=Path("work/bench/chinese"))
parser.add_argument("--results", type=Path, default=RESULTS)


def sources(data: Path | None) -> tuple[Path, dict[str, list[Example]]]:
    """Return the corpus, and the sets of questions by name."""
    if data is None:
        chinese = [*read_examples(sample.TRAIN_ZH), *read_examples(sample.TEST_ZH)]
        return sample.CORPUS_ZH, {"Chinese": chinese, "English": list(read_examples(sample.CROSS_ZH))}
    corpora = [path for path in (data / "corpus.jsonl", data / "corpus.jsonl.gz") if path.is_file()]
    files = sorted(path for path in data.glob("*.jsonl") if path not in corpora)
    if not corpora or not files:
        sys.exit(f"{data}: expected corpus.jsonl or corpus.jsonl.gz, and another .jsonl file of examples with gold_ids")
    return corpora[0], {path.stem: list(read_examples(path)) for path in files}


def measure(index: Path, work: Path, name: str, examples: list[Example]) -> dict[str, dict[str, object]]:
    """Evaluate every mode on one set of questions."""
    queries, qrels = work / f"{name}-queries.jsonl", work / f"{name}-qrels.tsv"
    lines = [json.dumps({"_id": example.id, "text": example.question}, ensure_ascii=False) for example in examples]
    queries.write_text("\n".join(lines) + "\n", encoding="utf-8")
    judged = [f"{example.id}\t{gold}\t1" for example in examples for gold in example.gold_ids]
    qrels.write_text("\n".join(["query-id\tcorpus-id\tscore", *judged]) + "\n", encoding="utf-8")
    configs = {mode: load_config(None, [*SETTINGS, f"retrieve.mode={mode}"]) for mode in MODES}
    return {mode: evaluate_retrieval(index, queries, qrels, config).to_json() for mode, config in configs.items()}


def main() -> None:
    """Run everything, print the table, write the JSON."""
    args = parser.parse_args()
    source, sets = sources(args.data)
    corpus, embeddings, index = (args.work / name for name in ("corpus", "embeddings", "index"))
    config = load_config(None, SETTINGS)
    ingest([str(source)], corpus, config, executor="local")
    embed_corpus(corpus, embeddings, config, executor="local")
    build_index(embeddings, corpus, index, config, executor="local")
    found = {name: measure(index, args.work, name, examples) for name, examples in sets.items()}
    shown = Table(title=f"{source.name}, multilingual-e5-small", title_justify="left")
    for heading in ("questions", "number", "mode", *MEASURES):
        shown.add_column(heading)
    for name, reports in found.items():
        for mode, report in reports.items():
            cells = [
                f"{report[one]:.3f} [{report['interval'][one][0]:.3f}, {report['interval'][one][1]:.3f}]"
                for one in MEASURES
            ]
            shown.add_row(name, str(report["num_queries"]), mode, *cells)
    Console(width=130).print(shown)
    machine = {"cores": os.cpu_count(), "machine": platform.machine(), "python": platform.python_version()}
    write_json(args.results, {"machine": machine, "corpus": source.name, "questions": found})
