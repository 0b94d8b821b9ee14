"""Training on Ray: equal to training without it, also after a killed worker, and with another number of workers.

Every start of Ray Train takes 12 to 20 s on two CPUs: there are four here. What needs no cluster: `tests/train`.
"""

import json
import os
import re
import shutil
import signal
import threading
import time
from dataclasses import dataclass
from pathlib import Path

import pandas
import pytest
import torch
from ray.util import placement_group_table
from safetensors.torch import load_file
from torch.testing import assert_close

from ragray.cluster.fit import STATE_FOLDER, saved_progress
from ragray.cluster.train import KEY_FILE, train_rag
from ragray.cluster.train_worker import WorkerSetup, make_objective
from ragray.config import Config, load_config
from ragray.errors import TrainingError
from ragray.examples import read_examples
from ragray.generate.load import load_generator
from ragray.index.search.reader import IndexReader
from ragray.retrieve.load import load_retriever
from ragray.run import Run
from ragray.train.checkpoint import STEP_FILE, read_step
from ragray.train.loop import TrainLoop
from ragray.train.metrics import read_metrics
from ragray.train.objectives.objective import LocalSearcher
from tests.processes import actors_of_this_process

NUM_STEPS = 8


@pytest.fixture(scope="module")
def examples(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("examples") / "train.jsonl"
    lines = [
        {"id": str(n), "question": f"what is the colour of number {n}?", "answers": ["red" if n % 2 else "blue"]}
        for n in range(16)
    ]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def settings(tiny_decoder: Path) -> list[str]:
    return [
        f"generate.model={tiny_decoder}", f"train.max_steps={NUM_STEPS}", "train.epochs=10", "retrieve.k=2",
        "train.generator_lr=0.01", "train.encoder_lr=0.001", "generate.passage_temperature=0.5", "train.logging_steps=1",
        "train.checkpoint_steps=1", "train.cpus_per_worker=0.5", "train.threads_per_worker=1",
    ]  # fmt: skip


def config(settings: list[str], *more: str) -> Config:
    return load_config(None, [*settings, *more])


class Killer(threading.Thread):
    """Kills one training worker once the run has logged a step that was computed after a checkpoint."""

    def __init__(self, out: Path, step: int) -> None:
        super().__init__(daemon=True)
        self._out = out
        self._step = step
        self._killed: int | None = None
        self._others = actors_of_this_process("RayTrainWorker")
        self.start()

    def run(self) -> None:
        deadline = time.monotonic() + 240
        worker = self._find(deadline)  # before the first step: looking for it takes longer than a step
        while time.monotonic() < deadline:
            if any(line["step"] >= self._step for line in read_metrics(self._out)):
                os.kill(worker, signal.SIGKILL)
                self._killed = worker
                return
            time.sleep(0.01)

    def _find(self, deadline: float) -> int:
        """Wait for a worker that was not there before."""
        while time.monotonic() < deadline:
            if workers := set(actors_of_this_process("RayTrainWorker")) - set(self._others):
                return max(workers)
            time.sleep(0.1)
        raise TimeoutError("no training worker was started")

    def done(self) -> bool:
        """Return whether a worker was killed."""
        self.join(timeout=10)
        return self._killed is not None


@dataclass(frozen=True)
class Runs:
    """A run that was interrupted and went on to its end, and a copy of it as it was when interrupted."""

    finished: Path
    interrupted: Path
    error: TrainingError


@pytest.fixture(scope="module")
def runs(
    ray_session: None,
    tiny_encoder_index: Path,
    examples: Path,
    settings: list[str],
    tmp_path_factory: pytest.TempPathFactory,
) -> Runs:
    """The first attempt may not fail at all, and its only worker dies; the same command then goes on."""
    folder = tmp_path_factory.mktemp("runs")
    out, copy = folder / "one", folder / "copy"
    alone = config(settings, "train.batch_size=4", "train.max_failures=0")
    killer = Killer(out, step=3)
    with pytest.raises(TrainingError) as caught:
        train_rag(tiny_encoder_index, examples, out, alone)
    assert killer.done()
    assert all(group["state"] == "REMOVED" for group in placement_group_table().values())
    assert not (out / "manifest.json").exists()
    shutil.copytree(out, copy)
    train_rag(tiny_encoder_index, examples, out, alone)
    return Runs(out, copy, caught.value)


def test_a_death_too_many_ends_the_training_with_one_line_that_says_how_to_go_on(runs: Runs) -> None:
    step = saved_progress(runs.interrupted).step
    assert 0 < step < NUM_STEPS
    assert type(runs.error) is TrainingError and "\n" not in str(runs.error)
    wanted = rf"died more than train.max_failures=0 times.*run the same command: it goes on from step {step}"
    assert re.search(wanted, str(runs.error))


@pytest.fixture(scope="module")
def one_worker(runs: Runs) -> Path:
    """A finished run of one worker with batches of four."""
    return runs.finished


def compute_here(
    index: Path, examples: Path, settings: Config, out: Path, checkpoint: Path | None = None
) -> list[float]:
    """Train in this process, without Ray, and write the model; return the losses as a run logs them."""
    torch.manual_seed(settings.train.seed)
    reader, questions = IndexReader.open(index), read_examples(examples, settings.examples)
    encoder, searcher = reader.snapshot.encoder_config, LocalSearcher(reader)
    components, objective = make_objective(
        WorkerSetup(str(out), settings.generate.model, encoder, questions, searcher, settings)
    )
    loop = TrainLoop(components, objective, questions, train=settings.train)
    if checkpoint:
        loop.restore(checkpoint)
    found: list[float] = []
    loop.run(lambda step: found.append(round(step.loss, 6)))
    components.save(out / "model")
    return found


def assert_same_weights(first: Path, second: Path, tolerance: float) -> None:
    for part in ("generator", "question_encoder"):
        mine, theirs = (load_file(run / "model" / part / "model.safetensors") for run in (first, second))
        assert mine.keys() == theirs.keys()
        for name in mine:
            assert_close(mine[name], theirs[name], rtol=0, atol=tolerance)


def losses(run: Path) -> list[float]:
    return [line["loss"] for line in read_metrics(run)]


def test_a_finished_run_opens_and_answers(one_worker: Path, tiny_encoder_index: Path, settings: list[str]) -> None:
    run = Run.open(one_worker)
    assert run.facts.num_steps == NUM_STEPS
    found = config(settings)
    [result] = load_retriever(tiny_encoder_index, one_worker, found).search(["what is the colour of number 3?"], 2)
    assert len(result.hits) == 2
    assert isinstance(load_generator(found.generate, one_worker).generate([])[:], list)
    assert [line["step"] for line in read_metrics(one_worker)] == list(range(1, NUM_STEPS + 1))
    assert list((one_worker / "tensorboard").glob("events.*"))


def test_a_finished_run_is_not_computed_again_and_other_settings_are_refused(
    one_worker: Path, tiny_encoder_index: Path, examples: Path, settings: list[str]
) -> None:
    before = (one_worker / "metrics.jsonl").stat().st_mtime_ns
    assert train_rag(tiny_encoder_index, examples, one_worker, config(settings, "train.batch_size=4")).reused
    assert (one_worker / "metrics.jsonl").stat().st_mtime_ns == before
    with pytest.raises(TrainingError, match=r"other settings.*--restart"):
        train_rag(tiny_encoder_index, examples, one_worker, config(settings, "train.batch_size=2"))
    assert Run.open(one_worker)


def test_the_same_examples_from_a_table_are_the_same_run(
    one_worker: Path, tiny_encoder_index: Path, examples: Path, settings: list[str]
) -> None:
    frame = pandas.read_json(examples, lines=True)
    assert train_rag(tiny_encoder_index, frame, one_worker, config(settings, "train.batch_size=4")).reused
    with pytest.raises(TrainingError, match=r"other settings, examples or index"):
        train_rag(tiny_encoder_index, frame[:8], one_worker, config(settings, "train.batch_size=4"))


def test_an_interrupted_run_that_went_on_equals_an_uninterrupted_one(
    one_worker: Path, tiny_encoder_index: Path, examples: Path, settings: list[str], tmp_path: Path
) -> None:
    """Bit by bit, on Ray and without it."""
    expected = compute_here(tiny_encoder_index, examples, config(settings, "train.batch_size=4"), tmp_path)
    assert losses(one_worker) == expected
    assert_same_weights(one_worker, tmp_path, tolerance=0)


def test_two_workers_go_on_with_the_run_of_one_and_equal_one_with_the_doubled_batch_even_when_one_is_killed(
    runs: Runs, tiny_encoder_index: Path, examples: Path, settings: list[str], tmp_path: Path
) -> None:
    """Data-parallel gradients average to those of the whole batch; the replayed steps come out as they had been."""
    out, start = runs.interrupted, saved_progress(runs.interrupted)
    steps = [path.parent for path in (out / STATE_FOLDER).glob(f"checkpoint_*/{STEP_FILE}")]
    [checkpoint] = [path for path in steps if read_step(path).progress == start]
    shutil.copytree(checkpoint, tmp_path / "checkpoint", ignore=shutil.ignore_patterns("pending-*"))
    killer = Killer(out, step=len(losses(out)) + 1)  # lines after the checkpoint are there until the workers begin
    report = train_rag(tiny_encoder_index, examples, out, config(settings, "train.batch_size=4", "train.num_workers=2"))
    assert killer.done()
    doubled = config(settings, "train.batch_size=4", "train.gradient_accumulation=2")
    expected = compute_here(tiny_encoder_index, examples, doubled, tmp_path, tmp_path / "checkpoint")
    assert losses(out)[: start.step] == losses(runs.finished)[: start.step]
    assert losses(out)[start.step :] == pytest.approx(expected, rel=1e-3)
    assert_same_weights(out, tmp_path, tolerance=2e-3)
    assert report.num_steps == Run.open(out).facts.num_steps == len(losses(out)) == NUM_STEPS
    assert (out / KEY_FILE).is_file()
    assert not (out / STATE_FOLDER).exists()
