"""Approximate search next to raw FAISS and autofaiss. In: the wiki-250k data. Out: one table and a JSON of results.

    python -m tests.bench.ann --data ../shared/data/wiki-250k --work work/ann

The texts go through the fake encoder `hash:384` (bags of hashed words: deterministic, but not what a trained encoder would give;
real vectors can be given with --vectors). Every index is built and tuned as `ragray index build` does it, without Ray. Raw FAISS gets
the same factory, nprobe and candidates (`IndexRefine` over fp16 where ragray re-scores); autofaiss gets the memory that ragray's FAISS
file takes and the latency that it tunes to by default. Recall: the share of the ten nearest other rows found for 512 rows.
"""

import argparse
import os
import platform
import shutil
import subprocess
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

from ragray.artifact import atomic_path, write_json
from ragray.config import EncoderConfig, IndexConfig, IndexType
from ragray.corpus.table import passages_to_table
from ragray.embed.encoder import EncoderFingerprint, HashEncoder
from ragray.errors import IndexBudgetError
from ragray.index.build import train_empty_index
from ragray.index.plan import IndexPlan, plan_index
from ragray.index.search import IndexReader
from ragray.index.segment import FAISS_FILE, write_segment
from ragray.index.snapshot import SEGMENTS, SegmentRef, Snapshot, now, publish_snapshot
from ragray.index.tune import tuned_snapshot
from ragray.types import Passage

RESULTS = Path(__file__).parent / "results" / "ann.json"
DIM, K, NUM_QUERIES, BATCH, MIN_RECALL = 384, 10, 512, 64, 0.95
BLOCK_ROWS = 4096
TYPES: tuple[IndexType, ...] = ("flat", "ivf", "ivf_pq", "ivf_rabitq")
AUTOFAISS = ("autofaiss==2.18.0", "embedding-reader==1.8.1")
GOALS = (
    "goals: ragray's search at most 1.15 times raw FAISS at batch 64; recall at least that of autofaiss in equal memory"
)

Search = Callable[[np.ndarray, int], np.ndarray]

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--data", type=Path, default=Path("../shared/data/wiki-250k"))
parser.add_argument("--work", type=Path, default=Path("work/ann"))
parser.add_argument("--vectors", type=Path, help=".npy of float16 or float32, a row a text; other dimensions are fine")
parser.add_argument("--rows", type=int, default=0, help="use only so many rows; 0: all")
parser.add_argument(
    "--autofaiss",
    default="ivf,ivf_rabitq",
    help="types of ragray whose memory autofaiss gets too (minutes each); empty: none",
)
parser.add_argument("--results", type=Path, default=RESULTS)


@dataclass(frozen=True)
class System:
    """An index that one system built; ``search`` is None for ragray, whose readers are opened for a number of threads."""

    name: str
    parameters: str
    bytes_per_vector: float
    build_s: float
    search: Search | None
    tune_s: float | None = None


@dataclass(frozen=True)
class Measured:
    """One index of one system with a number of threads; milliseconds are those of one query."""

    index: str
    system: str
    parameters: str
    threads: int
    bytes_per_vector: float
    build_s: float
    recall_at_10: float
    p50_ms: float
    p95_ms: float
    batch_p50_ms: float
    batch_p95_ms: float
    ratio_at_batch: float | None = None
    with_texts_ms: float | None = None
    tune_s: float | None = None


def texts_of(data: Path, rows: int) -> list[str]:
    """Read the texts in order."""
    texts: list[str] = []
    for path in sorted(data.glob("*.parquet")):
        texts += pq.read_table(path, columns=["text"])["text"].to_pylist()
    return texts[: rows or None]


def vectors_of(texts: Sequence[str], cache: Path) -> np.ndarray:
    """Encode with the fake encoder, once."""
    if not cache.is_file():
        vectors = np.concatenate(
            [HashEncoder(DIM).encode(texts[n : n + BLOCK_ROWS]) for n in range(0, len(texts), BLOCK_ROWS)]
        )
        with atomic_path(cache) as temporary, temporary.open("wb") as file:
            np.save(file, vectors.astype(np.float16))
    found: np.ndarray = np.load(cache)
    return found


def blocks(texts: Sequence[str], vectors_ND: np.ndarray) -> Iterator[tuple[pa.Table, np.ndarray]]:
    """Yield passages with their vectors."""
    for start in range(0, len(texts), BLOCK_ROWS):
        piece = texts[start : start + BLOCK_ROWS]
        yield (
            passages_to_table([Passage(f"p{start + n}", text) for n, text in enumerate(piece)]),
            vectors_ND[start : start + BLOCK_ROWS],
        )


def build_ragray(
    folder: Path, texts: Sequence[str], vectors_ND: np.ndarray, plan: IndexPlan, config: IndexConfig
) -> tuple[float, float]:
    """Train, write one segment, tune and publish; return the seconds of building and of tuning."""
    shutil.rmtree(folder, ignore_errors=True)
    started = perf_counter()
    empty = train_empty_index(plan, sample(vectors_ND, plan, config), config)
    write_segment(folder / SEGMENTS / "one", blocks(texts, vectors_ND), num_rows=len(texts), empty_index=empty)
    built = perf_counter()
    dim = vectors_ND.shape[1]
    snapshot = Snapshot(
        name="000001-bench", parent=None, created_at=now(), source="bench", segments=(SegmentRef(name="one", num_rows=len(texts)),),
        encoder=EncoderFingerprint("bench", "none", dim, "none", True, 0, ""), encoder_config=EncoderConfig(model=f"hash:{dim}"),
        dim=dim, factory=plan.factory, nprobe=plan.nprobe, over_retrieve=plan.over_retrieve, recall_at_10=None,
    )  # fmt: skip
    try:
        snapshot = tuned_snapshot(folder, snapshot, config)
    except IndexBudgetError as err:
        print(f"{err}; measured as planned", file=sys.stderr)
    publish_snapshot(folder, snapshot, expected=None)
    return built - started, perf_counter() - built


def sample(vectors_ND: np.ndarray, plan: IndexPlan, config: IndexConfig) -> np.ndarray:
    """Draw the training rows, for ragray and raw FAISS alike."""
    rows = np.random.default_rng(config.seed).choice(len(vectors_ND), size=plan.train_rows, replace=False)
    return vectors_ND[np.sort(rows)].astype(np.float32)


def build_raw(vectors_ND: np.ndarray, plan: IndexPlan, config: IndexConfig) -> tuple[faiss.Index, float]:
    """Build the same index with FAISS alone, in memory; coarse codes are refined from fp16."""
    started = perf_counter()
    dim = vectors_ND.shape[1]
    index = faiss.index_factory(dim, plan.factory, faiss.METRIC_INNER_PRODUCT)
    if plan.nlist:
        faiss.extract_index_ivf(index).cp.seed = config.seed + 1
        index.train(sample(vectors_ND, plan, config))
    refine = faiss.IndexScalarQuantizer(dim, faiss.ScalarQuantizer.QT_fp16, faiss.METRIC_INNER_PRODUCT)
    whole = faiss.IndexRefine(index, refine) if plan.type in ("ivf_pq", "ivf_rabitq") else index
    for start in range(0, len(vectors_ND), 65536):
        whole.add(vectors_ND[start : start + 65536].astype(np.float32))
    return whole, perf_counter() - started


def raw_search(index: faiss.Index, snapshot: Snapshot) -> Search:
    """Search with the parameters that ragray was tuned to."""
    params = faiss.SearchParametersIVF(nprobe=snapshot.nprobe) if snapshot.nprobe else None
    if isinstance(index, faiss.IndexRefine):
        params = faiss.SearchParametersPreTransform(index_params=params)
        params = faiss.IndexRefineSearchParameters(k_factor=float(snapshot.over_retrieve), base_index_params=params)
    return lambda queries_ND, k: index.search(queries_ND, k, params=params)[1]


def import_autofaiss(work: Path) -> str:
    """Make autofaiss 2 importable, or say why not. It pins numpy<2 and pandas<3, which ragray does not run on: the pins are ignored."""
    target = work / "autofaiss"
    if not target.is_dir():
        done = subprocess.run(
            [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", str(target), *AUTOFAISS],
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        if done.returncode:
            return f"pip: {done.stderr.strip().splitlines()[-1]}"
    sys.path.insert(0, str(target))
    try:
        import autofaiss  # noqa: F401 - only whether it is there
    except ImportError as err:
        return str(err)
    return ""


def build_autofaiss(vectors_ND: np.ndarray, memory_bytes: int) -> System:
    """Let autofaiss choose, build and tune within a memory."""
    from autofaiss import build_index

    original = faiss.OPQMatrix
    faiss.OPQMatrix = lambda d, M, d2: original(
        d, M, d2
    )  # autofaiss names arguments that FAISS 1.15 takes by position alone
    started = perf_counter()
    index, infos = build_index(
        np.ascontiguousarray(vectors_ND, dtype=np.float32), save_on_disk=False, max_index_memory_usage=f"{memory_bytes}B",
        current_memory_available="12G", metric_type="ip", nb_cores=os.cpu_count(), verbose=40,
    )  # fmt: skip
    took = perf_counter() - started
    faiss.OPQMatrix = original
    size = faiss.serialize_index(index).nbytes / len(vectors_ND)
    choice = f"{infos['index_key']} {infos['index_param']}"
    return System("autofaiss", choice, size, took, lambda queries_ND, k: index.search(queries_ND, k)[1])


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


def recall(search: Search, vectors_ND: np.ndarray, own_Q: np.ndarray, tenth_Q: np.ndarray) -> float:
    """Count rows as near as the tenth, the query's own left out."""
    queries_QD = vectors_ND[own_Q].astype(np.float32)
    found_QK = search(queries_QD, K + 1)
    scores_QK = np.einsum("qkd,qd->qk", vectors_ND[found_QK].astype(np.float32), queries_QD)
    near_QK = (scores_QK >= tenth_Q[:, None] - 1e-5) & (found_QK >= 0) & (found_QK != own_Q[:, None])
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


def systems_of(
    type_: IndexType, folder: Path, texts: Sequence[str], vectors_ND: np.ndarray, with_autofaiss: bool
) -> Iterator[System]:
    """Build one type with every system, all cores at work."""
    config = IndexConfig(type=type_, min_recall=MIN_RECALL)
    plan = plan_index(len(vectors_ND), vectors_ND.shape[1], config)
    faiss.omp_set_num_threads(os.cpu_count())
    build_s, tune_s = build_ragray(folder, texts, vectors_ND, plan, config)
    size = (folder / SEGMENTS / "one" / FAISS_FILE).stat().st_size
    snapshot = IndexReader.open(folder).snapshot
    parameters = f"{plan.factory} nprobe={snapshot.nprobe} x{snapshot.over_retrieve}"
    yield System("ragray", parameters, size / len(texts), build_s, None, round(tune_s, 1))
    faiss.omp_set_num_threads(os.cpu_count())
    raw, raw_s = build_raw(vectors_ND, plan, config)
    fp16 = 2 * vectors_ND.shape[1] if isinstance(raw, faiss.IndexRefine) else 0
    yield System("faiss", parameters, size / len(texts) + fp16, raw_s, raw_search(raw, snapshot))
    if with_autofaiss:
        yield build_autofaiss(vectors_ND, size)


def measure(type_: IndexType, systems: Sequence[System], vectors_ND: np.ndarray, folder: Path) -> Iterator[Measured]:
    """Measure systems side by side, with one thread and with two."""
    count = min(NUM_QUERIES, len(vectors_ND))
    own_Q = np.sort(np.random.default_rng(1).choice(len(vectors_ND), size=count, replace=False))
    tenth_Q, queries_QD = exact_tenth(vectors_ND, own_Q), vectors_ND[own_Q].astype(np.float32)
    for threads in (1, 2):
        faiss.omp_set_num_threads(threads)
        reader = IndexReader.open(folder, threads=threads)
        searches = [system.search or rows_of(reader) for system in systems]
        single = times(searches, queries_QD[:256], 1, 1)
        batched = times(searches, queries_QD, BATCH, 4)
        (texted,) = times([texts_found(reader)], queries_QD, BATCH, 1)
        for system, search, one, many in zip(systems, searches, single, batched, strict=True):
            ours = system.search is None
            yield Measured(
                type_, system.name, system.parameters, threads, round(system.bytes_per_vector, 1), round(system.build_s, 1),
                recall(search, vectors_ND, own_Q, tenth_Q),
                *np.quantile(one, (0.5, 0.95)).tolist(), *np.quantile(many, (0.5, 0.95)).tolist(),
                *((float(np.median(batched[0]) / np.median(batched[1])), float(np.median(texted)), system.tune_s) if ours else ()),
            )  # fmt: skip


def rows_of(reader: IndexReader) -> Search:
    """Search as FAISS does: rows and scores, no texts."""
    return lambda queries_ND, k: reader.search_rows(queries_ND, k)[0]


def texts_found(reader: IndexReader) -> Search:
    """Search as a user does: with the passages."""
    return lambda queries_ND, k: reader.search(queries_ND, k).rows_NK


def main() -> None:
    """Run everything, print the table, write the JSON."""
    args = parser.parse_args()
    if not list(args.data.glob("*.parquet")):
        sys.exit(f"{args.data}: no Parquet files there; name the wiki-250k folder with --data")
    started = perf_counter()
    texts = texts_of(args.data, args.rows)
    vectors_ND = (
        np.load(args.vectors) if args.vectors else vectors_of(texts, args.work / f"hash-{DIM}-{len(texts)}.npy")
    )
    texts, vectors_ND = texts[: len(vectors_ND)], np.ascontiguousarray(vectors_ND[: len(texts)], dtype=np.float16)
    why_not = import_autofaiss(args.work) if args.autofaiss else "not asked for"
    found: list[Measured] = []
    for type_ in TYPES:
        folder = args.work / f"index-{type_}"
        systems = list(systems_of(type_, folder, texts, vectors_ND, not why_not and type_ in args.autofaiss.split(",")))
        found += measure(type_, systems, vectors_ND, folder)
        shutil.rmtree(folder)
    kind = str(args.vectors) if args.vectors else f"fake: hash:{DIM}"
    show(found, f"{len(texts):,} vectors of {vectors_ND.shape[1]} dimensions ({kind})")
    if why_not:
        print(f"autofaiss not measured: {why_not}")
    machine = {"cores": os.cpu_count(), "machine": platform.machine(), "python": platform.python_version()}
    content = {
        "machine": machine, "faiss": faiss.__version__, "rows": len(texts), "dim": vectors_ND.shape[1], "vectors": kind,
        "min_recall": MIN_RECALL,
        "seconds": round(perf_counter() - started), "autofaiss": why_not or " ".join(AUTOFAISS), "systems": [asdict(row) for row in found],
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


if __name__ == "__main__":
    main()
