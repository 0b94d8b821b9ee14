"""Embeddings on disk. In: a corpus, blocks of vectors. Out: one Parquet file per block, and a plan that says which are missing.

A block's file holds its rows of the corpus in order, without the refused ones. The file's metadata lists the refused rows with the
reasons. A block is whole when its rows and its refused rows together are as many as were planned.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from operator import attrgetter
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import JsonValue, TypeAdapter

from ragray.artifact.digest import fingerprint
from ragray.artifact.files import atomic_path
from ragray.artifact.manifest import Manifest, open_artifact
from ragray.config import EncoderConfig
from ragray.embed.encoder import EncoderFingerprint, Vectors
from ragray.errors import ConfigError, CorruptArtifactError, first_line

COLUMNS = ["id", "embedding"]
BLOCK_FOLDER = "blocks"
REFUSED_KEY = b"ragray.refused"


@dataclass(frozen=True, slots=True)
class Block:
    """Rows ``start`` to ``stop`` of one corpus shard: the unit of embedding, computed whole or not at all."""

    shard: str
    start: int
    stop: int
    name: str

    @property
    def num_rows(self) -> int:
        """Passages in the block."""
        return self.stop - self.start


@dataclass(frozen=True, slots=True)
class Refused:
    """A passage that could not be embedded: its row, counted from the block's first, its id, and why."""

    row: int
    id: str
    reason: str


@dataclass(frozen=True, slots=True)
class BlockLayout:
    """Which of a block's planned rows its file holds: all in order, without the refused ones."""

    num_rows: int
    refused: tuple[Refused, ...] = ()

    @property
    def num_planned(self) -> int:
        """Rows of the corpus that the block stands for."""
        return self.num_rows + len(self.refused)

    @property
    def refused_rows(self) -> tuple[int, ...]:
        """Rows that the file lacks, ascending, counted from the block's first."""
        return tuple(refused.row for refused in self.refused)


def plan_blocks(shards: Sequence[tuple[Path, int]], block_rows: int, key: str = "plan") -> list[Block]:
    """Cut corpus shards (path, rows) into blocks, in corpus order; the names sort in that order too.

    ``key`` is part of the names. A process that still works on an earlier plan then writes files that nobody reads.
    """
    return [
        Block(str(path), start, min(start + block_rows, rows), f"block-{number:05}-{start:09}-{key}.parquet")
        for number, (path, rows) in enumerate(shards)
        for start in range(0, rows, block_rows)
    ]


def missing_blocks(folder: Path, blocks: Sequence[Block], *, full: bool = False) -> list[Block]:
    """Return the blocks whose file is missing or incomplete; with ``full`` whole files are read, else only their footers."""
    return [block for block in blocks if not is_whole(folder, block, full=full)]


def is_whole(folder: Path, block: Block, *, full: bool = False) -> bool:
    """Return whether the block's file exists and accounts for every planned row; with ``full`` the whole file is read."""
    path = folder / BLOCK_FOLDER / block.name
    try:
        if not path.is_file() or read_layout(path).num_planned != block.num_rows:
            return False
        return not full or pq.read_table(path, page_checksum_verification=True).column_names == COLUMNS
    except (CorruptArtifactError, OSError, ValueError):  # pyarrow has several names for a damaged file
        return False


def read_layout(path: Path) -> BlockLayout:
    """Read from a block file's footer which rows it holds.

    Raises:
        CorruptArtifactError: the footer cannot be read.
    """
    try:
        footer = pq.read_metadata(path)
        refused = TypeAdapter(tuple[Refused, ...]).validate_json((footer.metadata or {}).get(REFUSED_KEY, b"[]"))
    except (ValueError, OSError) as err:  # pyarrow has several names for a damaged footer
        reason = first_line(err)
        raise CorruptArtifactError(f"{path}: is no block of embeddings ({reason}); embed this corpus again") from err
    return BlockLayout(int(footer.num_rows), refused)


def read_block(block: Block) -> pa.Table:
    """Read the block's rows of the corpus (id, title, text), and no more row groups than they lie in."""
    file = pq.ParquetFile(block.shard)
    groups: list[int] = []
    first = offset = 0
    for group in range(file.metadata.num_row_groups):
        rows = file.metadata.row_group(group).num_rows
        if offset < block.stop and offset + rows > block.start:
            if not groups:
                first = offset
            groups.append(group)
        offset += rows
    table = file.read_row_groups(groups, columns=["id", "title", "text"])
    return table.slice(block.start - first, block.num_rows)


def not_finite(vectors_ND: Vectors) -> list[int]:
    """Return the rows that float16 cannot hold: beyond 65504, or not a number."""
    with np.errstate(over="ignore"):
        rows: list[int] = np.flatnonzero(~np.isfinite(vectors_ND.astype(np.float16)).all(axis=1)).tolist()
    return rows


def write_block(
    folder: Path, block: Block, ids: pa.ChunkedArray, vectors_ND: Vectors, refused: Sequence[Refused] = ()
) -> None:
    """Write one finished block atomically: columns id and embedding, fixed_size_list<float16>[D]; the refused in the metadata.

    Raises:
        ConfigError: a vector is not finite in float16.
    """
    if bad := not_finite(vectors_ND):
        raise ConfigError(
            f"{block.name}: passage '{ids[bad[0]]}' has a vector that float16 cannot hold (beyond 65504, or not a number); "
            "set embed.normalize=true, or choose another embed.model"
        )
    values = pa.array(vectors_ND.astype(np.float16).ravel(), type=pa.float16())
    column = pa.FixedSizeListArray.from_arrays(values, vectors_ND.shape[1])
    table = pa.table([ids, column], names=COLUMNS)
    if refused:
        rows = TypeAdapter(list[Refused]).dump_json(sorted(refused, key=attrgetter("row")))
        table = table.replace_schema_metadata({REFUSED_KEY: rows})
    with atomic_path(folder / BLOCK_FOLDER / block.name) as path:
        pq.write_table(table, path, compression="none", use_dictionary=False, write_page_checksum=True)


@dataclass(frozen=True, slots=True)
class Embeddings:
    """A finished embeddings folder, opened and verified; ``num_rows`` counts its vectors, without quarantined passages."""

    folder: Path
    manifest: Manifest
    encoder: EncoderFingerprint
    encoder_config: EncoderConfig
    num_rows: int
    corpus: str
    num_quarantined: int = 0

    @classmethod
    def open(cls, folder: Path) -> Embeddings:
        """Open a folder that `ragray embed` finished.

        Raises:
            NotAnArtifactError: it never finished.
            CorruptArtifactError: a block is missing or differs from the manifest.
        """
        manifest = open_artifact(folder, "embeddings")
        facts = manifest.facts
        try:
            return cls(
                folder,
                manifest,
                encoder_of(manifest),
                EncoderConfig.model_validate(facts["encoder_config"]),
                TypeAdapter(int).validate_python(facts["num_rows"]),
                str(facts["corpus"]),
                TypeAdapter(int).validate_python(facts.get("num_quarantined", 0)),
            )
        except (KeyError, ValueError) as err:
            reason = first_line(err)
            raise CorruptArtifactError(
                f"{folder}/manifest.json: a fact is malformed ({reason}); run `ragray embed` again"
            ) from err

    @property
    def content(self) -> str:
        """Fingerprint of the vectors themselves. The manifest's fingerprint is of their input, refused passages included."""
        return fingerprint([[entry.path, entry.checksum] for entry in self.manifest.files])

    @property
    def blocks(self) -> list[Path]:
        """Block files in corpus order."""
        return [self.folder / entry.path for entry in self.manifest.files if entry.path.startswith(f"{BLOCK_FOLDER}/")]

    def iter_blocks(self) -> Iterator[tuple[list[str], np.ndarray]]:
        """Yield ids and vectors (rows, D) float16, block by block in corpus order."""
        for path in self.blocks:
            yield load_block(path)


def load_block(path: Path) -> tuple[list[str], np.ndarray]:
    """Read one block file: ids and vectors (rows, D) float16."""
    table = pq.read_table(path)
    column = table["embedding"].combine_chunks()
    vectors = column.flatten().to_numpy(zero_copy_only=False).reshape(len(table), column.type.list_size)
    return table["id"].to_pylist(), vectors


def encoder_of(manifest: Manifest) -> EncoderFingerprint:
    """Return the encoder that a manifest of embeddings names; raises `KeyError` or `ValueError` where it names none."""
    return TypeAdapter(EncoderFingerprint).validate_python(manifest.facts["encoder"])


def embeddings_facts(
    *, num_rows: int, corpus: str, encoder: EncoderFingerprint, config: EncoderConfig, num_quarantined: int = 0
) -> dict[str, JsonValue]:
    """Facts for the manifest of an embeddings folder."""
    fields = EncoderConfig.model_fields
    settings = {key: value for key, value in config.model_dump(mode="json").items() if key in fields}
    return {
        "num_rows": num_rows,
        "num_quarantined": num_quarantined,
        "corpus": corpus,
        "encoder": asdict(encoder),
        "encoder_config": settings,
    }
