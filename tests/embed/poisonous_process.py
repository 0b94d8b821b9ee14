"""A process of `ragray.embed.processes` whose encoder is poisonous."""

import sys
from pathlib import Path

from ragray.config import EmbedConfig
from ragray.embed import processes
from ragray.embed.worker import BlockWorker
from tests.embed.poisonous import PoisonousEncoder


class PoisonousWorker(BlockWorker):
    """A worker with such an encoder."""

    def __init__(self, config: EmbedConfig, folder: Path, *, threads: int = 0) -> None:
        super().__init__(config, folder, threads=threads)
        self.encoder = PoisonousEncoder(self.encoder)


if __name__ == "__main__":
    processes.BlockWorker = PoisonousWorker  # type: ignore[misc] - this process is to use it
    processes.main(*sys.argv[1:])
