"""Workers on Ray Train: an error ends them at once, as it was raised; a death is tried again, but not for ever."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ray.util import placement_group_table
from safetensors.numpy import save_file

from ragray.cluster.fit import (
    SNAPSHOT_FILE,
    STATE_FOLDER,
    TEMPORARY,
    fit,
    prepare_state,
    saved_progress,
    temporary_checkpoint,
)
from ragray.config import Config, TrainConfig
from ragray.errors import InputError, RagrayError
from ragray.train.checkpoint import STATE_FILE, STEP_FILE
from ragray.train.schedule import Progress

CONFIG = Config(train=TrainConfig(max_failures=0, cpus_per_worker=0.5))


def refuse(_: dict[str, Any]) -> None:
    raise InputError("train.jsonl:8: field 'question' is blank")


def test_a_worker_that_refuses_ends_the_training_with_its_own_error(ray_session: None, tmp_path: Path) -> None:
    """Workers that die: `test_train_on_ray.py`."""
    with pytest.raises(RagrayError, match=r"^train.jsonl:8: field 'question' is blank$") as caught:
        fit(refuse, str(tmp_path), tmp_path, CONFIG)
    assert type(caught.value) is InputError
    assert all(group["state"] == "REMOVED" for group in placement_group_table().values())


def checkpoint(out: Path, name: str, step: int, *, cut: bool = False) -> None:
    """Write a checkpoint of one worker, whole or cut off as a full disk leaves it."""
    folder = out / STATE_FOLDER / name
    folder.mkdir(parents=True)
    save_file({"weight": np.zeros(64, np.float32)}, folder / STATE_FILE)
    (folder / STEP_FILE).write_text(json.dumps({"step": step, "examples_seen": 4 * step, "world_size": 1}))
    if cut:
        data = (folder / STATE_FILE).read_bytes()
        (folder / STATE_FILE).write_bytes(data[: len(data) // 2])


def record(out: Path, *names: str) -> None:
    content = {"checkpoint_results": [{"checkpoint_dir_name": name, "metrics": {}} for name in names]}
    (out / STATE_FOLDER / SNAPSHOT_FILE).write_text(json.dumps(content))


def names(out: Path) -> list[str]:
    return sorted(path.name for path in (out / STATE_FOLDER).iterdir())


def test_a_temporary_checkpoint_lies_beside_the_others_and_goes(tmp_path: Path) -> None:
    with temporary_checkpoint(tmp_path) as folder:
        assert folder.parent == tmp_path / STATE_FOLDER and folder.is_dir()
    assert names(tmp_path) == []


def test_what_is_half_written_is_removed_and_the_record_is_trusted(tmp_path: Path) -> None:
    checkpoint(tmp_path, "checkpoint_1", 3)
    checkpoint(tmp_path, "checkpoint_2", 6)
    checkpoint(tmp_path, "checkpoint_3", 9, cut=True)
    (tmp_path / STATE_FOLDER / f"{TEMPORARY}abc").mkdir()
    record(tmp_path, "checkpoint_1", "checkpoint_2")
    assert prepare_state(tmp_path) == ""
    assert names(tmp_path) == sorted([SNAPSHOT_FILE, "checkpoint_1", "checkpoint_2"])
    assert saved_progress(tmp_path).step == 6


@pytest.mark.parametrize("damage", ["", '{"checkpoint_results": [{"checkpoi', "gone"])
def test_a_full_disk_that_cuts_the_record_off_costs_no_checkpoint(tmp_path: Path, damage: str) -> None:
    checkpoint(tmp_path, "checkpoint_1", 3)
    checkpoint(tmp_path, "checkpoint_2", 6)
    checkpoint(tmp_path, "checkpoint_3", 9, cut=True)
    if damage == "gone":
        record(tmp_path, "checkpoint_1", "checkpoint_0")
    else:
        (tmp_path / STATE_FOLDER / SNAPSHOT_FILE).write_text(damage)
    assert prepare_state(tmp_path) == str(tmp_path / STATE_FOLDER / "checkpoint_2")
    assert names(tmp_path) == ["checkpoint_2"]
    assert saved_progress(tmp_path).step == 6


def test_a_new_run_begins_at_step_0(tmp_path: Path) -> None:
    assert (prepare_state(tmp_path), saved_progress(tmp_path)) == ("", Progress())
