"""Units that are done at the lowest priority, in processes of their own."""

import os
from pathlib import Path

from ragray.execute.niced import LOWEST, NicedExecutor
from ragray.execute.port import Resources
from ragray.execute.processes import ProcessExecutor
from tests.execute.tasks import Priority


def test_a_niced_unit_is_done_at_the_lowest_priority_and_ours_stays(tmp_path: Path) -> None:
    before = os.nice(0)
    executor = NicedExecutor(ProcessExecutor())
    with executor.map(Priority, ["a"], tmp_path, 100, stage="try", resources=Resources(1)) as finished:
        assert [unit.count for unit in finished] == [100 + LOWEST]
    assert os.nice(0) == before
