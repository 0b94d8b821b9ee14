"""Validations by an actor beside the workers: equal to those between two steps; where there is no room, and where the actor dies."""

import json
import os
from dataclasses import replace
from pathlib import Path

import pytest
import ray
from safetensors.torch import load_file
from torch.testing import assert_close

from ragray.cluster.resources import Want
from ragray.cluster.train import train_rag
from ragray.cluster.train_worker import WorkerSetup, make_objective
from ragray.cluster.validation.actor import RemoteValidator, validating
from ragray.config import Config, load_config
from ragray.errors import TrainingError
from ragray.examples import read_examples
from ragray.index.search.reader import IndexReader
from ragray.run import Run
from ragray.stages.validation.dev import dev_set
from ragray.stages.validation.measure import LocalValidator
from ragray.train.loop import TrainLoop
from ragray.train.metrics import read_metrics
from ragray.train.objectives.objective import LocalSearcher
from ragray.train.validation.judge import Validation, judge
from ragray.train.validation.weights import save_weights

NUM_STEPS = 4


def write_examples(path: Path, numbers: range) -> Path:
    lines = [
        {"id": str(n), "question": f"is {n} odd?", "answers": ["yes" if n % 2 else "no"], "gold_ids": [f"p{n}"]}
        for n in numbers
    ]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    return path


@pytest.fixture
def settings(tiny_decoder: Path, tmp_path: Path) -> Config:
    dev = write_examples(tmp_path / "dev.jsonl", range(20, 26))
    overrides = [
        f"generate.model={tiny_decoder}", f"train.max_steps={NUM_STEPS}", "train.epochs=10", "retrieve.k=2",
        "train.generator_lr=0.01", "train.encoder_lr=0.001", "generate.max_new_tokens=4", "train.logging_steps=1",
        "train.cpus_per_worker=0.5", "train.threads_per_worker=1", f"train.dev_examples={dev}", "train.num_dev_examples=5",
        "train.validate_steps=2", "train.best_metric=loss",
    ]  # fmt: skip
    return load_config(None, overrides)


def setup_of(index: Path, config: Config, out: Path, examples: Path) -> WorkerSetup:
    """What a worker needs to train in this process."""
    reader = IndexReader.open(index)
    return WorkerSetup(
        str(out), config.generate.model, reader.snapshot.encoder_config, read_examples(examples, config.examples),
        LocalSearcher(reader), config,
    )  # fmt: skip


def test_an_actor_beside_the_workers_measures_what_this_process_measures(
    ray_session: None, settings: Config, tiny_encoder_index: Path, tmp_path: Path
) -> None:
    examples, out = write_examples(tmp_path / "train.jsonl", range(16)), tmp_path / "run"
    report = train_rag(tiny_encoder_index, examples, out, settings)
    lines = list(read_metrics(out))
    assert sorted(line["step"] for line in lines if "loss" in line) == list(range(1, NUM_STEPS + 1))
    found = [one for line in lines if (one := Validation.of_line(line))]
    expected = _validated_here(tiny_encoder_index, settings, examples, tmp_path)
    assert [one.step for one in found] == [2, 4]
    for one, same in zip(found, expected, strict=True):
        assert {**one.figures, "seconds": 0} == pytest.approx({**same.figures, "seconds": 0}, abs=1e-3)
    best = judge(found, "loss").best
    facts = Run.open(out).facts
    assert best and facts.best and (facts.best.step, facts.best.value) == (best.step, best.figures["loss"])
    assert f"weights of step {best.step}" in report.verdict
    saved = load_file(out / "model" / "generator" / "model.safetensors")
    weights = load_file(tmp_path / f"{best.step}.safetensors")
    for name, weight in saved.items():
        assert_close(weight, weights[f"generator.model.{name}"], rtol=0, atol=1e-5)


def _validated_here(index: Path, config: Config, examples: Path, folder: Path) -> list[Validation]:
    """Train in this process, without Ray; measure and keep the weights of every second step."""
    setup = setup_of(index, config, folder, examples)
    dev = dev_set(config, index, IndexReader.open(index).snapshot, setup.examples)
    assert dev
    import torch

    torch.manual_seed(config.train.seed)
    components, objective = make_objective(setup)
    loop = TrainLoop(components, objective, setup.examples, train=config.train)
    validator = LocalValidator(components, objective, dev, config)
    found: list[Validation] = []

    def on_step(step: int) -> None:
        if step % 2 == 0:
            save_weights(folder / f"{step}.safetensors", components)
            found.append(Validation(step, validator.measure(folder / f"{step}.safetensors")))

    loop.run(lambda metrics: on_step(metrics.step))
    return found


def test_where_there_is_no_room_beside_the_workers_none_is_started(
    ray_session: None,
    settings: Config,
    tiny_encoder_index: Path,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    examples = write_examples(tmp_path / "train.jsonl", range(4))
    setup = setup_of(tiny_encoder_index, settings, tmp_path, examples)
    dev = dev_set(settings, tiny_encoder_index, IndexReader.open(tiny_encoder_index).snapshot, setup.examples)
    all_cpus = Want("worker", 1, (), cpus=ray.cluster_resources()["CPU"])
    with caplog.at_level("INFO"), validating(replace(setup, searcher=None), dev, [all_cpus]) as validation:
        assert validation and validation.validator is None
    assert "no room for 1 validator x 0.5 CPU beside the workers: validations run between two steps" in caplog.text


class Dying:
    """Dies of what it is to measure."""

    def measure(self, weights: str) -> dict[str, float]:
        if "twice" in weights:
            os._exit(1)
        marker = Path(weights)
        if not marker.exists():
            marker.touch()
            os._exit(1)
        return {"f1": 1.0}


def test_a_validation_whose_process_dies_is_begun_once_more_and_then_given_up(
    ray_session: None, tmp_path: Path
) -> None:
    actor = ray.remote(num_cpus=0, max_restarts=-1, max_task_retries=1)(Dying).remote()
    validator = RemoteValidator(actor)
    assert validator.submit(tmp_path / "once").result() == {"f1": 1.0}
    with pytest.raises(TrainingError, match="the process of the validation died twice"):
        validator.submit(tmp_path / "twice").result()
    assert validator.submit(tmp_path / "once").result() == {"f1": 1.0}
    ray.kill(actor)
