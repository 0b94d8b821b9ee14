"""The work of one embedding process. In: a block of the corpus. Out: its file; passages that cannot be embedded are left out and named.

A passage that raises is found by halving the block. One that kills the process is found by crash markers
(`ragray.execute.crash_markers`): after ``embed.max_crashes`` deaths over a block its passages are tried one at a time, and one that
was being tried at so many deaths, and at two or more, is left out.
"""

from __future__ import annotations

import os
from pathlib import Path

import pyarrow as pa

from ragray.config import EmbedConfig
from ragray.embed.blocks import BLOCK_FOLDER, Block, Refused, is_whole, read_block, write_block
from ragray.embed.encoder import Encoder
from ragray.embed.isolate_failures import Sifted, SpoiltEncoderError, probe, sift
from ragray.embed.load import load_passage_encoder
from ragray.embed.passage_text import encoder_texts
from ragray.errors import ConfigError, RagrayError
from ragray.execute.crash_markers import CrashMarker, CrashMarkers, Deaths
from ragray.failures import told

SPOILT_EXIT_CODE = 70
REFUSABLE_ROWS = 8
"""So many passages of a block may be refused whatever its size; beyond that, at most half of it."""
UNEXPLAINED_DEATHS = 4
"""So many processes more than ``embed.max_crashes`` may die over a block before they try any passage of it alone."""
DEADLY_ROWS = 8
"""So many passages of a block may kill a process each, before the encoder is blamed instead."""
KILLS = "it kills the process that encodes it"


class BlockWorker:
    """Reads a block's passages, encodes them, writes the block's file."""

    def __init__(self, config: EmbedConfig, folder: Path, *, threads: int = 0) -> None:
        os.environ["TOKENIZERS_PARALLELISM"] = "true" if threads > 1 else "false"
        self.encoder: Encoder = load_passage_encoder(config, threads=threads)
        self._config = config
        self._folder = folder
        self._markers = CrashMarkers(folder)
        probe(self.encoder, config)

    def embed(self, block: Block) -> None:
        """Embed one block, unless it is there already (a dead process's work is handed out again, done or not).

        Raises:
            ConfigError: so many passages are refused that the encoder must be at fault.
            ArtifactError: a file cannot be read or written.
        """
        try:
            self._embed(block)
        except OSError as err:
            raise told(err, self._folder / BLOCK_FOLDER / block.name) from err

    def _embed(self, block: Block) -> None:
        if is_whole(self._folder, block):
            return
        deaths = self._markers.deaths(block.name)
        if deaths.rowless >= self._config.max_crashes + UNEXPLAINED_DEATHS:
            raise RagrayError(
                f"{block.name}: {deaths.count} processes died one after the other before any of its passages was tried; look for "
                "too little memory, lower embed.block_rows, then run again"
            )
        with self._markers.begin(block.name) as marker:
            table = read_block(block)
            sifted = self._sift(block, encoder_texts(table), deaths, marker)
        refused = _refused(block, table, sifted)
        ids = table["id"].take(pa.array(sifted.kept, type=pa.int64()))
        if not is_whole(self._folder, block):
            write_block(self._folder, block, ids, sifted.vectors_ND, refused)

    def _sift(self, block: Block, texts: list[str], deaths: Deaths, marker: CrashMarker) -> Sifted:
        limit = self._config.max_crashes
        deadly = {row: KILLS for row, count in deaths.rows.items() if count >= max(limit, 2)}
        if len(deadly) > DEADLY_ROWS:
            raise ConfigError(
                f"{block.name}: more than {DEADLY_ROWS} of its passages killed the process that encoded them; the encoder is at "
                f"fault (memory? a broken library?): change embed.model, embed.engine or embed.batch_tokens"
            )
        try:
            return sift(self.encoder, texts, known=deadly, one_by_one=deaths.count >= limit, on_try=marker.hold)
        except SpoiltEncoderError:
            os._exit(SPOILT_EXIT_CODE)  # a fresh process goes on; the marker stays, as at any other death


def _refused(block: Block, table: pa.Table, sifted: Sifted) -> list[Refused]:
    """Name the refused passages; raise `ConfigError` if there are too many to blame them."""
    refused = [Refused(row, table["id"][row].as_py(), reason) for row, reason in sorted(sifted.reasons.items())]
    if len(refused) > max(REFUSABLE_ROWS, block.num_rows // 2):
        raise ConfigError(
            f"{block.name}: {len(refused)} of its {block.num_rows} passages cannot be embedded, the first is '{refused[0].id}' "
            f"({refused[0].reason}); the encoder does not fit this corpus: check embed.model, embed.max_length and embed.dtype"
        )
    return refused
