"""Lexical search next to tantivy and bm25s, one thread. In: the wiki-250k and squad-open data. Out: one table and a JSON of results.

    python -m tests.bench lexical --data ../shared/data --work work/bench/lexical --rows 2000000

Two corpora: the passages of wiki-250k with questions of squad-open, and passages of 10 to 30 random words with queries of 9 (frequencies
by Zipf's law, 50,000 words). Rivals are measured where they are installed (pip install tantivy bm25s); all stem English and take k = 10.
Every query goes to each system in turn, so that a noisy moment hits all; the first round warms up, and a query's time is its least.
It is the CPU time of the one thread that searches, from the query's text to row numbers and scores.
"""

import argparse
import importlib
import importlib.util
import json
import os
import platform
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from time import thread_time

import numpy as np
import pyarrow.parquet as pq
from rich.console import Console
from rich.table import Table

from ragray.artifact.files import write_json
from ragray.index.search.bm25 import LexicalIndex
from ragray.index.search.maxscore import K1, B
from ragray.index.store.postings import LEXICAL, LexicalWriter
from ragray.index.store.snapshot import SEGMENTS, SegmentRef
from tests.helpers import make_snapshot

RESULTS = Path(__file__).parent / "results" / "lexical.json"
K, BATCH_ROWS, NUM_WORDS, QUERY_WORDS = 10, 8192, 50_000, 9
RIVALS = ("tantivy", "bm25s")

Search = Callable[[str], object]

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--data", type=Path, default=Path("../shared/data"), help="holds wiki-250k and squad-open")
parser.add_argument("--work", type=Path, default=Path("work/bench/lexical"), help="postings and tantivy's index, kept")
parser.add_argument("--rows", type=int, default=2_000_000, help="passages of random words; 0: none")
parser.add_argument("--queries", type=int, default=200)
parser.add_argument("--rounds", type=int, default=3)
parser.add_argument("--rivals", default=",".join(RIVALS), help="empty: none")
parser.add_argument("--results", type=Path, default=RESULTS)


@dataclass(frozen=True)
class Corpus:
    """Passages, which can be read again and again, and queries."""

    name: str
    batches: Callable[[], Iterator[list[str]]]
    queries: Sequence[str]


@dataclass(frozen=True)
class Measured:
    """One system on one corpus: milliseconds per query."""

    corpus: str
    rows: int
    system: str
    mean_ms: float
    p50_ms: float
    p95_ms: float


def real(data: Path, num_queries: int) -> Corpus:
    """Return the passages of wiki-250k and questions from all of squad-open's development set."""

    def batches() -> Iterator[list[str]]:
        for path in sorted((data / "wiki-250k").glob("*.parquet")):
            with pq.ParquetFile(path) as file:
                for batch in file.iter_batches(BATCH_ROWS, columns=["text"]):
                    yield batch["text"].to_pylist()

    lines = (data / "squad-open" / "dev.jsonl").read_text(encoding="utf-8").splitlines()
    chosen = [lines[number * len(lines) // num_queries] for number in range(num_queries)]
    return Corpus("wiki", batches, [json.loads(line)["question"] for line in chosen])


def random_words(rows: int, num_queries: int) -> Corpus:
    """Return passages and queries of random words."""
    words = np.array([f"w{number:x}" for number in range(NUM_WORDS)], dtype=object)
    shares = 1 / np.arange(10, NUM_WORDS + 10)

    def texts(chance: np.random.Generator, lengths: np.ndarray) -> list[str]:
        drawn = words[chance.choice(NUM_WORDS, size=lengths.sum(), p=shares / shares.sum())]
        return [" ".join(own) for own in np.split(drawn, np.cumsum(lengths)[:-1])]

    def batches() -> Iterator[list[str]]:
        chance = np.random.default_rng(0)
        for start in range(0, rows, BATCH_ROWS):
            yield texts(chance, chance.integers(10, 31, min(BATCH_ROWS, rows - start)))

    return Corpus("random", batches, texts(np.random.default_rng(1), np.full(num_queries, QUERY_WORDS)))


def open_ragray(corpus: Corpus, folder: Path) -> tuple[Search, int]:
    """Write the postings of one segment where they are not there yet; return the search and the number of rows."""
    part, mark = folder / SEGMENTS / "one" / LEXICAL, folder / "rows.json"
    if not mark.is_file():
        writer, rows = LexicalWriter("english.2"), 0
        for texts in corpus.batches():
            writer.add(texts)
            rows += len(texts)
        writer.write(part)
        write_json(mark, rows)
    rows = json.loads(mark.read_text())
    snapshot = make_snapshot("000001-bench", [SegmentRef(name="one", num_rows=rows)], dim=8, lexical="english.2")
    index, allowed = LexicalIndex.open(folder, snapshot), {0: np.ones(rows, dtype=bool)}
    return (lambda query: index.search([query], K, allowed)), rows


def open_tantivy(corpus: Corpus, folder: Path) -> Search:
    """Write a merged index where it is not there yet; any word of a query may match."""
    tantivy = importlib.import_module("tantivy")
    schema = tantivy.SchemaBuilder().add_text_field("text", tokenizer_name="en_stem", index_option="freq").build()
    mark = folder.with_suffix(".done")
    if not mark.is_file():
        folder.mkdir(parents=True, exist_ok=True)
        writer = tantivy.Index(schema, path=str(folder), reuse=False).writer(heap_size=1_000_000_000, num_threads=1)
        for texts in corpus.batches():
            for text in texts:
                writer.add_document(tantivy.Document(text=text))
        writer.commit()
        writer.wait_merging_threads()
        mark.touch()
    index = tantivy.Index(schema, path=str(folder))
    searcher = index.searcher()

    def search(query: str) -> object:
        words = "".join(letter if letter.isalnum() else " " for letter in query.lower())
        return searcher.search(index.parse_query(words, ["text"]), K, count=False).hits

    return search


def open_bm25s(corpus: Corpus) -> Search:
    """Index in memory, with its own tokenizer."""
    import bm25s
    import Stemmer

    stemmer = Stemmer.Stemmer("english")
    texts = [text for batch in corpus.batches() for text in batch]
    index = bm25s.BM25(method="lucene", k1=K1, b=B)
    index.index(bm25s.tokenize(texts, stopwords="en", stemmer=stemmer, show_progress=False), show_progress=False)

    def search(query: str) -> object:
        terms = bm25s.tokenize([query], stopwords="en", stemmer=stemmer, show_progress=False)
        return index.retrieve(terms, k=K, show_progress=False)

    return search


def times(searches: Sequence[Search], queries: Sequence[str], rounds: int) -> np.ndarray:
    """Return the least milliseconds of each search and query, (searches, queries)."""
    taken = np.empty((rounds + 1, len(searches), len(queries)))
    for turn in range(rounds + 1):
        for number, query in enumerate(queries):
            for place, search in enumerate(searches):
                started = thread_time()
                search(query)
                taken[turn, place, number] = 1000 * (thread_time() - started)
    least: np.ndarray = taken[1:].min(axis=0)
    return least


def measure(corpus: Corpus, work: Path, rivals: Sequence[str], rounds: int) -> Iterator[Measured]:
    """Measure all systems side by side."""
    ragray, rows = open_ragray(corpus, work / "ragray")
    searches = {"ragray": ragray}
    if "tantivy" in rivals:
        searches["tantivy"] = open_tantivy(corpus, work / "tantivy")
    if "bm25s" in rivals:
        searches["bm25s"] = open_bm25s(corpus)
    for system, taken in zip(searches, times(list(searches.values()), corpus.queries, rounds), strict=True):
        figures = (float(taken.mean()), *np.quantile(taken, (0.5, 0.95)).tolist())
        yield Measured(corpus.name, rows, system, *(round(figure, 3) for figure in figures))


def main() -> None:
    """Run everything, print the table, write the JSON."""
    args = parser.parse_args()
    if not list((args.data / "wiki-250k").glob("*.parquet")) or not (args.data / "squad-open" / "dev.jsonl").is_file():
        sys.exit(f"{args.data}: no wiki-250k and squad-open there; name the folder that holds both with --data")
    wanted = [name for name in args.rivals.split(",") if name]
    rivals = [name for name in wanted if importlib.util.find_spec(name)]
    missing = [f"{name} is not installed: not measured" for name in wanted if name not in rivals]
    corpora = [real(args.data, args.queries)] + ([random_words(args.rows, args.queries)] if args.rows else [])
    found: list[Measured] = []
    for corpus in corpora:
        rows = args.rows if corpus.name == "random" else 0
        found += measure(corpus, args.work / f"{corpus.name}-{rows}", rivals, args.rounds)
    show(found)
    print(*missing, sep="\n")
    machine = {"cores": os.cpu_count(), "machine": platform.machine(), "python": platform.python_version()}
    content = {"machine": machine, "k": K, "queries": args.queries, "rounds": args.rounds, "missing": missing}
    write_json(args.results, content | {"systems": [asdict(row) for row in found]})


def show(found: Sequence[Measured]) -> None:
    """Print one table."""
    table = Table(title=f"lexical search, k = {K}, one thread, milliseconds of CPU per query", title_justify="left")
    for heading in ("corpus", "rows", "system", "mean", "p50", "p95"):
        table.add_column(heading, justify="left" if heading in ("corpus", "system") else "right")
    for row in found:
        figures = (f"{figure:.2f}" for figure in (row.mean_ms, row.p50_ms, row.p95_ms))
        table.add_row(row.corpus, f"{row.rows:,}", row.system, *figures)
    Console(width=100).print(table)
