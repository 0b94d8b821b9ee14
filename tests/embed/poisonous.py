"""An encoder that some texts make raise, break for good or die. In: a corpus. Out: its embeddings, by processes that may die."""

import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ragray.config import EmbedConfig
from ragray.corpus.table import Corpus
from ragray.embed.blocks import Block, plan_blocks
from ragray.embed.encoder import Encoder, EncoderFingerprint, Vectors
from ragray.embed.worker import BlockWorker
from ragray.stages.embed import EmbedBlocks

RAISES, BREAKS, KILLS, ENDLESS = "raises", "breaks", "kills", "endless"


class PoisonousEncoder:
    """Does what another encoder does, but for the texts that hold one of the four words."""

    def __init__(self, encoder: Encoder) -> None:
        self._encoder = encoder
        self._broken = False

    @property
    def fingerprint(self) -> EncoderFingerprint:
        return self._encoder.fingerprint

    def encode(self, texts: Sequence[str]) -> Vectors:
        words = set(" ".join(texts).split())
        self._broken |= BREAKS in words
        if self._broken or RAISES in words:
            raise ValueError("no such token\nand a second line")
        if KILLS in words:
            os.kill(os.getpid(), signal.SIGKILL)
        vectors = self._encoder.encode(texts)
        vectors[[ENDLESS in text.split() for text in texts]] = np.inf
        return vectors

    def encode_questions(self, texts: Sequence[str]) -> Vectors:
        return self.encode(texts)


class PoisonousEmbedBlocks(EmbedBlocks):
    """The task with such an encoder."""

    def set_up(self, config: EmbedConfig, threads: int) -> None:
        super().set_up(config, threads)
        self.worker.encoder = PoisonousEncoder(self.worker.encoder)


def embed_in_a_child(block: Block, config: EmbedConfig, folder: Path) -> bool:
    """Embed one block in a process of its own; say whether it came to a good end."""
    child = os.fork()
    if not child:
        worker = BlockWorker(config, folder)
        worker.encoder = PoisonousEncoder(worker.encoder)
        worker.embed(block)
        os._exit(0)
    return os.waitpid(child, 0)[1] == 0


def main(corpus: str, out: str, block_rows: str, max_crashes: str) -> None:
    """Embed a corpus as a cluster does that starts a new process for every one that dies; print the deaths of each block."""
    config = EmbedConfig(model="hash:16", max_crashes=int(max_crashes))
    for block in plan_blocks(Corpus.open(Path(corpus)).shards, int(block_rows)):
        deaths = 0
        while deaths < 50 and not embed_in_a_child(block, config, Path(out)):
            deaths += 1
        print(deaths)


if __name__ == "__main__":
    main(*sys.argv[1:])
