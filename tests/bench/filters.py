"""Filters over many rows, each a new one. In: numbers of rows. Out: one table and a JSON of results.

    python -m tests.bench filters --rows 252000,2000000 --work work/filters

Every passage has a language, a year, a team (`team.name`), up to three tags, an instant of its own and a url of its own. Segments
hold at most a million rows, as a build makes them. The same filters run with the columns of the segments and without them, as over a
segment of an earlier version, each time with other values, so that nothing is remembered. Milliseconds are those of the processor, on
the one thread that finds out which rows match. Segments that the work folder has already are not written again.
"""

import argparse
import os
import platform
import random
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import median
from time import thread_time

import faiss
import numpy as np
import pyarrow as pa
from rich.console import Console
from rich.table import Table

from ragray.artifact.files import write_json
from ragray.config import IndexConfig
from ragray.corpus.table import PASSAGE_SCHEMA
from ragray.index.search.reader import IndexReader
from ragray.index.store.columns import COLUMNS_FILE, ColumnsWriter
from ragray.index.store.segment import PASSAGES_FILE, Segment, write_segment
from ragray.index.store.snapshot import SEGMENTS, SegmentRef
from ragray.index.write.segments import is_written
from tests.helpers import make_snapshot

RESULTS = Path(__file__).parent / "results" / "filters.json"
BLOCK_ROWS, GOAL_MS = 4096, 20
LANGUAGES, SHARES = ["en", "zh", "de", "fr", "ja", "es", "hi", "th"], [0.4, 0.2, 0.1, 0.1, 0.08, 0.06, 0.04, 0.02]
FIRST = np.datetime64("2005-01-01T00:00:00")
SECONDS = 20 * 365 * 86_400
FIELDS = np.array(["lang", "year", "team.name", "tags", "tags", "tags", "date", "url"])

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--rows", default="252000,2000000")
parser.add_argument("--rounds", type=int, default=7)
parser.add_argument("--work", type=Path, default=Path("work/filters"))
parser.add_argument("--results", type=Path, default=RESULTS)


@dataclass(frozen=True)
class Built:
    """What the columns of one size cost: seconds to make them; bytes a row of the columns and of the passages."""

    rows: int
    columns_s: float
    columns_bytes_per_row: float
    passages_bytes_per_row: float


@dataclass(frozen=True)
class Measured:
    """Median and longest milliseconds of a filter, by the share of rows that match it."""

    rows: int
    filter: str
    matching: float
    without_ms: float
    columns_ms: float
    columns_worst_ms: float


def year(draw: random.Random) -> int:
    return draw.randint(1992, 2020)


def instant(draw: random.Random) -> str:
    return f"{FIRST + np.timedelta64(draw.randrange(SECONDS), 's')}Z"


def number(draw: random.Random) -> int:
    return draw.randrange(250_000)


FILTERS: dict[str, Callable[[random.Random], str]] = {
    "lang == en": lambda draw: f"lang == {draw.choice(LANGUAGES)}",
    "lang in (3 values)": lambda draw: f"lang in ({', '.join(draw.sample(LANGUAGES, 3))})",
    "year >= 2010": lambda draw: f"year >= {year(draw)}.{draw.randrange(10**6)}",
    "year >= 2010 and year < 2014": lambda draw: (
        f"year >= {year(draw)} and year < {year(draw)}.{draw.randrange(10**6)}"
    ),
    "team.name == team7": lambda draw: f"team.name == team{draw.randrange(200)}",
    "tags == tag7": lambda draw: f"tags == tag{draw.randrange(40)}",
    "date >= instant": lambda draw: f"date >= {instant(draw)}",
    "date >= instant and date < instant": lambda draw: f"date >= {instant(draw)} and date < {instant(draw)}",
    "lang == en and year >= 2010": lambda draw: f"lang == {draw.choice(LANGUAGES)} and year >= {year(draw)}",
    "lang == en or tags == tag7": lambda draw: f"lang == {draw.choice(LANGUAGES)} or tags == tag{draw.randrange(40)}",
    "not lang == en": lambda draw: f"not lang == {draw.choice(LANGUAGES)}",
    "url == one": lambda draw: f"url == https://example.org/articles/{number(draw):08}/index.html",
}


def metadata(start: int, count: int) -> pa.Array:
    """Make the metadata of some rows, as pairs."""
    draw = np.random.default_rng(start)
    tags = draw.random((count, 3)) < 0.5
    dates = FIRST + draw.integers(0, SECONDS, count).astype("m8[s]")
    texts = [
        draw.choice(LANGUAGES, count, p=SHARES),
        draw.integers(1990, 2026, count).astype(str),
        np.char.add("team", draw.integers(0, 200, count).astype(str)),
        *(np.char.add("tag", draw.integers(0, 40, count).astype(str)) for _ in range(3)),
        np.char.add(np.datetime_as_string(dates), "Z"),
        [f"https://example.org/articles/{row:08}/index.html" for row in range(start, start + count)],
    ]
    held = np.concatenate([np.ones((count, 3), bool), tags, np.ones((count, 2), bool)], axis=1)
    keys = np.broadcast_to(FIELDS, held.shape)[held]
    values = np.stack([np.asarray(column, dtype=object) for column in texts], axis=1)[held]
    offsets = np.concatenate([[0], np.cumsum(held.sum(axis=1))]).astype(np.int32)
    return pa.MapArray.from_arrays(pa.array(offsets), pa.array(keys, pa.string()), pa.array(values, pa.string()))


def blocks(start: int, stop: int) -> Iterator[tuple[pa.Table, np.ndarray]]:
    """Yield passages with vectors of one dimension."""
    for first in range(start, stop, BLOCK_ROWS):
        count = min(BLOCK_ROWS, stop - first)
        ids = [f"p{row}" for row in range(first, first + count)]
        columns = [ids, ids, [""] * count, ["text"] * count, [""] * count, metadata(first, count)]
        yield pa.table(columns, schema=PASSAGE_SCHEMA), np.ones((count, 1), np.float16)


def build(folder: Path, rows: int) -> tuple[Built, IndexReader]:
    """Write the segments that are not there yet, and open all."""
    largest = IndexConfig().segment_rows
    count = -(-rows // largest)
    bounds = [rows * part // count for part in range(count + 1)]
    refs = []
    for part in range(count):
        ref = SegmentRef(name=f"{rows}-{part}", num_rows=bounds[part + 1] - bounds[part])
        if not is_written(folder, ref, 1):
            pieces = blocks(bounds[part], bounds[part + 1])
            write_segment(folder / SEGMENTS / ref.name, pieces, num_rows=ref.num_rows, empty_index=faiss.IndexFlatIP(1))
        refs.append(ref)
    reader = IndexReader.of(folder, make_snapshot("000001-bench", refs, dim=1))
    segments = [opened.segment for opened in reader.segments]
    columns_s = sum(columns_seconds(segment, folder / "again.arrow") for segment in segments)
    sizes = [
        sum((segment.folder / name).stat().st_size for segment in segments) / rows
        for name in (COLUMNS_FILE, PASSAGES_FILE)
    ]
    return Built(rows, columns_s, *sizes), reader


def columns_seconds(segment: Segment, path: Path) -> float:
    """Make the columns of a segment again; return the seconds."""
    started = thread_time()
    writer = ColumnsWriter()
    writer.add(segment.passages["metadata"].chunks)
    writer.write(path)
    return thread_time() - started


def without_columns(reader: IndexReader) -> IndexReader:
    """Return a reader of the same segments as an earlier version wrote them."""
    segments = [replace(opened, segment=replace(opened.segment, columns=None)) for opened in reader.segments]
    return IndexReader(reader.index, reader.snapshot, segments, threads=1)


def milliseconds(reader: IndexReader, where: str) -> tuple[float, np.ndarray]:
    """Return how long a filter takes, and which rows match."""
    started = thread_time()
    found = reader.allowed(where)
    return 1000 * (thread_time() - started), np.concatenate(found)


def measure(reader: IndexReader, name: str, rounds: int) -> Measured:
    """Run a filter with other values in every round; the first one warms up."""
    draw, old = random.Random(name), without_columns(reader)
    slow: list[float] = []
    fast: list[float] = []
    shares: list[float] = []
    for _ in range(rounds + 1):
        where = FILTERS[name](draw)
        slow_ms, expected_N = milliseconds(old, where)
        fast_ms, found_N = milliseconds(reader, where)
        if not np.array_equal(found_N, expected_N):
            raise SystemExit(f"{where}: {found_N.sum()} rows match with columns, {expected_N.sum()} without")
        slow.append(slow_ms)
        fast.append(fast_ms)
        shares.append(float(found_N.mean()))
    rows = reader.snapshot.num_rows
    return Measured(rows, name, median(shares), median(slow[1:]), median(fast[1:]), max(fast[1:]))


def main() -> None:
    """Run, print the tables, write the JSON."""
    args = parser.parse_args()
    built, found = [], []
    for rows in map(int, args.rows.split(",")):
        cost, reader = build(args.work, rows)
        built.append(cost)
        found += [measure(reader, name, args.rounds) for name in FILTERS]
    shown = Table(title=f"a new filter each time; goal: {GOAL_MS} ms at two million rows", title_justify="left")
    for name in ("rows", "filter", "matching", "without columns ms", "columns ms", "worst ms"):
        shown.add_column(name, justify="left" if name == "filter" else "right")
    for one in found:
        times = (f"{value:.1f}" for value in (one.without_ms, one.columns_ms, one.columns_worst_ms))
        shown.add_row(f"{one.rows:,}", one.filter, f"{one.matching:.1%}", *times)
    console = Console(width=160)
    console.print(shown)
    for cost in built:
        console.print(
            f"{cost.rows:,} rows: columns made in {cost.columns_s:.1f} s; "
            f"columns {cost.columns_bytes_per_row:.0f} bytes a row, passages {cost.passages_bytes_per_row:.0f}"
        )
    machine = {"cores": os.cpu_count(), "machine": platform.machine(), "python": platform.python_version()}
    args.results.parent.mkdir(exist_ok=True)
    results = {"built": [asdict(cost) for cost in built], "filters": [asdict(one) for one in found]}
    write_json(args.results, {"machine": machine, "rounds": args.rounds, **results})


if __name__ == "__main__":
    main()
