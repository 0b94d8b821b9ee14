"""Trackers: what they are given, in names of their own groups; a run that goes on is the same run there; a failure is said once."""

import json
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from ragray.cluster.train import train_rag
from ragray.config import load_config
from ragray.errors import MissingPackageError, TrainingError
from ragray.train.metrics import MetricsLog, read_metrics
from ragray.train.trackers import TENSORBOARD_FOLDER, TRACKED_FILE, Guarded, open_trackers

WANDB = """
import json
from pathlib import Path

class Run:
    def __init__(self, settings):
        self.path = Path(settings["dir"]) / "seen.jsonl"
        self.note("init", settings)
    def note(self, kind, value):
        with self.path.open("a") as file:
            file.write(json.dumps([kind, value]) + "\\n")
    def define_metric(self, name, step_metric=None):
        self.note("metric", [name, step_metric])
    def log(self, values):
        self.note("log", values)
    def finish(self):
        self.note("finish", None)

def init(**settings):
    if settings["name"] == "refused":
        raise ConnectionError("no server\\nat all")
    return Run(settings)
"""
MLFLOW_TRACKING = """
import json
from pathlib import Path
from types import SimpleNamespace

class MlflowClient:
    def __init__(self, tracking_uri):
        self.path = Path(tracking_uri.removeprefix("sqlite:///")).with_name("seen.jsonl")
    def note(self, kind, value):
        with self.path.open("a") as file:
            file.write(json.dumps([kind, value]) + "\\n")
    def get_experiment_by_name(self, name):
        return None
    def create_experiment(self, name):
        self.note("experiment", name)
        return "7"
    def create_run(self, experiment, run_name):
        self.note("run", [experiment, run_name])
        return SimpleNamespace(info=SimpleNamespace(run_id="r1"))
    def update_run(self, run, status):
        self.note("status", [run, status])
    def log_batch(self, run, metrics):
        self.note("log", [run, [[one.key, one.value, one.step] for one in metrics]])
    def set_terminated(self, run):
        self.note("finish", run)
"""
MLFLOW_ENTITIES = """
class Metric:
    def __init__(self, key, value, timestamp, step):
        self.key, self.value, self.step = key, value, step
"""


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Packages that write down what they are told, under the names of the trackers."""
    sources = {"wandb/__init__": WANDB, "mlflow/__init__": "", "mlflow/tracking": MLFLOW_TRACKING,
               "mlflow/entities": MLFLOW_ENTITIES}  # fmt: skip
    for name, source in sources.items():
        path = tmp_path / "site" / f"{name}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(source)
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    for name in ("WANDB_PROJECT", "MLFLOW_TRACKING_URI", "MLFLOW_EXPERIMENT_NAME"):
        monkeypatch.delenv(name, raising=False)


def seen(run: Path) -> list[Any]:
    return [json.loads(line) for line in (run / "seen.jsonl").read_text().splitlines()]


def write(run: Path, start: int, *names: str) -> None:
    """Log a step and, later, the validation of the step before."""
    run.mkdir(exist_ok=True)
    with MetricsLog(run, start, names) as log:
        log.write(start + 2, loss=0.5)
        log.write(start + 1, dev_f1=40.0)
        log.write(start + 2, dev_failed="no room")


def test_tensorboard_holds_steps_and_validations(tmp_path: Path) -> None:
    write(tmp_path, 0)
    write(tmp_path, 1)
    events = EventAccumulator(str(tmp_path / TENSORBOARD_FOLDER)).Reload()
    assert sorted(events.Tags()["scalars"]) == ["dev/f1", "train/loss"]
    assert [(event.step, event.value) for event in events.Scalars("train/loss")] == [(3, 0.5)]
    assert [(event.step, event.value) for event in events.Scalars("dev/f1")] == [(1, 40.0), (2, 40.0)]
    assert [line["step"] for line in read_metrics(tmp_path)] == [1, 3, 2, 3]


def test_weights_and_biases_gets_them_with_the_step_as_a_number(installed: None, tmp_path: Path) -> None:
    run = tmp_path / "run"
    write(run, 0, "wandb")
    [kind, settings], *more = seen(run)
    known = json.loads((run / TRACKED_FILE).read_text())
    assert (kind, settings) == (
        "init", {"project": "ragray", "name": "run", "id": known["wandb"], "resume": "allow", "dir": str(run)},
    )  # fmt: skip
    assert more == [
        ["metric", ["step", None]],
        ["metric", ["*", "step"]],
        ["log", {"step": 2, "train/loss": 0.5}],
        ["log", {"step": 1, "dev/f1": 40.0}],
        ["finish", None],
    ]
    write(run, 5, "wandb")
    again = [value["id"] for kind, value in seen(run) if kind == "init"]
    assert again == [known["wandb"]] * 2


def test_mlflow_gets_them_and_a_run_that_goes_on_is_the_same(installed: None, tmp_path: Path) -> None:
    run = tmp_path / "run"
    write(run, 0, "mlflow")
    write(run, 5, "mlflow")
    once = [["status", ["r1", "RUNNING"]]]
    assert seen(run) == [
        ["experiment", "ragray"], ["run", ["7", "run"]], *once,
        ["log", ["r1", [["train/loss", 0.5, 2]]]], ["log", ["r1", [["dev/f1", 40.0, 1]]]], ["finish", "r1"], *once,
        ["log", ["r1", [["train/loss", 0.5, 7]]]], ["log", ["r1", [["dev/f1", 40.0, 6]]]], ["finish", "r1"],
    ]  # fmt: skip


def test_a_tracker_that_fails_is_given_up_with_one_line(caplog: pytest.LogCaptureFixture) -> None:
    class Away:
        def log(self, step: int, values: Mapping[str, float]) -> None:
            raise ConnectionError("no server\nat all")

        def close(self) -> None:
            raise AssertionError("was given up before")

    tracker = Guarded("mlflow", Away())
    with caplog.at_level(logging.WARNING):
        for step in (3, 4):
            tracker.log(step, {"loss": 1.0})
        tracker.close()
    assert caplog.messages == ["train: mlflow took nothing more from step 3 on (no server)"]


def test_a_tracker_that_cannot_be_reached_at_the_start_is_an_error_of_one_line(installed: None, tmp_path: Path) -> None:
    with pytest.raises(
        TrainingError, match=r"^train.trackers=wandb: no run can be begun there \(no server\); mend that"
    ):
        open_trackers(tmp_path / "refused", 0, ["wandb"])


def test_a_tracker_that_is_not_installed_is_refused_before_anything_else(
    hash_index: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(MissingPackageError, match=r"train.trackers=wandb needs a package; run: pip install wandb"):
        train_rag(hash_index, [], tmp_path / "run", load_config(None, ["train.trackers=[wandb]"]))
    assert not (tmp_path / "run").exists()


def test_without_tensorboard_nothing_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert open_trackers(tmp_path, 0, ()) == []
    assert caplog.messages == []


def test_names_may_be_separated_by_commas() -> None:
    assert load_config(None, ["train.trackers=mlflow, wandb"]).train.trackers == ("mlflow", "wandb")
