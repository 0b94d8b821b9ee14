"""Readers in a loop while an index changes. In: minutes. Out: one table and a JSON of results.

    python -m tests.bench readers --minutes 5

One process publishes snapshots, rolls back, promotes and collects without pause; others open the current snapshot, search it by
vectors, by words and with filters, and check that all that they find belongs to that snapshot: every passage says in its text and its
metadata which version of the documents it is, and every version hides other rows.
"""

import argparse
import dataclasses
import multiprocessing
import os
import platform
import random
import sys
import tempfile
import time
from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import faiss
import numpy as np
from rich.console import Console
from rich.table import Table

from ragray.artifact.files import write_json
from ragray.config import IndexConfig
from ragray.corpus.table import passages_to_table
from ragray.embed.encoder import HashEncoder
from ragray.embed.passage_text import passage_text
from ragray.index.search.reader import IndexReader
from ragray.index.search.result import SearchResult
from ragray.index.store.lifecycle import collect_garbage, promote, rollback
from ragray.index.store.segment import write_segment
from ragray.index.store.snapshot import (
    SEGMENTS,
    SegmentRef,
    names,
    next_name,
    publish_snapshot,
    read_snapshot,
    successor,
)
from ragray.index.store.tombstones import with_tombstones
from ragray.types import Passage
from tests.helpers import index_of, sentence

RESULTS = Path(__file__).parent / "results" / "readers.json"
ROWS, SEGMENT_ROWS, K = 90, 30, 10
ENCODER = HashEncoder(64)
QUESTIONS = ENCODER.encode_questions([sentence(1000 + number) for number in range(4)])

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--minutes", type=float, default=5)
parser.add_argument("--readers", type=int, default=2)
parser.add_argument("--results", type=Path, default=RESULTS)


@dataclass
class Counts:
    """What the processes did; ``mixed`` answers hold something that is not of their snapshot, ``errors`` are the first few."""

    openings: int = 0
    searches: int = 0
    versions_seen: int = 0
    snapshots: int = 0
    rollbacks: int = 0
    promotions: int = 0
    collections: int = 0
    collected_snapshots: int = 0
    mixed: int = 0
    num_errors: int = 0
    errors: list[str] = field(default_factory=list)


def passages_of(version: int) -> list[Passage]:
    """The documents of a version: the same ids, other words."""
    return [
        Passage(f"d{row}", f"version{version} {sentence(row)}", "", f"d{row}", {"version": str(version)})
        for row in range(ROWS)
    ]


def hidden_rows(version: int) -> list[int]:
    """The rows that a version's tombstones hide."""
    return [row for row in range(ROWS) if (row + version) % 7 == 0]


def is_of(found: SearchResult, version: int, per_query: int) -> bool:
    """Return whether a result holds nothing but live documents of one version, and as many as there must be."""
    hidden = {f"d{row}" for row in hidden_rows(version)}
    return all(len(hits) == per_query for hits in found.hits) and all(
        hit.passage.metadata["version"] == str(version)
        and hit.passage.text.startswith(f"version{version} ")
        and hit.passage.id not in hidden
        for hits in found.hits
        for hit in hits
    )


def answers(reader: IndexReader) -> list[bool]:
    """Search an open snapshot in every way; say of each answer whether it is of that snapshot."""
    version = int(reader.snapshot.source)
    return [
        is_of(reader.search(QUESTIONS, K), version, K),
        is_of(reader.search(QUESTIONS, K, where=f"version == {version}"), version, K),
        is_of(reader.search(QUESTIONS, K, where=f"version != {version}"), version, 0),
        is_of(reader.search_text([f"version{version}"], K), version, K),
        is_of(reader.search_text([f"version{version - 1} version{version + 1}"], K), version, 0),
    ]


def read_until(index: Path, stop: Path, seed: int) -> Counts:
    """Open and search the current snapshot again and again; keep some open for a while, which must change nothing."""
    counts, seen, dice = Counts(), set[str](), random.Random(seed)
    while not stop.exists():
        try:
            reader = IndexReader.open(index)
            counts.openings += 1
            seen.add(reader.snapshot.name)
            for _ in range(dice.choice([1, 1, 1, 10])):
                right = answers(reader)
                counts.searches += len(right)
                counts.mixed += right.count(False)
        except Exception as err:  # whatever it is, a reader must not see it: it is counted
            counts.num_errors += 1
            counts.errors = [*counts.errors, f"{type(err).__name__}: {err}"][:5]
    counts.versions_seen = len(seen)
    return counts


def publish_version(index: Path, version: int) -> None:
    """Write the segments and tombstones of a version and publish it on top of the current snapshot."""
    parent, passages = read_snapshot(index), passages_of(version)
    key, hidden, refs = next_name(index, str(version)), hidden_rows(version), []
    for start in range(0, ROWS, SEGMENT_ROWS):
        part = passages[start : start + SEGMENT_ROWS]
        vectors = ENCODER.encode([passage_text(passage) for passage in part]).astype(np.float16)
        blocks = [(passages_to_table(part), vectors)]
        name = f"{key}-{start:05}"
        flat = faiss.IndexFlatIP(ENCODER.fingerprint.dim)
        write_segment(index / SEGMENTS / name, blocks, num_rows=len(part), empty_index=flat, lexical="plain")
        ref = SegmentRef(name=name, num_rows=len(part))
        refs.append(with_tombstones(index, ref, [row - start for row in hidden if start <= row < start + SEGMENT_ROWS]))
    publish_snapshot(index, successor(index, parent, str(version), refs), expected=parent.name)


def change_until(index: Path, end_s: float, counts: Counts) -> None:
    """Publish versions, a few at least, and between them roll back, promote and collect."""
    dice, version = random.Random(0), 1
    while time.monotonic() < end_s or counts.snapshots < 6:
        version += 1
        publish_version(index, version)
        counts.snapshots += 1
        if dice.random() < 0.4 and read_snapshot(index).parent in names(index):
            rollback(index)
            counts.rollbacks += 1
        if dice.random() < 0.3:
            promote(index, dice.choice(names(index)))
            counts.promotions += 1
        if dice.random() < 0.6:
            collected = collect_garbage(index, keep=1, min_age_s=0)
            counts.collections += 1
            counts.collected_snapshots += len(collected.snapshots)


def measure(folder: Path, seconds: float, readers: int) -> Counts:
    """Run one writer here and some readers elsewhere; return what all did together."""
    index = index_of(folder, passages_of(1), IndexConfig(segment_rows=SEGMENT_ROWS, lexical="plain"))
    publish_version(index, 1)
    collect_garbage(index, keep=0, min_age_s=0)
    counts = Counts()
    with ProcessPoolExecutor(readers, multiprocessing.get_context("spawn")) as processes:
        stop = folder / "stop"
        stop.touch()
        list(processes.map(read_until, [index] * readers, [stop] * readers, range(readers)))  # imports everything
        stop.unlink()
        under_way: list[Future[Counts]] = [processes.submit(read_until, index, stop, seed) for seed in range(readers)]
        try:
            change_until(index, time.monotonic() + seconds, counts)
        finally:
            stop.touch()
        for found in (future.result() for future in under_way):
            for name in ("openings", "searches", "mixed", "num_errors", "errors"):
                setattr(counts, name, getattr(counts, name) + getattr(found, name))
            counts.versions_seen = max(counts.versions_seen, found.versions_seen)
    return counts


def main() -> None:
    """Run, print the table, write the JSON."""
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        counts = measure(Path(folder), args.minutes * 60, args.readers)
    found = dataclasses.asdict(counts)
    shown = Table(title=f"{args.readers} readers, {args.minutes:g} minutes", title_justify="left")
    for name in found:
        shown.add_column(name, justify="right")
    shown.add_row(*("\n".join(value) if isinstance(value, list) else f"{value:,}" for value in found.values()))
    Console(width=160).print(shown)
    machine = {"cores": os.cpu_count(), "machine": platform.machine(), "python": platform.python_version()}
    args.results.parent.mkdir(exist_ok=True)
    write_json(args.results, {"machine": machine, "minutes": args.minutes, "readers": args.readers, **found})
    if counts.num_errors or counts.mixed:
        sys.exit(1)
