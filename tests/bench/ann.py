"""Approximate search next to raw FAISS and autofaiss. In: the wiki-250k data. Out: one table and a JSON of results.

    python -m tests.bench ann --data ../shared/data/wiki-250k --work work/ann

The texts go through the fake encoder `hash:384` (bags of hashed words: deterministic, but not what a trained encoder would give;
real vectors can be given with --vectors). Every index is built and tuned as `ragray index build` does it, without Ray. Raw FAISS gets
the same factory, nprobe and candidates (`IndexRefine` over fp16 where ragray re-scores). autofaiss gets the memory that ragray's FAISS
file takes and the latency that it tunes to by default (10 ms); "ragray as good" is the same index of ragray, tuned to autofaiss's
recall. Recall: the share of the ten nearest other rows found for 512 rows.
"""

import argparse
import os
import platform
import shutil
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from time import perf_counter

import faiss
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from rich.console import Console
from rich.table import Table

from ragray.artifact.files import atomic_path, write_json
from ragray.config import IndexConfig, IndexType
from ragray.corpus.table import passages_to_table
from ragray.embed.encoder import HashEncoder
from ragray.errors import IndexBudgetError
from ragray.index.plan.choose import IndexPlan, plan_index
from ragray.index.plan.tune import tuned_snapshot
from ragray.index.search.reader import IndexReader
from ragray.index.store.segment import FAISS_FILE, write_segment
from ragray.index.store.snapshot import SEGMENTS, SegmentRef, Snapshot, find_current, publish_snapshot
from ragray.index.write.build import train_empty_index
from ragray.types import Passage
from tests.bench import ann_autofaiss
from tests.helpers import make_snapshot

RESULTS = Path(__file__).parent / "results" / "ann.json"
DIM, K, NUM_QUERIES, BATCH, BLOCK_ROWS, MIN_RECALL = 384, 10, 512, 64, 4096, 0.95
LOWER_RECALLS = (0.9, 0.8, 0.7, 0.5)
"""What is asked for, in turn, where `MIN_RECALL` is out of reach; said on stderr."""
TYPES: tuple[IndexType, ...] = ("flat", "ivf", "ivf_pq", "ivf_rabitq")
GOALS = "goals: at most 1.15 times raw FAISS at batch 64; recall at least that of autofaiss in equal memory"

Search = Callable[[np.ndarray, int], np.ndarray]

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--data", type=Path, default=Path("../shared/data/wiki-250k"))
parser.add_argument("--work", type=Path, default=Path("work/ann"))
parser.add_argument("--vectors", type=Path, help=".npy of float16 or float32, a row a text; other dimensions are fine")
parser.add_argument("--rows", type=int, default=0, help="use only so many rows; 0: all")
parser.add_argument("--autofaiss", default="ivf,ivf_rabitq", help="types whose memory autofaiss gets too; empty: none")
parser.add_argument("--autofaiss-s", type=float, default=1200, help="seconds that autofaiss may build an index")
parser.add_argument("--results", type=Path, default=RESULTS)


@dataclass(frozen=True)
class Data:
    """Texts with their vectors; queries are rows ``own_Q``, whose tenth nearest other row scores ``tenth_Q``."""

    texts: Sequence[str]
    vectors_ND: np.ndarray
    own_Q: np.ndarray
    queries_QD: np.ndarray
    tenth_Q: np.ndarray


@dataclass(frozen=True)
class System:
    """An index that one system built, with its search, or the snapshot of ragray that is opened for a number of threads."""

    name: str
    parameters: str
    bytes_per_vector: float
    build_s: float
    tune_s: float = 0.0
    search: Search | None = None
    snapshot: str = ""


@dataclass(frozen=True)
class Measured:
    """One index of one system with a number of threads; milliseconds are those of one query."""

    index: str
    system: str
    parameters: str
    threads: int
    bytes_per_vector: float
    build_s: float
    tune_s: float
    recall_at_10: float
    p50_ms: float
    p95_ms: float
    batch_p50_ms: float
    batch_p95_ms: float
    ratio_at_batch: float | None = None
    with_texts_ms: float | None = None


def texts_of(data: Path, rows: int) -> list[str]:
    """Read the texts in order."""
    texts: list[str] = []
    for path in sorted(data.glob("*.parquet")):
        texts += pq.read_table(path, columns=["text"])["text"].to_pylist()
    return texts[: rows or None]


def vectors_of(texts: Sequence[str], cache: Path) -> np.ndarray:
    """Encode with the fake encoder, once."""
    if not cache.is_file():
        vectors_ND = HashEncoder(DIM).encode(texts).astype(np.float16)
        with atomic_path(cache) as temporary, temporary.open("wb") as file:
            np.save(file, vectors_ND)
    found: np.ndarray = np.load(cache)
    return found


def blocks(texts: Sequence[str], vectors_ND: np.ndarray) -> Iterator[tuple[pa.Table, np.ndarray]]:
    """Yield passages with their vectors."""
    for start in range(0, len(texts), BLOCK_ROWS):
        piece = slice(start, start + BLOCK_ROWS)
        passages = [Passage(f"p{start + n}", text) for n, text in enumerate(texts[piece])]
        yield passages_to_table(passages), vectors_ND[piece]


def data_of(texts: Sequence[str], vectors_ND: np.ndarray) -> Data:
    """Choose the queries and find their nearest rows exactly."""
    count = min(NUM_QUERIES, len(vectors_ND))
    own_Q = np.sort(np.random.default_rng(1).choice(len(vectors_ND), size=count, replace=False))
    return Data(texts, vectors_ND, own_Q, vectors_ND[own_Q].astype(np.float32), exact_tenth(vectors_ND, own_Q))


def exact_tenth(vectors_ND: np.ndarray, own_Q: np.ndarray) -> np.ndarray:
    """Return the score of the tenth nearest other row of each query."""
    queries_QD = vectors_ND[own_Q].astype(np.float32)
    best_QK = np.full((len(own_Q), K), -np.inf, dtype=np.float32)
    for start in range(0, len(vectors_ND), 32768):
        scores_QN = queries_QD @ vectors_ND[start : start + 32768].astype(np.float32).T
        here = np.flatnonzero((own_Q >= start) & (own_Q < start + scores_QN.shape[1]))
        scores_QN[here, own_Q[here] - start] = -np.inf
        best_QK = np.partition(np.concatenate([best_QK, scores_QN], axis=1), -K, axis=1)[:, -K:]
    tenth: np.ndarray = best_QK.min(axis=1)
    return tenth


def recall(search: Search, data: Data) -> float:
    """Count rows as near as the tenth, the query's own left out."""
    found_QK = search(data.queries_QD, K + 1)
    scores_QK = np.einsum("qkd,qd->qk", data.vectors_ND[found_QK].astype(np.float32), data.queries_QD)
    near_QK = (scores_QK >= data.tenth_Q[:, None] - 1e-5) & (found_QK >= 0) & (found_QK != data.own_Q[:, None])
    return float(np.minimum(near_QK.sum(axis=1), K).mean() / K)


def times(searches: Sequence[Search], queries_QD: np.ndarray, batch: int, rounds: int) -> list[np.ndarray]:
    """Time the searches in turn on the same batches, so that a noisy moment hits all; milliseconds a query."""
    found: list[list[float]] = [[] for _ in searches]
    for turn in range(rounds + 1):
        for start in range(0, len(queries_QD) - batch + 1, batch):
            for search, taken in zip(searches, found, strict=True):
                started = perf_counter()
                search(queries_QD[start : start + batch], K)
                if turn:  # the first round warms up
                    taken.append(1000 * (perf_counter() - started) / batch)
    return [np.array(taken) for taken in found]


def build_ragray(folder: Path, data: Data, plan: IndexPlan, config: IndexConfig) -> System:
    """Train, write one segment, tune and publish."""
    shutil.rmtree(folder, ignore_errors=True)
    started, (rows, dim) = perf_counter(), data.vectors_ND.shape
    empty = train_empty_index(plan, sample(data, plan, config), config)
    write_segment(folder / SEGMENTS / "one", blocks(data.texts, data.vectors_ND), num_rows=rows, empty_index=empty)
    built = perf_counter() - started
    snapshot = make_snapshot(
        "000001-bench",
        [SegmentRef(name="one", num_rows=rows)],
        dim=dim,
        factory=plan.factory,
        search_params=plan.search_params,
    )
    return tune_ragray(folder, snapshot, config, "ragray", built)


def tune_ragray(folder: Path, snapshot: Snapshot, config: IndexConfig, name: str, build_s: float) -> System:
    """Tune and publish; where the recall is out of reach, to a lower one."""
    started = perf_counter()
    for floor in (config.min_recall, *LOWER_RECALLS):
        try:
            snapshot = tuned_snapshot(folder, snapshot, config.model_copy(update={"min_recall": floor}))
            break
        except IndexBudgetError as err:
            print(f"{err}; a lower recall is tried", file=sys.stderr)
    publish_snapshot(folder, snapshot, expected=find_current(folder))
    size = (folder / SEGMENTS / "one" / FAISS_FILE).stat().st_size / snapshot.num_rows
    return System(name, parameters(snapshot), size, build_s, perf_counter() - started, snapshot=snapshot.name)


def parameters(snapshot: Snapshot) -> str:
    """Return how a snapshot is searched."""
    return f"{snapshot.factory} nprobe={snapshot.search_params.nprobe} x{snapshot.search_params.over_retrieve}"


def sample(data: Data, plan: IndexPlan, config: IndexConfig) -> np.ndarray:
    """Draw the training rows, for ragray and raw FAISS alike."""
    rows = np.random.default_rng(config.seed).choice(len(data.vectors_ND), size=plan.train_rows, replace=False)
    return data.vectors_ND[np.sort(rows)].astype(np.float32)


def build_raw(data: Data, plan: IndexPlan, config: IndexConfig, snapshot: Snapshot) -> System:
    """Build the same index with FAISS alone, in memory; coarse codes are refined from fp16."""
    started, dim = perf_counter(), data.vectors_ND.shape[1]
    index = faiss.index_factory(dim, plan.factory, faiss.METRIC_INNER_PRODUCT)
    params = None
    if plan.nlist:
        faiss.extract_index_ivf(index).cp.seed = config.seed + 1
        index.train(sample(data, plan, config))
        params = faiss.SearchParametersIVF(nprobe=snapshot.search_params.nprobe)
    if plan.type in ("ivf_pq", "ivf_rabitq"):
        refine = faiss.IndexScalarQuantizer(dim, faiss.ScalarQuantizer.QT_fp16, faiss.METRIC_INNER_PRODUCT)
        index = faiss.IndexRefine(index, refine)
        params = faiss.SearchParametersPreTransform(index_params=params)
        params = faiss.IndexRefineSearchParameters(
            k_factor=float(snapshot.search_params.over_retrieve), base_index_params=params
        )
    for start in range(0, len(data.vectors_ND), 65536):
        index.add(data.vectors_ND[start : start + 65536].astype(np.float32))
    took, size = perf_counter() - started, faiss.serialize_index(index).nbytes / len(data.vectors_ND)
    return System("faiss", parameters(snapshot), size, took, search=rows_of_faiss(index, params))


def systems_of(type_: IndexType, folder: Path, data: Data, args: argparse.Namespace) -> Iterator[System]:
    """Build one type with every system, all cores at work."""
    config = IndexConfig(type=type_, min_recall=MIN_RECALL)
    plan = plan_index(len(data.vectors_ND), data.vectors_ND.shape[1], config)
    faiss.omp_set_num_threads(os.cpu_count())
    ragray = build_ragray(folder, data, plan, config)
    yield ragray
    snapshot = IndexReader.open(folder).snapshot
    faiss.omp_set_num_threads(os.cpu_count())
    yield build_raw(data, plan, config, snapshot)
    if type_ not in args.autofaiss.split(","):
        return
    size = (folder / SEGMENTS / "one" / FAISS_FILE).stat().st_size
    chosen = ann_autofaiss.choose(args.work / "vectors.npy", size, args.work / "autofaiss", args.autofaiss_s)
    if isinstance(chosen, str):
        args.notes.append(f"autofaiss in the memory of {plan.factory} ({size:,} bytes): {chosen}")
        return
    search = rows_of_faiss(chosen.index)
    yield System("autofaiss", chosen.choice, chosen.num_bytes / len(data.texts), chosen.build_s, search=search)
    floor = min(1.0, recall(search, data) + 0.003)
    second = snapshot.model_copy(update={"name": "000002-bench"})
    yield tune_ragray(folder, second, config.model_copy(update={"min_recall": floor}), "ragray as good", ragray.build_s)


def measure(type_: IndexType, systems: Sequence[System], data: Data, folder: Path) -> Iterator[Measured]:
    """Measure systems side by side, with one thread and with two."""
    for threads in (1, 2):
        faiss.omp_set_num_threads(threads)
        readers = [IndexReader.open(folder, snapshot=system.snapshot or None, threads=threads) for system in systems]
        searches = [system.search or rows_of(reader) for system, reader in zip(systems, readers, strict=True)]
        single = times(searches, data.queries_QD[:256], 1, 1)
        batched = times(searches, data.queries_QD, BATCH, 4)
        (texted,) = times([rows_of(readers[0], texts=True)], data.queries_QD, BATCH, 1)
        beside = float(np.median(batched[0]) / np.median(batched[1])), float(np.median(texted))
        for number, (system, search, one, many) in enumerate(zip(systems, searches, single, batched, strict=True)):
            yield Measured(
                type_, system.name, system.parameters, threads, round(system.bytes_per_vector, 1), round(system.build_s, 1),
                round(system.tune_s, 1), recall(search, data),
                *np.quantile(one, (0.5, 0.95)).tolist(), *np.quantile(many, (0.5, 0.95)).tolist(), *(() if number else beside),
            )  # fmt: skip


def rows_of(reader: IndexReader, *, texts: bool = False) -> Search:
    """Search as FAISS does, rows and scores alone, or as a user does, with the passages."""
    if texts:
        return lambda queries_ND, k: reader.search(queries_ND, k).rows_NK
    return lambda queries_ND, k: reader.search_rows(queries_ND, k)[0]


def rows_of_faiss(index: faiss.Index, params: faiss.SearchParameters | None = None) -> Search:
    """Search a FAISS index."""
    return lambda queries_ND, k: index.search(queries_ND, k, params=params)[1]


def main() -> None:
    """Run everything, print the table, write the JSON."""
    args = parser.parse_args(namespace=argparse.Namespace(notes=[]))
    if not list(args.data.glob("*.parquet")):
        sys.exit(f"{args.data}: no Parquet files there; name the wiki-250k folder with --data")
    started, texts = perf_counter(), texts_of(args.data, args.rows)
    cache = args.work / f"hash-{DIM}-{len(texts)}.npy"
    vectors_ND = np.load(args.vectors) if args.vectors else vectors_of(texts, cache)
    vectors_ND = np.ascontiguousarray(vectors_ND[: len(texts)], dtype=np.float16)
    data = data_of(texts[: len(vectors_ND)], vectors_ND)
    args.work.mkdir(parents=True, exist_ok=True)
    np.save(args.work / "vectors.npy", vectors_ND)
    if args.autofaiss and (why_not := ann_autofaiss.install(args.work / "autofaiss")):
        sys.exit(f"autofaiss cannot be installed ({why_not}); leave it out with --autofaiss ''")
    found: list[Measured] = []
    folder = args.work / "index"
    for type_ in TYPES:
        found += measure(type_, list(systems_of(type_, folder, data, args)), data, folder)
    kind = str(args.vectors) if args.vectors else f"fake: hash:{DIM}"
    show(found, f"{len(texts):,} vectors of {vectors_ND.shape[1]} dimensions ({kind})")
    print(*args.notes, sep="\n")
    content = {
        "cores": os.cpu_count(), "machine": platform.machine(), "faiss": faiss.__version__, "vectors": kind, "shape": vectors_ND.shape,
        "min_recall": MIN_RECALL, "notes": args.notes,
        "seconds": round(perf_counter() - started), "systems": [asdict(row) for row in found],
    }  # fmt: skip
    write_json(args.results, content)


def show(found: Sequence[Measured], title: str) -> None:
    """Print one table."""
    table = Table(title=f"{title}; {GOALS}", title_justify="left")
    headings = "index|system|parameters|threads|bytes/vector|build s|recall@10|batch 1 p50|p95 ms|batch 64 p50|p95 ms|to raw|with texts"
    for heading in headings.split("|"):
        table.add_column(heading, justify="left" if heading in ("index", "system", "parameters") else "right")
    for row in found:
        ratio = f"{row.ratio_at_batch:.2f}" if row.ratio_at_batch else ""
        texted = f"{row.with_texts_ms:.3f}" if row.with_texts_ms else ""
        table.add_row(
            row.index, row.system, row.parameters, str(row.threads), f"{row.bytes_per_vector:.1f}", f"{row.build_s:.1f}",
            f"{row.recall_at_10:.3f}", *(f"{value:.3f}" for value in (row.p50_ms, row.p95_ms, row.batch_p50_ms, row.batch_p95_ms)),
            ratio, texted,
        )  # fmt: skip
    Console(width=190).print(table)
