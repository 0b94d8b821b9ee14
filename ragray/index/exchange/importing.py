"""Import of embeddings made elsewhere. In: Parquet or npy, perhaps a corpus. Out: a corpus and embeddings to build an index of."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
from pydantic import JsonValue

from ragray.artifact.digest import file_checksum, fingerprint
from ragray.artifact.kinds import MANIFEST_NAME
from ragray.artifact.lock import exclusive
from ragray.artifact.output import StageOutput, stage_output
from ragray.config import EncoderConfig
from ragray.corpus.table import PASSAGE_FOLDER, SCHEMA_VERSION, Corpus, ShardWriter, passages_to_table
from ragray.embed.blocks import (
    BLOCK_FOLDER,
    embeddings_facts,
    is_whole,
    not_finite,
    plan_blocks,
    read_block,
    write_block,
)
from ragray.embed.encoder import EncoderFingerprint, absolute_model, encoder_fingerprint, with_prefixes
from ragray.embed.load import load_encoder
from ragray.embed.passage_text import encoder_texts
from ragray.errors import EncoderMismatchError, InputError
from ragray.index.check.ids import IdKeys
from ragray.index.exchange.vector_files import (
    Columns,
    VectorBatch,
    count_rows,
    find_files,
    has_column,
    read_texts,
    read_vectors,
)
from ragray.progress import Progress

CORPUS_FOLDER = "corpus"
EMBEDDINGS_FOLDER = "embeddings"
BLOCK_ROWS = 4096
SHARD_ROWS = 50_000
LENGTH_TOLERANCE = 1e-2
MIN_COSINE = 0.98
"""Between an imported vector and the one that the named encoder makes of its text, where that is asked for: numerics may differ."""


@dataclass(frozen=True, slots=True)
class ImportReport:
    """What there is now: the two folders that `ragray index build` takes, their rows; ``reused``: nothing was to be done."""

    corpus: Path
    embeddings: Path
    num_rows: int
    dim: int
    reused: bool


def import_embeddings(
    source: Path,
    corpus: Path | None,
    out: Path,
    *,
    encoder_config: EncoderConfig,
    id_column: str = "id",
    text_column: str = "text",
    embedding_column: str = "embedding",
    title_column: str = "title",
    sample: int = 0,
    block_rows: int = BLOCK_ROWS,
) -> ImportReport:
    """Turn vectors into `OUT/embeddings`, and texts that come along into `OUT/corpus`.

    ``source`` is a file or folder of Parquet (embedding, id and text, where it has them) or npy. ``corpus`` is a folder that
    `ragray ingest` wrote, or Parquet or jsonl files with id and text; its rows are the vectors' in the same order. Without it
    the texts are those of the Parquet. ``encoder_config`` names the model that made the vectors; questions are encoded with
    it. The first passages, as many as ``sample`` says, are encoded again to see that it was this one. An interrupted import
    goes on where it was, block by block of ``block_rows``.

    Raises:
        InputError: rows cannot be used; names file and row.
        EncoderMismatchError: the vectors have another dimension than the encoder's, or are not its own.
        ArtifactBusyError: another process writes to ``out``.
    """
    columns = Columns(id_column, text_column, embedding_column, title_column)
    written = (out / CORPUS_FOLDER / PASSAGE_FOLDER, out / EMBEDDINGS_FOLDER / BLOCK_FOLDER)
    files = find_files(source, (".parquet", ".npy"), written)
    encoder_config = with_prefixes(absolute_model(encoder_config))
    encoder = encoder_fingerprint(encoder_config)
    with exclusive(out), stage_output(out / EMBEDDINGS_FOLDER, kind="embeddings") as output:
        num_vectors = sum(map(count_rows, files))
        if not num_vectors:
            raise InputError(f"{source}: 0 vectors; name files that hold some")
        passages, made = _corpus(files, corpus, out / CORPUS_FOLDER, columns, written)
        if num_vectors != passages.num_passages:
            raise InputError(
                f"{source}: {num_vectors} vectors, but {passages.num_passages} passages in {corpus or source}; every vector "
                "needs its passage, in the same order"
            )
        settings = [asdict(encoder), encoder_config.question_prefix]
        key = fingerprint([*map(_content, files), embedding_column, passages.fingerprint, *settings])
        job = _VectorImport(files, passages, encoder_config, encoder, columns, block_rows)
        job.check_encoder(sample)
        current = output.finished(key) is not None
        if not current:
            job.run(output, key)
    return ImportReport(passages.folder, output.folder, num_vectors, encoder.dim, current and not made)


def _corpus(
    files: list[Path], corpus: Path | None, out: Path, columns: Columns, written: tuple[Path, ...]
) -> tuple[Corpus, bool]:
    """Open the corpus of the vectors; where texts are given as files, write it first. Return also whether it was written."""
    if corpus is not None and (corpus / MANIFEST_NAME).is_file():
        return Corpus.open(corpus), False
    if corpus is not None:
        files = find_files(corpus, (".parquet", ".jsonl"), written)
    elif not has_column(files[0], columns.text):
        raise InputError(
            f"{files[0]}: has no column {columns.text!r} of texts; name it, or give the corpus of these vectors"
        )
    key = fingerprint([*map(_content, files), columns.id, columns.text, columns.title])
    with stage_output(out, kind="corpus") as output:
        current = output.finished(key) is not None
        if not current:
            _write_corpus(files, output, columns, key)
    return Corpus.open(out), not current


def _content(path: Path) -> list[JsonValue]:
    return [path.name, path.stat().st_size, file_checksum(path)]


def _write_corpus(files: list[Path], output: StageOutput, columns: Columns, key: str) -> None:
    output.withdraw()
    folder = output.folder / PASSAGE_FOLDER
    ids, documents = IdKeys(), IdKeys()
    starts: list[int] = []
    places: list[tuple[Path, int]] = []
    with (
        ShardWriter(folder, SHARD_ROWS) as shards,
        Progress("import: texts", total=None, unit="rows") as progress,
    ):
        for batch in read_texts(files, columns):
            starts.append(shards.num_rows)
            places.append((batch.path, batch.first))
            numbers = np.arange(len(batch.passages)) + shards.num_rows
            ids.add([passage.id for passage in batch.passages], numbers)
            documents.add([passage.document_id for passage in batch.passages], numbers)
            shards.write(passages_to_table(batch.passages))
            progress.advance(len(batch.passages))
    if not shards.num_rows:
        raise InputError(f"{files[0]}: 0 rows; name files that hold passages")
    if doubled := ids.duplicates():
        first, second = (_place(starts, places, row) for row in doubled[0])
        raise InputError(f"{second} has the id of {first} ({len(doubled)} such rows in all); every id must be another")
    for path in folder.iterdir():
        if path not in shards.paths:
            path.unlink()
    facts: dict[str, JsonValue] = {
        "num_passages": shards.num_rows,
        "num_documents": documents.num_distinct(),
        "schema_version": SCHEMA_VERSION,
    }
    output.publish(key, facts, shards.paths)


def _place(starts: list[int], places: list[tuple[Path, int]], row: int) -> str:
    number = bisect_right(starts, row) - 1
    path, first = places[number]
    return f"{path}: row {first + row - starts[number]}"


@dataclass(frozen=True, slots=True)
class _VectorImport:
    """The vectors of ``files``, of the passages of ``corpus`` in the same order, to be written as embeddings."""

    files: list[Path]
    corpus: Corpus
    config: EncoderConfig
    encoder: EncoderFingerprint
    columns: Columns
    block_rows: int

    def run(self, output: StageOutput, key: str) -> None:
        """Write the blocks that are missing, then the manifest; blocks of another import are removed."""
        output.withdraw()
        blocks = plan_blocks(self.corpus.shards, self.block_rows, key)
        rows = _RowCutter(read_vectors(self.files, self.columns))
        with Progress("import: vectors", total=self.corpus.num_passages, unit="rows") as progress:
            for block in blocks:
                vectors_BD, batches = rows.take(block.num_rows)
                if not is_whole(output.folder, block):
                    table = read_block(block)
                    self._check(vectors_BD, batches, table["id"].to_pylist())
                    write_block(output.folder, block, table["id"], vectors_BD)
                progress.advance(block.num_rows)
        files = [output.folder / BLOCK_FOLDER / block.name for block in blocks]
        for path in (output.folder / BLOCK_FOLDER).iterdir():
            if path not in files:
                path.unlink()
        facts = embeddings_facts(
            num_rows=self.corpus.num_passages, corpus=self.corpus.fingerprint, encoder=self.encoder, config=self.config
        )
        output.publish(key, facts, files)

    def _check(self, vectors_BD: np.ndarray, batches: list[VectorBatch], ids: list[str]) -> None:
        """Refuse vectors of another dimension or length than the encoder's, and those of another passage."""
        if vectors_BD.shape[1] != self.encoder.dim:
            raise EncoderMismatchError(
                f"{batches[0].path}: vectors of {vectors_BD.shape[1]} dimensions, the encoder '{self.config.model}' makes "
                f"{self.encoder.dim}; name the one that made them"
            )
        for row in not_finite(vectors_BD)[:1]:
            raise InputError(
                f"{_at(batches, row)}: a number is NaN, infinite or beyond 65504; repair or leave out this row"
            )
        lengths = np.linalg.norm(vectors_BD, axis=1)
        wrong = (np.abs(lengths - 1) > LENGTH_TOLERANCE) & ((lengths > 0) | (self.encoder.weights != "hash"))
        for row in np.flatnonzero(wrong)[:1] if self.encoder.normalize else ():
            raise InputError(
                f"{_at(batches, int(row))}: a vector of length {lengths[row]:.3f}, the encoder '{self.config.model}' makes them of "
                "length one; scale them, or set embed.normalize=false"
            )
        found = [identity for batch in batches for identity in batch.ids or ()]
        if len(found) == len(ids) and found != ids:
            row = next(row for row in range(len(ids)) if found[row] != ids[row])
            raise InputError(
                f"{_at(batches, row)}: the vector of '{found[row]}', the corpus {self.corpus.folder} has '{ids[row]}' there; "
                "bring both into the same order"
            )

    def check_encoder(self, sample: int) -> None:
        """Encode the first passages again, and refuse vectors that are not near what comes out."""
        if sample < 1:
            return
        tables: list[pa.Table] = []
        for table in self.corpus.iter_tables():
            tables.append(table)
            if sum(map(len, tables)) >= sample:
                break
        passages = pa.concat_tables(tables).slice(0, sample)
        vectors_SD, batches = _RowCutter(read_vectors(self.files, self.columns)).take(len(passages))
        self._check(vectors_SD, batches, passages["id"].to_pylist())
        made_SD = load_encoder(self.config).encode(encoder_texts(passages))
        lengths = np.linalg.norm(made_SD, axis=1) * np.linalg.norm(vectors_SD, axis=1)
        cosines = (made_SD * vectors_SD).sum(axis=1) / np.maximum(lengths, np.finfo(np.float32).tiny)
        for row in np.flatnonzero((cosines < MIN_COSINE) & (lengths > 0))[:1]:
            raise EncoderMismatchError(
                f"{_at(batches, int(row))}: the encoder '{self.config.model}' makes another vector of this passage (cosine "
                f"{cosines[row]:.3f}); name the model, pooling and prefixes that made the vectors"
            )


class _RowCutter:
    """Cuts batches of vectors into any number of rows."""

    def __init__(self, batches: Iterator[VectorBatch]) -> None:
        self._batches = batches
        self._rest: VectorBatch | None = None

    def take(self, count: int) -> tuple[np.ndarray, list[VectorBatch]]:
        """Return the next ``count`` rows, and the batches that they are from."""
        taken: list[VectorBatch] = []
        while count:
            batch = self._rest or next(self._batches)
            taken.append(batch.slice(0, count))
            count -= len(taken[-1].vectors_BD)
            rest = batch.slice(len(taken[-1].vectors_BD), None)
            self._rest = rest if len(rest.vectors_BD) else None
        return np.concatenate([batch.vectors_BD for batch in taken]), taken


def _at(batches: list[VectorBatch], row: int) -> str:
    """Return the file and the row number there of a row of several batches."""
    for batch in batches:
        if row < len(batch.vectors_BD):
            return batch.at(row)
        row -= len(batch.vectors_BD)
    raise IndexError(row)
