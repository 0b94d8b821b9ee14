"""An index for other programs. In: a snapshot's live rows. Out: a `datasets` folder with one FAISS file, or Parquet embeddings.

Row n of what is written is the n-th live row of the snapshot. B rows of a block, D dim.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import faiss
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from ragray.artifact import atomic_path, exclusive, is_current, open_artifact, publish, read_manifest
from ragray.artifact import fingerprint as key_of
from ragray.errors import ArtifactError, InputError
from ragray.index.live import LiveBlock, live_blocks
from ragray.index.segment import FAISS_FILE, SEGMENT_SCHEMA
from ragray.index.snapshot import SEGMENTS, Snapshot, read_snapshot
from ragray.index.verify_faiss import EXACT, code_of
from ragray.progress import Progress

DATASET_FOLDER = "dataset"
HF_SHARD_ROWS = 200_000
EMBEDDINGS = "embeddings"
"""Name of the vectors' column, as `transformers` expects it."""


@dataclass(frozen=True, slots=True)
class ExportReport:
    """What was written: from which snapshot, how many rows, where; ``reused``: it was there already."""

    snapshot: str
    num_rows: int
    folder: Path
    files: tuple[Path, ...]
    reused: bool


def export_hf(index: Path, out: Path, *, snapshot: str | None = None, rescore: bool = True) -> ExportReport:
    """Write `OUT/dataset` (`datasets.load_from_disk`: id, title, text, embeddings) and `OUT/index.faiss` over the same rows.

    `transformers.RagRetriever` opens them with index_name="custom", passages_path=OUT/dataset, index_path=OUT/index.faiss. The
    FAISS index is of the snapshot's type, with its search parameters. Where its codes are not exact it carries the fp16 vectors
    too and re-scores with them as ragray does, unless ``rescore`` is false: then it is as small as the snapshot's own.

    Raises:
        NotAnArtifactError, CorruptArtifactError: there is nothing whole to export.
    """
    found = read_snapshot(index, snapshot)
    key = key_of([found.name, found.source, "hf", rescore])

    def write(folder: Path) -> None:
        with Progress("export", total=2 * found.num_live, unit="rows") as progress:
            _write_dataset(index, found, folder / DATASET_FOLDER, progress)
            faiss.write_index(_merged(index, found, rescore, progress), str(folder / FAISS_FILE))

    return _export(found, out, key, write)
