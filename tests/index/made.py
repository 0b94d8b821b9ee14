"""An index of any FAISS type, written without the planning and tuning of a build."""

import shutil
from collections.abc import Collection, Sequence
from pathlib import Path

import faiss
import numpy as np

from ragray.artifact.manifest import publish, read_manifest
from ragray.corpus.table import passages_to_table
from ragray.embed.encoder import HashEncoder
from ragray.embed.passage_text import passage_text
from ragray.index.store.search_params import SearchParams
from ragray.index.store.segment import write_segment
from ragray.index.store.snapshot import SEGMENTS, SegmentRef, find_current, publish_snapshot
from ragray.index.store.tombstones import with_tombstones
from ragray.types import Passage
from tests.helpers import make_snapshot

DIM = 64


def vectors_of(passages: Sequence[Passage]) -> np.ndarray:
    return HashEncoder(DIM).encode([passage_text(passage) for passage in passages]).astype(np.float16)


def make_index(
    folder: Path,
    parts: Sequence[Sequence[Passage]],
    *,
    factory: str = "Flat",
    nprobe: int = 0,
    lexical: str = "plain",
    deleted: Collection[int] = (),
    name: str = "000001-test",
    over_retrieve: int = 2,
) -> Path:
    """Write an index with a segment for each of ``parts``; global rows ``deleted`` are dead."""
    empty = faiss.index_factory(DIM, factory, faiss.METRIC_INNER_PRODUCT)
    empty.train(np.concatenate([vectors_of(part) for part in parts]).astype(np.float32))
    data, refs, start = faiss.serialize_index(empty), [], 0
    for number, part in enumerate(parts):
        path = folder / SEGMENTS / f"{name}-{number}"
        blocks = [(passages_to_table(part), vectors_of(part))]
        index = faiss.deserialize_index(data)
        write_segment(path, blocks, num_rows=len(part), empty_index=index, lexical=lexical)
        dead = [row - start for row in sorted(deleted) if start <= row < start + len(part)]
        refs.append(with_tombstones(folder, SegmentRef(name=path.name, num_rows=len(part)), dead))
        start += len(part)
    snapshot = make_snapshot(
        name,
        refs,
        dim=DIM,
        parent=find_current(folder),
        factory=factory,
        search_params=SearchParams(nprobe=nprobe, over_retrieve=over_retrieve),
        lexical=lexical,
    )
    publish_snapshot(folder, snapshot, expected=find_current(folder))
    return folder


def publish_again(segment: Path) -> None:
    """Let the manifest of a segment agree with its files, so that only a look into them can find what is wrong."""
    manifest = read_manifest(segment, "segment")
    files = [segment / entry.path for entry in manifest.files]
    publish(segment, kind="segment", fingerprint=manifest.fingerprint, facts=manifest.facts, files=files)


def copy_of(index: Path, to: Path) -> Path:
    """Copy an index, so that it can be damaged."""
    shutil.copytree(index, to)
    return to
