"""Embeddings on disk. In: a corpus, blocks of vectors. Out: one Parquet file a block, and a plan that says which are missing."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import JsonValue, TypeAdapter

from ragray.artifact import Manifest, atomic_path, open_artifact
from ragray.config import EncoderConfig
from ragray.embed.encoder import EncoderFingerprint, Vectors
from ragray.errors import ConfigError, CorruptArtifactError
from ragray.types import Passage

BLOCK_FOLDER = "blocks"


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


def plan_blocks(shards: Sequence[tuple[Path, int]], block_rows: int) -> list[Block]:
    """Cut corpus shards (path, rows) into blocks, in corpus order; the names sort in that order too."""
    return [
        Block(str(path), start, min(start + block_rows, rows), f"block-{number:05}-{start:09}.parquet")
        for number, (path, rows) in enumerate(shards)
        for start in range(0, rows, block_rows)
    ]


def missing_blocks(folder: Path, blocks: Sequence[Block]) -> list[Block]:
    """Return the blocks whose file is not there or does not hold as many rows as it should."""
    return [block for block in blocks if not _is_whole(folder / BLOCK_FOLDER / block.name, block.num_rows)]


def _is_whole(path: Path, rows: int) -> bool:
    if not path.is_file():
        return False
    try:
        return int(pq.read_metadata(path).num_rows) == rows
    except (ValueError, OSError):  # pyarrow has several names for a damaged footer
        return False


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


def encoder_text(title: str, text: str) -> str:
    """Join title and text as the encoder sees them."""
    return f"{title}\n{text}" if title else text


def passage_text(passage: Passage) -> str:
    """Return a passage as the encoder sees it."""
    return encoder_text(passage.title, passage.text)


def write_block(folder: Path, block: Block, ids: pa.ChunkedArray, vectors_ND: Vectors) -> None:
    """Write one finished block atomically: columns id and embedding, fixed_size_list<float16>[D].

    Raises:
        ConfigError: a vector is not finite in float16.
    """
    with np.errstate(over="ignore"):
        halves_ND = vectors_ND.astype(np.float16)
    if bad := np.flatnonzero(~np.isfinite(halves_ND).all(axis=1)).tolist():
        raise ConfigError(
            f"{block.name}: passage '{ids[bad[0]]}' has a vector that float16 cannot hold (beyond 65504, or not a number); "
            "set embed.normalize=true, or choose another embed.model"
        )
    values = pa.array(halves_ND.ravel(), type=pa.float16())
    column = pa.FixedSizeListArray.from_arrays(values, vectors_ND.shape[1])
    with atomic_path(folder / BLOCK_FOLDER / block.name) as path:
        pq.write_table(pa.table({"id": ids, "embedding": column}), path, compression="none")


@dataclass(frozen=True, slots=True)
class Embeddings:
    """A finished embeddings folder, opened and verified."""

    folder: Path
    manifest: Manifest
    encoder: EncoderFingerprint
    encoder_config: EncoderConfig
    num_rows: int
    corpus: str

    @classmethod
    def open(cls, folder: Path) -> Embeddings:
        """Open a folder that `ragray embed` finished.

        Raises:
            NotAnArtifactError: it never finished.
            CorruptArtifactError: a block is missing or differs from the manifest.
        """
        manifest = open_artifact(folder, "embeddings")
        facts = manifest.facts
        encoder, settings, rows = facts["encoder"], facts["encoder_config"], facts["num_rows"]
        if not isinstance(encoder, dict) or not isinstance(rows, int):
            raise CorruptArtifactError(
                f"{folder}/manifest.json: encoder or num_rows is malformed; run `ragray embed` again"
            )
        return cls(
            folder,
            manifest,
            TypeAdapter(EncoderFingerprint).validate_python(encoder),
            EncoderConfig.model_validate(settings),
            rows,
            str(facts["corpus"]),
        )

    @property
    def blocks(self) -> list[Path]:
        """Block files in corpus order."""
        return [self.folder / entry.path for entry in self.manifest.files]

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


def embeddings_facts(
    *, num_rows: int, corpus: str, encoder: EncoderFingerprint, config: EncoderConfig
) -> dict[str, JsonValue]:
    """Facts for the manifest of an embeddings folder."""
    fields = EncoderConfig.model_fields
    settings = {key: value for key, value in config.model_dump(mode="json").items() if key in fields}
    return {"num_rows": num_rows, "corpus": corpus, "encoder": asdict(encoder), "encoder_config": settings}
