"""Units are done by processes of this machine, whatever happens to these; none outlives the work."""

import importlib
import os
import signal
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ragray.config import EmbedConfig
from ragray.corpus.table import Corpus
from ragray.embed.blocks import BLOCK_FOLDER, Block, is_whole, load_block, plan_blocks
from ragray.embed.encoder import HashEncoder
from ragray.embed.passage_text import passage_text
from ragray.errors import ConfigError, InputError, ModelNotFoundError, RagrayError
from ragray.execute.port import Finished, Resources, Task
from ragray.execute.processes import MODULE, STARTS, ProcessExecutor
from ragray.execute.worker import MAX_DEATHS
from ragray.stages.embed import EmbedBlocks
from ragray.types import Passage
from tests.execute.tasks import WriteFiles
from tests.helpers import some_passages, write_corpus
from tests.processes import descendants, left_after

CONFIG = EmbedConfig(model="hash:16")
DRIVER = """
import sys
from pathlib import Path
from ragray.execute.port import Resources
from ragray.execute.processes import ProcessExecutor
from tests.execute.tasks import WriteFiles
units, resources = [f"slow{number}" for number in range(2000)], Resources(2)
with ProcessExecutor().map(WriteFiles, units, Path(sys.argv[1]), stage="test", resources=resources) as finished:
    for unit in finished:
        print(unit.count, flush=True)
"""


def blocks_of(folder: Path, passages: list[Passage], rows: int) -> list[Block]:
    return plan_blocks(Corpus.open(write_corpus(folder / "corpus", passages)).shards, rows)


def vectors_of(out: Path, blocks: list[Block]) -> tuple[list[str], np.ndarray]:
    loaded = [load_block(out / BLOCK_FOLDER / block.name) for block in blocks]
    return [id_ for ids, _ in loaded for id_ in ids], np.concatenate([vectors for _, vectors in loaded])


def own_processes() -> list[int]:
    return descendants(os.getpid(), MODULE.encode())


def done(
    task: type[Task[Any]], units: list[Any], folder: Path, *args: Any, resources: Resources | None = None
) -> list[Finished]:
    """Do all units."""
    folder.mkdir(exist_ok=True)
    with ProcessExecutor().map(task, units, folder, *args, stage="test", resources=resources or Resources(2)) as them:
        return list(them)


def written(folder: Path) -> list[str]:
    return sorted(path.stem for path in folder.glob("*.txt"))


def test_every_unit_is_done_once_and_no_process_is_left(tmp_path: Path) -> None:
    units = [f"unit{number}" for number in range(20)]
    finished = done(WriteFiles, units, tmp_path)
    assert sum(unit.count for unit in finished) == sum(map(len, units))
    assert all(unit.seconds >= 0 and unit.num_workers == min(2, os.cpu_count() or 1) for unit in finished)
    assert written(tmp_path) == sorted(units)
    assert [path.suffix for path in tmp_path.iterdir()] == [".txt"] * 20
    assert not own_processes()


def test_every_block_is_embedded_once(tmp_path: Path) -> None:
    passages = some_passages(40)
    blocks = blocks_of(tmp_path, passages, 7)
    assert sum(unit.count for unit in done(EmbedBlocks, blocks, tmp_path / "out", CONFIG, 1)) == 40
    ids, vectors = vectors_of(tmp_path / "out", blocks)
    assert ids == [passage.id for passage in passages]
    expected = HashEncoder(16).encode([passage_text(passage) for passage in passages])
    np.testing.assert_array_equal(vectors, expected.astype(np.float16))


def test_processes_that_are_killed_between_units_or_at_work_cost_nothing(tmp_path: Path) -> None:
    blocks, killed = blocks_of(tmp_path, some_passages(200), 10), []
    executor, folder = ProcessExecutor(), tmp_path / "out"
    with executor.map(EmbedBlocks, blocks, folder, CONFIG, 1, stage="test", resources=Resources(2)) as finished:
        for _ in finished:
            if len(killed) < STARTS - 1:
                killed.append(own_processes()[0])
                os.kill(killed[-1], signal.SIGKILL)
    assert len(killed) == STARTS - 1
    assert vectors_of(folder, blocks)[0] == [passage.id for passage in some_passages(200)]


def test_a_process_that_dies_at_work_is_replaced_and_its_unit_done_again(tmp_path: Path) -> None:
    finished = done(WriteFiles, ["a", "deadly once", "odd b"], tmp_path)
    assert (len(finished), written(tmp_path)) == (3, ["a", "deadly once", "odd b"])
    assert [warning for unit in finished for warning in unit.warnings] == [("%s: looks odd", "odd b: looks odd", 1)]


def test_a_unit_that_kills_every_process_is_given_up_and_named(tmp_path: Path) -> None:
    with pytest.raises(RagrayError, match=rf"^{tmp_path}: {MAX_DEATHS} processes died .* over this: deadly"):
        done(WriteFiles, ["a", "deadly", "b"], tmp_path)
    assert not own_processes()


def test_processes_that_cannot_begin_are_not_started_for_ever(tmp_path: Path) -> None:
    with pytest.raises(
        RagrayError, match=rf"^{STARTS} processes .* begin a \(exit code 3: what it said before it died\)"
    ):
        done(WriteFiles, ["a"], tmp_path, "deadly")


def test_a_task_that_only_this_process_knows_is_an_error_that_names_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = tmp_path / "known_here_alone.py"
    module.write_text("from tests.execute.tasks import WriteFiles\nclass Hidden(WriteFiles): pass\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    hidden = importlib.import_module("known_here_alone").Hidden
    module.unlink()
    with pytest.raises(
        RagrayError, match=rf"^{STARTS} processes .* \(exit code 1: .*No module named 'known_here_alone'"
    ):
        done(hidden, ["a"], tmp_path / "out")


@pytest.mark.parametrize(("suffix", "unit"), [(".txt", "odd"), ("", "a")])
def test_an_error_on_purpose_keeps_its_kind(tmp_path: Path, suffix: str, unit: str) -> None:
    with pytest.raises(InputError, match=r"^(odd: cannot be written|no suffix)$"):
        done(WriteFiles, [unit, "b"], tmp_path, suffix)
    assert not own_processes()


def test_an_encoder_that_cannot_be_found_is_said_as_it_is(tmp_path: Path) -> None:
    config = EmbedConfig(model=str(tmp_path / "nothing"))
    with pytest.raises(ModelNotFoundError, match="nothing"):
        done(EmbedBlocks, blocks_of(tmp_path, some_passages(4), 4), tmp_path / "out", config, 1)
    assert not own_processes()


def test_an_interruption_ends_the_processes_and_keeps_what_is_finished(tmp_path: Path) -> None:
    blocks, folder = blocks_of(tmp_path, some_passages(400), 2), tmp_path / "out"

    def interrupt(finished: Iterable[Finished]) -> None:
        for _ in finished:
            raise KeyboardInterrupt

    resources = Resources(2)
    with (
        pytest.raises(KeyboardInterrupt),
        ProcessExecutor().map(EmbedBlocks, blocks, folder, CONFIG, 1, stage="test", resources=resources) as finished,
    ):
        interrupt(finished)
    assert not own_processes()
    assert 1 <= sum(is_whole(folder, block) for block in blocks) < len(blocks)


def test_when_the_driver_is_killed_its_processes_end(tmp_path: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", DRIVER, str(tmp_path)], stdout=subprocess.PIPE) as driver:
        assert driver.stdout
        driver.stdout.readline()
        children = descendants(driver.pid, MODULE.encode())
        driver.kill()
    assert children
    assert left_after(children, MODULE.encode(), 60) == []


def test_gpus_are_refused_by_the_settings_that_ask_for_them(tmp_path: Path) -> None:
    resources = Resources(1, gpus=1, settings=("embed.cpus_per_worker", "embed.gpus_per_worker"))
    with pytest.raises(ConfigError, match=r"^test: 1 GPUs .*set embed\.gpus_per_worker to 0, or use --executor ray"):
        done(WriteFiles, ["a"], tmp_path, resources=resources)


def test_no_more_processes_work_than_there_is_memory_for(tmp_path: Path) -> None:
    resources = Resources(2, memory_bytes=(1 << 60, 1))
    assert [unit.num_workers for unit in done(WriteFiles, ["a", "b"], tmp_path, resources=resources)] == [1, 1]
