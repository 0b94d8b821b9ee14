"""A segment: immutable vectors, passages and their FAISS index. In: passages with vectors. Out: a folder; row = FAISS id = passage row."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import faiss
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ragray.artifact.digest import fingerprint
from ragray.artifact.files import ARRAY_ERRORS, atomic_path
from ragray.artifact.manifest import Manifest, open_artifact, publish
from ragray.corpus.table import PASSAGE_SCHEMA, passage_from_row
from ragray.embed.passage_text import encoder_texts
from ragray.errors import ArtifactError, CorruptArtifactError, first_line
from ragray.index.store.columns import COLUMNS_FILE, ColumnsWriter, MetadataColumns
from ragray.index.store.postings import LEXICAL, LexicalWriter
from ragray.types import Passage

FAISS_FILE = "index.faiss"
VECTORS_FILE = "vectors.npy"
PASSAGES_FILE = "passages.arrow"

PAIRS = pa.list_(pa.struct([pa.field("key", pa.string(), nullable=False), pa.field("value", pa.string())]))
SEGMENT_SCHEMA = PASSAGE_SCHEMA.set(
    PASSAGE_SCHEMA.get_field_index("metadata"), pa.field("metadata", PAIRS, nullable=False)
)
"""`PASSAGE_SCHEMA` with metadata as pairs: the `datasets` library cannot open a file with an Arrow map in it."""


def write_segment(
    folder: Path,
    blocks: Iterable[tuple[pa.Table, np.ndarray]],
    *,
    num_rows: int,
    empty_index: faiss.Index,
    lexical: str = "none",
) -> Manifest:
    """Write a segment from blocks of (passages, vectors (rows, D) float16) with ``num_rows`` rows in all.

    ``empty_index`` is trained if its type needs that; the vectors are added to it in row order. ``lexical`` is the analyzer
    of the BM25 part (see `ragray.text.analyzer`). The folder appears whole.
    """
    with atomic_path(folder) as temporary:
        temporary.mkdir(parents=True)
        header = {"descr": "<f2", "fortran_order": False, "shape": (num_rows, empty_index.d)}
        row = 0
        terms, columns = LexicalWriter(lexical) if lexical != "none" else None, ColumnsWriter()
        writer: pa.RecordBatchStreamWriter | None = None
        with pa.OSFile(str(temporary / PASSAGES_FILE), "wb") as sink, (temporary / VECTORS_FILE).open("wb") as vectors:
            np.lib.format.write_array_header_1_0(vectors, header)
            for passages, block in blocks:
                writer = writer or pa.ipc.new_stream(sink, SEGMENT_SCHEMA)
                table = passages.combine_chunks().cast(SEGMENT_SCHEMA)
                writer.write_table(table)
                columns.add(table["metadata"].chunks)
                vectors.write(np.ascontiguousarray(block, dtype="<f2").data)
                empty_index.add(np.ascontiguousarray(block, dtype=np.float32))
                if terms:
                    terms.add(encoder_texts(passages))
                row += len(block)
            if writer is None or row != num_rows:
                raise CorruptArtifactError(f"{folder}: {row} rows came where {num_rows} were announced; embed again")
            writer.close()
        columns.write(temporary / COLUMNS_FILE)
        try:
            faiss.write_index(empty_index, str(temporary / FAISS_FILE))
        except RuntimeError as err:
            raise ArtifactError(
                f"{folder}: FAISS cannot write its file ({first_line(err)}); is the disk full?"
            ) from err
        files = [temporary / name for name in (FAISS_FILE, VECTORS_FILE, PASSAGES_FILE, COLUMNS_FILE)]
        files += terms.write(temporary / LEXICAL) if terms else []
        facts = {"num_rows": num_rows, "dim": empty_index.d}
        return publish(temporary, kind="segment", fingerprint=fingerprint([folder.name]), facts=facts, files=files)


@dataclass(frozen=True, slots=True)
class Segment:
    """An open segment; vectors, passages and the columns of their metadata stay on disk, memory-mapped.

    Segments that an earlier ragray wrote have no columns.
    """

    folder: Path
    index: faiss.Index
    vectors_ND: np.ndarray
    passages: pa.Table
    columns: MetadataColumns | None

    @classmethod
    def open(cls, folder: Path, *, num_rows: int, dim: int) -> Segment:
        """Open a segment and check that its parts agree with each other and with the snapshot.

        Raises:
            NotAnArtifactError: there is no whole segment.
            CorruptArtifactError: a file differs from the manifest, or counts or dimensions differ.
        """
        listed = {entry.path for entry in open_artifact(folder, "segment").files}
        try:
            index = faiss.read_index(str(folder / FAISS_FILE), faiss.IO_FLAG_MMAP_IFC)
            vectors = np.load(folder / VECTORS_FILE, mmap_mode="r", allow_pickle=False)
            passages = pa.ipc.open_stream(pa.memory_map(str(folder / PASSAGES_FILE))).read_all()
        except (RuntimeError, *ARRAY_ERRORS) as err:
            raise CorruptArtifactError(f"{folder}: cannot be read ({first_line(err)}); build the index again") from err
        found = {"FAISS": (index.ntotal, index.d), "vectors": vectors.shape, "passages": (len(passages), dim)}
        for part, shape in found.items():
            if tuple(shape) != (num_rows, dim):
                raise CorruptArtifactError(
                    f"{folder}: {part} hold {shape[0]} rows of {shape[1]} dimensions, the snapshot says {num_rows} of {dim}; "
                    "build the index again"
                )
        if vectors.dtype != np.float16 or not vectors.flags.c_contiguous:  # FAISS reads them as they lie
            raise CorruptArtifactError(
                f"{folder}: vectors are {vectors.dtype}, expected float16 row after row; build the index again"
            )
        if index.metric_type != faiss.METRIC_INNER_PRODUCT:
            raise CorruptArtifactError(
                f"{folder}: the FAISS index measures L2, not inner product; build the index again"
            )
        columns = MetadataColumns.open(folder / COLUMNS_FILE, num_rows) if COLUMNS_FILE in listed else None
        return cls(folder, index, vectors, passages, columns)

    @property
    def metadata_keys(self) -> set[str]:
        """The fields of the metadata that at least one row has."""
        if self.columns:
            return set(self.columns.places)
        return {
            key
            for lists in self.passages["metadata"].chunks
            for key in pc.unique(lists.flatten().field("key")).to_pylist()
        }

    def passage(self, row: int) -> Passage:
        """Return the passage of a row."""
        (found,) = self.passages.slice(row, 1).to_pylist()
        return passage_from_row(found)

    def read(self, rows: Sequence[int]) -> list[Passage]:
        """Return the passages of some rows, cut out batch by batch: Arrow's `take` would first copy all passages into memory."""
        if not rows:
            return []
        batches = self.passages.to_batches()
        starts = np.cumsum([0, *(len(batch) for batch in batches)])
        numbers = np.searchsorted(starts, rows, side="right") - 1
        places = zip(numbers.tolist(), (np.asarray(rows) - starts[numbers]).tolist(), strict=True)
        found = pa.concat_batches([batches[number].slice(row, 1) for number, row in places])
        return [passage_from_row(row) for row in found.to_pylist()]
