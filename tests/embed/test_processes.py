"""Blocks are embedded by processes of this machine, whatever happens to these; none outlives the work."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from ragray.config import EmbedConfig
from ragray.corpus.table import Corpus
from ragray.embed import processes
from ragray.embed.blocks import BLOCK_FOLDER, Block, is_whole, load_block, plan_blocks, read_layout
from ragray.embed.encoder import HashEncoder
from ragray.embed.passage_text import passage_text
from ragray.embed.processes import MODULE, STARTS, embed_in_processes
from ragray.errors import ModelNotFoundError, RagrayError
from ragray.types import Passage
from tests.embed.poisonous import ENDLESS, KILLS, RAISES
from tests.helpers import some_passages, write_corpus
from tests.processes import descendants

CONFIG = EmbedConfig(model="hash:16")
DRIVER = """
import sys
from pathlib import Path
from ragray.config import EmbedConfig
from ragray.corpus.table import Corpus
from ragray.embed.processes import embed_in_processes
from ragray.embed.blocks import plan_blocks
blocks = plan_blocks(Corpus.open(Path(sys.argv[1])).shards, 2)
embed_in_processes(blocks, Path(sys.argv[2]), EmbedConfig(model="hash:16"), lambda block: print(block.name, flush=True))
"""


def blocks_of(folder: Path, passages: list[Passage], rows: int) -> list[Block]:
    return plan_blocks(Corpus.open(write_corpus(folder / "corpus", passages)).shards, rows)


def vectors_of(out: Path, blocks: list[Block]) -> tuple[list[str], np.ndarray]:
    loaded = [load_block(out / BLOCK_FOLDER / block.name) for block in blocks]
    return [id_ for ids, _ in loaded for id_ in ids], np.concatenate([vectors for _, vectors in loaded])


def own_processes() -> list[int]:
    return descendants(os.getpid(), MODULE.encode())


def test_every_block_is_embedded_once_and_no_process_is_left(tmp_path: Path) -> None:
    passages = some_passages(40)
    blocks, done = blocks_of(tmp_path, passages, 7), []
    assert embed_in_processes(blocks, tmp_path / "out", CONFIG, done.append) > 0
    assert sorted(block.name for block in done) == [block.name for block in blocks]
    ids, vectors = vectors_of(tmp_path / "out", blocks)
    assert ids == [passage.id for passage in passages]
    expected = HashEncoder(16).encode([passage_text(passage) for passage in passages])
    np.testing.assert_array_equal(vectors, expected.astype(np.float16))
    assert not own_processes()


def test_poisonous_passages_are_left_out_even_if_they_kill_the_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(processes, "MODULE", "tests.embed.poisonous_process")
    poison = {3: RAISES, 8: KILLS, 20: ENDLESS}
    passages = [Passage(p.id, f"{p.text} {poison.get(row, '')}") for row, p in enumerate(some_passages(24))]
    blocks = blocks_of(tmp_path, passages, 6)
    embed_in_processes(blocks, tmp_path / "out", CONFIG, lambda block: None)
    assert vectors_of(tmp_path / "out", blocks)[0] == [p.id for row, p in enumerate(passages) if row not in poison]
    layouts = [read_layout(tmp_path / "out" / BLOCK_FOLDER / block.name) for block in blocks]
    assert [row.id for layout in layouts for row in layout.refused] == [passages[row].id for row in poison]


def test_processes_that_are_killed_between_blocks_or_at_work_cost_nothing(tmp_path: Path) -> None:
    blocks, killed = blocks_of(tmp_path, some_passages(200), 10), []

    def kill_one(block: Block) -> None:
        if len(killed) < STARTS - 1:
            killed.append(own_processes()[0])
            os.kill(killed[-1], signal.SIGKILL)

    embed_in_processes(blocks, tmp_path / "out", CONFIG, kill_one)
    assert len(killed) == STARTS - 1
    assert vectors_of(tmp_path / "out", blocks)[0] == [passage.id for passage in some_passages(200)]


def test_processes_that_cannot_begin_are_not_started_for_ever(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes, "MODULE", "ragray.no_such_module")
    with pytest.raises(RagrayError, match=rf"^{STARTS} processes .* \(exit code 1: .*No module named ragray.no_such"):
        embed_in_processes(blocks_of(tmp_path, some_passages(4), 2), tmp_path / "out", CONFIG, lambda block: None)


def test_an_error_on_purpose_keeps_its_kind(tmp_path: Path) -> None:
    config = EmbedConfig(model=str(tmp_path / "nothing"))
    with pytest.raises(ModelNotFoundError, match="nothing"):
        embed_in_processes(blocks_of(tmp_path, some_passages(4), 2), tmp_path / "out", config, lambda block: None)
    assert not own_processes()


def test_an_interruption_ends_the_processes_and_keeps_what_is_finished(tmp_path: Path) -> None:
    def interrupt(block: Block) -> None:
        raise KeyboardInterrupt

    blocks = blocks_of(tmp_path, some_passages(400), 2)
    with pytest.raises(KeyboardInterrupt):
        embed_in_processes(blocks, tmp_path / "out", CONFIG, interrupt)
    assert not own_processes()
    assert 1 <= sum(is_whole(tmp_path / "out", block) for block in blocks) < len(blocks)


def test_when_the_driver_is_killed_its_processes_end(tmp_path: Path) -> None:
    corpus = write_corpus(tmp_path / "corpus", some_passages(2000))
    command = [sys.executable, "-c", DRIVER, str(corpus), str(tmp_path / "out")]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as driver:
        assert driver.stdout
        driver.stdout.readline()
        children = descendants(driver.pid, MODULE.encode())
        driver.kill()
    assert children
    deadline = time.monotonic() + 60
    while children and time.monotonic() < deadline:
        time.sleep(0.05)
        for pid in list(children):
            with contextlib.suppress(OSError):
                if MODULE.encode() in Path(f"/proc/{pid}/cmdline").read_bytes():
                    continue
            children.remove(pid)
    assert not children
