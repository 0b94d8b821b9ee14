"""Training on Ray: two workers equal one with the doubled batch, a killed worker costs steps and nothing else."""

import json
import os
import signal
import threading
import time
from pathlib import Path

import pandas
import pytest
from safetensors.torch import load_file
from torch.testing import assert_close

from ragray.cluster.train import KEY_FILE, train_rag
from ragray.config import Config, load_config
from ragray.errors import TrainingError
from ragray.generate.load import load_generator
from ragray.retrieve.load import load_retriever
from ragray.run import Run
from ragray.train.metrics import read_metrics
from tests.processes import actors_of_this_process

NUM_STEPS = 6


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


@pytest.fixture(scope="module")
def one_worker(
    ray_session: None,
    tiny_encoder_index: Path,
    examples: Path,
    settings: list[str],
    tmp_path_factory: pytest.TempPathFactory,
) -> Path:
    """A run of one worker with batches of four: what the others are compared with."""
    out = tmp_path_factory.mktemp("runs") / "one"
    train_rag(tiny_encoder_index, examples, out, config(settings, "train.batch_size=4"))
    return out


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
    [hits] = load_retriever(tiny_encoder_index, one_worker, found).search(["what is the colour of number 3?"], 2)
    assert len(hits) == 2
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


def test_two_workers_equal_one_with_the_doubled_batch_even_when_one_is_killed(
    one_worker: Path, tiny_encoder_index: Path, examples: Path, settings: list[str], tmp_path: Path
) -> None:
    """Data-parallel gradients average to those of the whole batch; the replayed steps come out as they had been."""
    out = tmp_path / "two"
    killer = Killer(out)
    train_rag(tiny_encoder_index, examples, out, config(settings, "train.batch_size=2", "train.num_workers=2"))
    assert killer.done()
    assert losses(out) == pytest.approx(losses(one_worker), rel=1e-3)
    assert_same_weights(out, one_worker, tolerance=2e-3)
    assert (out / KEY_FILE).is_file()
    assert not (out / ".train").exists()


class Killer(threading.Thread):
    """Kills one training worker once the run has logged its third step, which is after its first checkpoint."""

    def __init__(self, out: Path) -> None:
        super().__init__(daemon=True)
        self._out = out
        self._killed: int | None = None
        self.start()

    def run(self) -> None:
        deadline = time.monotonic() + 240
        workers: list[int] = []
        while time.monotonic() < deadline:
            steps = [line["step"] for line in read_metrics(self._out)]
            if steps and not workers:  # found before they are needed: looking for them takes longer than a step
                workers = actors_of_this_process("RayTrainWorker")
            if workers and steps[-1] >= 3:
                os.kill(workers[-1], signal.SIGKILL)
                self._killed = workers[-1]
                return
            time.sleep(0.01)

    def done(self) -> bool:
        """Say whether a worker was killed."""
        self.join(timeout=10)
        return self._killed is not None


def test_an_interrupted_run_goes_on_and_equals_an_uninterrupted_one(
    one_worker: Path, tiny_encoder_index: Path, examples: Path, settings: list[str], tmp_path: Path
) -> None:
    """The first attempt may not fail at all, and its only worker dies; the same command then goes on and ends alike."""
    out = tmp_path / "again"
    alone = config(settings, "train.batch_size=4", "train.max_failures=0")
    killer = Killer(out)
    with pytest.raises(TrainingError, match="run the same command"):
        train_rag(tiny_encoder_index, examples, out, alone)
    assert killer.done()
    assert not (out / "manifest.json").exists()
    train_rag(tiny_encoder_index, examples, out, alone)
    assert_same_weights(out, one_worker, tolerance=0)
    assert losses(out) == losses(one_worker)
