"""Export of an index. In: a snapshot. Out: its live rows as a `datasets` folder with one FAISS file, or as Parquet embeddings.

Row n of what is written is the n-th live row of the snapshot. B rows of a block, D dim.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import faiss
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import JsonValue

from ragray.artifact.digest import fingerprint
from ragray.artifact.files import atomic_path, write_json
from ragray.artifact.manifest import is_current, publish, read_manifest
from ragray.errors import ConfigError, InputError, NotAnArtifactError
from ragray.index.check.verify_faiss import code_of
from ragray.index.search.candidates import SPARE
from ragray.index.store.live import LiveBatch, live_batches
from ragray.index.store.segment import FAISS_FILE, SEGMENT_SCHEMA
from ragray.index.store.snapshot import SEGMENTS, Snapshot, read_snapshot
from ragray.progress import Progress

KIND = "export"
DATASET_FOLDER = "dataset"
HF_SHARD_ROWS = 200_000
ROWS_PER_FILE = 100_000
MAX_K_FACTOR = 1000
"""Candidates for every result that a FAISS file may ask for: with more, `faiss.read_index` refuses it."""


@dataclass(frozen=True, slots=True)
class ExportReport:
    """What was written: the snapshot, its live rows, the folder; ``reused``: it had been written before."""

    snapshot: str
    num_rows: int
    folder: Path
    reused: bool


def export_hf(index: Path, out: Path, *, snapshot: str | None = None, rescore: bool = True) -> ExportReport:
    """Write `OUT/dataset` (`datasets.load_from_disk`: id, title, text, embeddings) and `OUT/index.faiss` over the same rows.

    `transformers.RagRetriever` opens them with index_name="custom", passages_path=OUT/dataset, index_path=OUT/index.faiss. The
    FAISS index is of the snapshot's type, with its search parameters. Where its codes are not exact it holds the fp16 vectors
    too, and re-scores with them as ragray does; without ``rescore`` it is as small as the snapshot's own, and finds less. Exact
    types find the very same (among equal scores FAISS has an order of its own), the others the same or better.

    Raises:
        NotAnArtifactError, CorruptArtifactError: there is nothing whole to export.
        InputError: ``out`` holds something else, or no row is live.
    """
    found = read_snapshot(index, snapshot)

    def write(folder: Path) -> None:
        with Progress("export", total=2 * found.num_live, unit="rows") as progress:
            _write_dataset(index, found, folder / DATASET_FOLDER, progress)
            faiss.write_index(_merged(index, found, rescore, progress), str(folder / FAISS_FILE))

    return _export(found, out, ["hf", rescore], write)


def export_parquet(
    index: Path, out: Path, *, snapshot: str | None = None, rows_per_file: int = ROWS_PER_FILE
) -> ExportReport:
    """Write `OUT/part-*.parquet` with all columns of the passages and `embedding`, a list of D float32, for `embedding-reader`.

    Raises:
        NotAnArtifactError, CorruptArtifactError: there is nothing whole to export.
        InputError: ``out`` holds something else, or no row is live.
        ConfigError: ``rows_per_file`` is not positive.
    """
    if rows_per_file < 1:
        raise ConfigError(f"rows_per_file={rows_per_file}: expected 1 or more")
    found = read_snapshot(index, snapshot)
    schema = SEGMENT_SCHEMA.append(pa.field("embedding", pa.list_(pa.float32(), found.dim)))

    def write(folder: Path) -> None:
        with Progress("export", total=found.num_live, unit="rows") as progress:
            for number, start in enumerate(range(0, found.num_live, rows_per_file)):
                with pq.ParquetWriter(folder / f"part-{number:05}.parquet", schema, compression="zstd") as writer:
                    for block in live_batches(index, found, start, min(start + rows_per_file, found.num_live)):
                        table = block.passages.append_column(schema.field("embedding"), _embeddings(block))
                        writer.write_table(table)
                        progress.advance(len(table))

    return _export(found, out, ["parquet", rows_per_file], write)


def _export(snapshot: Snapshot, out: Path, settings: list[object], write: Callable[[Path], None]) -> ExportReport:
    """Let ``write`` fill a folder that appears whole, with a manifest; do nothing where the same export is there already."""
    out = out.resolve()  # "." has no name to write beside
    key = fingerprint([snapshot.model_dump(mode="json"), *settings])
    if is_current(out, kind=KIND, fingerprint=key):
        return ExportReport(snapshot.name, snapshot.num_live, out, True)
    if not snapshot.num_live:
        raise InputError(f"snapshot {snapshot.name}: every row is deleted; there is nothing to export")
    _require_free(out)
    with atomic_path(out) as folder:
        folder.mkdir()
        write(folder)
        files = sorted(path for path in folder.rglob("*") if path.is_file())
        facts: dict[str, JsonValue] = {"snapshot": snapshot.name, "num_rows": snapshot.num_live, "dim": snapshot.dim}
        publish(folder, kind=KIND, fingerprint=key, facts=facts, files=files)
    return ExportReport(snapshot.name, snapshot.num_live, out, False)


def _require_free(out: Path) -> None:
    """An export replaces its folder as a whole: it may be an older export, but nothing else."""
    if out.is_dir() and not any(out.iterdir()):
        return
    if out.exists():
        try:
            read_manifest(out, KIND)
        except NotAnArtifactError as err:
            raise InputError(f"{out}: holds something that is no export; choose another folder") from err


def _embeddings(block: LiveBatch) -> pa.Array:
    vectors_BD = block.vectors.astype(np.float32)
    return pa.FixedSizeListArray.from_arrays(pa.array(vectors_BD.ravel()), vectors_BD.shape[1])


def _write_dataset(index: Path, snapshot: Snapshot, folder: Path, progress: Progress) -> None:
    """Write what `Dataset.save_to_disk` would, a block of rows in memory at a time."""
    import datasets

    text, vector = datasets.Value("string"), datasets.List(datasets.Value("float32"), length=snapshot.dim)
    features = datasets.Features({"id": text, "title": text, "text": text, "embeddings": vector})
    folder.mkdir()
    starts = range(0, snapshot.num_live, HF_SHARD_ROWS)
    files = [f"data-{number:05}-of-{len(starts):05}.arrow" for number in range(len(starts))]
    for name, start in zip(files, starts, strict=True):
        with pa.OSFile(str(folder / name), "wb") as sink, pa.ipc.new_stream(sink, features.arrow_schema) as writer:
            for block in live_batches(index, snapshot, start, min(start + HF_SHARD_ROWS, snapshot.num_live)):
                table = block.passages.select(["id", "title", "text"]).append_column("embeddings", _embeddings(block))
                writer.write_table(table.combine_chunks().cast(features.arrow_schema))
                progress.advance(len(table))
    datasets.DatasetInfo(features=features).write_to_directory(str(folder))
    state: dict[str, JsonValue] = {
        "_data_files": [{"filename": name} for name in files],
        "_fingerprint": fingerprint([snapshot.name, snapshot.source]),
        "_format_columns": None,
        "_format_kwargs": {},
        "_format_type": None,
        "_output_all_columns": False,
        "_split": None,
    }
    write_json(folder / "state.json", state)


def _merged(index: Path, snapshot: Snapshot, rescore: bool, progress: Progress) -> faiss.Index:
    """Return one index over all live rows, trained as that of the first segment is."""
    merged = faiss.read_index(str(index / SEGMENTS / snapshot.segments[0].name / FAISS_FILE))
    merged.reset()
    params = snapshot.search_params
    ivf = faiss.try_extract_index_ivf(merged)
    if ivf is not None:
        ivf.nprobe = max(1, params.nprobe)
    if isinstance(merged, faiss.IndexHNSW) and params.ef_search:
        merged.hnsw.efSearch = params.ef_search
    if rescore and not code_of(merged).exact:
        halves = faiss.IndexScalarQuantizer(merged.d, faiss.ScalarQuantizer.QT_fp16, faiss.METRIC_INNER_PRODUCT)
        merged = faiss.IndexRefine(merged, halves)
        as_ragray = (params.over_retrieve + SPARE) * len(snapshot.segments)  # as many as it takes in all
        merged.k_factor = min(as_ragray, snapshot.num_live, MAX_K_FACTOR)
    for block in live_batches(index, snapshot):
        merged.add(block.vectors.astype(np.float32))
        progress.advance(len(block.rows_B))
    return merged
