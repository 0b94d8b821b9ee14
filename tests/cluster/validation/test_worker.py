"""Validations of a run as its first worker keeps them, without Ray: what becomes of them when the run is killed."""

import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch

from ragray.cluster.fit import STATE_FOLDER
from ragray.cluster.train_worker import WorkerSetup
from ragray.cluster.validation.actor import ValidationSetup
from ragray.cluster.validation.worker import WorkerValidations
from ragray.config import Config, EncoderConfig, GenerateConfig, RetrieveConfig, TrainConfig
from ragray.run import BestValidation
from ragray.stages.validation.dev import DevSet
from ragray.stages.validation.measure import LocalValidator
from ragray.train.loop import StepMetrics, TrainLoop
from ragray.train.metrics import MetricsLog, read_metrics
from ragray.train.validation.judge import Metric, Validation, ValidationPlan
from ragray.train.validation.queue import FOLDER, ValidationFuture
from ragray.types import Example
from tests.train.retriever_rig import RetrieverRig
from tests.train.rig import SETTINGS, Rig, StoppedError

DEV = tuple(Example(f"dev/{n}", f"what is number {n}?", ("red",), (f"p{n}",)) for n in range(5))
CHECKPOINT_STEPS = 2


@pytest.fixture(scope="module")
def rig(tiny_decoder: Path, tiny_encoder: Path, tiny_encoder_index: Path) -> Rig:
    return Rig(tiny_decoder, tiny_encoder, tiny_encoder_index)


@pytest.fixture(scope="module")
def encoder(tiny_encoder: Path) -> RetrieverRig:
    """A loop that trains an encoder alone: what is measured is made up where this one is used."""
    return RetrieverRig(tiny_encoder)


@dataclass(frozen=True)
class Later:
    """A validation that ends once it was asked for so many times; of the weights of a step it takes the figure."""

    figures: Mapping[str, float] | Exception
    after: int
    asked: list[int] = field(default_factory=list)

    def done(self) -> bool:
        self.asked.append(1)
        return len(self.asked) > self.after

    def result(self) -> Mapping[str, float]:
        if isinstance(self.figures, Exception):
            raise self.figures
        return self.figures


@dataclass
class Scripted:
    """Gives the weights of a step a figure; a negative one is a failure."""

    scores: Mapping[int, float]
    after: int = 0
    seen: list[int] = field(default_factory=list)

    def submit(self, weights: Path) -> ValidationFuture:
        step = int(weights.stem)
        self.seen.append(step)
        score = self.scores[step]
        return Later({"f1": score} if score >= 0 else MemoryError("too little memory\nat all"), self.after)


@dataclass(frozen=True)
class Ended:
    """How a run ended."""

    best: BestValidation | None
    steps: int
    validations: list[Validation]
    weights: dict[str, torch.Tensor]


@dataclass
class Run:
    """A run in this process, which may be killed and go on."""

    rig: Rig | RetrieverRig
    out: Path
    validator: Callable[[TrainLoop[Any], DevSet, Config], Any]
    metric: Metric = "f1"
    patience: int = 0
    keep: int = 1
    steps: int = 9

    def go_on(self, *, kill_at: int = 0, kill_before_checkpoint: bool = False) -> Ended:
        """Compute to the end, or until the kill, which raises `StoppedError`."""
        changes = {"max_steps": self.steps, "patience": self.patience, "logging_steps": 1, "validate_steps": 1,
                   "dev_examples": "dev.jsonl", "keep_checkpoints": self.keep}  # fmt: skip
        loop: TrainLoop[Any] = self.rig.loop(**changes)
        config = Config(
            train=TrainConfig.model_validate({**SETTINGS, **changes}),
            retrieve=RetrieveConfig(k=2),
            generate=GenerateConfig(max_new_tokens=3, passage_temperature=0.5),
        )
        plan = ValidationPlan(1, self.metric, self.patience, self.keep)
        dev = DevSet(DEV, plan, "", "")
        if checkpoints := sorted(self.out.glob("checkpoint-*")):
            loop.restore(checkpoints[-1])
        setup = WorkerSetup(
            str(self.out), "", EncoderConfig(), (), None, config,
            validation=ValidationSetup(dev, self.validator(loop, dev, config)),
        )  # fmt: skip
        with MetricsLog(self.out, loop.progress.step) as log:
            validations = WorkerValidations(setup, loop, log)

            def on_step(metrics: StepMetrics) -> None:
                step = metrics.step
                log.write(step, loss=metrics.loss)
                validations.after(step, final=step == loop.num_steps)
                if kill_before_checkpoint and step == kill_at:
                    raise StoppedError
                if step % CHECKPOINT_STEPS == 0:
                    folder = self.out / f"checkpoint-{step:03}"
                    folder.mkdir()
                    loop.save(folder)
                    validations.saved(step)
                if step == kill_at:
                    raise StoppedError

            loop.run(on_step)
            best = validations.finish()
        found = [one for line in read_metrics(self.out) if (one := Validation.of_line(line))]
        weights = {name: parameter.detach().clone() for name, parameter in loop.components.trainable()}
        return Ended(best, loop.progress.step, found, weights)

    @property
    def kept(self) -> list[int]:
        return sorted(int(path.stem) for path in (self.out / STATE_FOLDER / FOLDER).glob("*"))


def scripted(scores: Mapping[int, float], after: int = 0) -> Callable[..., Any]:
    return lambda *_: Scripted(scores, after)


def measured(loop: TrainLoop[Any], dev: DevSet, config: Config) -> LocalValidator:
    return LocalValidator(loop.components, loop.objective, dev, config)


def test_the_run_ends_with_the_weights_of_the_best_validation(encoder: RetrieverRig, tmp_path: Path) -> None:
    """Those of the step itself: a run that ends there has the same."""
    ended = Run(encoder, tmp_path / "a", scripted({n: 50.0 - abs(n - 4) for n in range(1, 10)})).go_on()
    assert ended.best == BestValidation(step=4, metric="f1", value=50.0, num_scored=9)
    assert (ended.steps, [one.step for one in ended.validations]) == (9, list(range(1, 10)))
    loop = encoder.loop(max_steps=9, validate_steps=1, dev_examples="dev.jsonl")
    found: dict[int, dict[str, torch.Tensor]] = {}

    def keep(metrics: StepMetrics) -> None:
        found[metrics.step] = {name: p.detach().clone() for name, p in loop.components.trainable()}

    loop.run(keep)
    assert all(torch.equal(weight, ended.weights[name]) for name, weight in found[4].items())
    assert not all(torch.equal(weight, ended.weights[name]) for name, weight in found[9].items())


def test_so_many_weights_of_the_best_are_kept_and_those_after_the_last_checkpoint_but_one(
    encoder: RetrieverRig, tmp_path: Path
) -> None:
    run = Run(encoder, tmp_path, scripted({n: 50.0 - abs(n - 3) for n in range(1, 10)}), keep=2)
    run.go_on()
    assert run.kept == [2, 3, 7, 8, 9]


def test_a_failed_validation_is_no_score_and_training_goes_on(encoder: RetrieverRig, tmp_path: Path) -> None:
    scores = {n: -1.0 if n != 2 else 30.0 for n in range(1, 10)}
    ended = Run(encoder, tmp_path, scripted(scores), patience=1).go_on()
    assert ended.steps == 9
    assert ended.best == BestValidation(step=2, metric="f1", value=30.0, num_scored=1, num_failed=8)
    assert {one.failure for one in ended.validations} == {"", "MemoryError: too little memory"}


def test_where_no_validation_gives_a_score_the_weights_are_those_of_the_last_step(
    encoder: RetrieverRig, tmp_path: Path
) -> None:
    ended = Run(encoder, tmp_path / "a", scripted(dict.fromkeys(range(1, 10), -1.0))).go_on()
    last = Run(encoder, tmp_path / "b", scripted({n: float(n) for n in range(1, 10)})).go_on()
    assert ended.best is None
    assert all(torch.equal(weight, last.weights[name]) for name, weight in ended.weights.items())


@pytest.mark.parametrize("after", [0, 3, 50])
def test_the_best_does_not_depend_on_how_long_validations_take(
    encoder: RetrieverRig, tmp_path: Path, after: int
) -> None:
    """The steps that are computed do: training goes on until it hears that nothing is gained any more."""
    scores = {n: (10.0, 40.0, 30.0, 20.0, 90.0)[min(n, 5) - 1] for n in range(1, 10)}
    ended = Run(encoder, tmp_path, scripted(scores, after), patience=2).go_on()
    assert ended.best == BestValidation(step=2, metric="f1", value=40.0, num_scored=4)
    assert [one.step for one in ended.validations] == [1, 2, 3, 4]
    assert ended.steps == 4 if after == 0 else ended.steps > 4


@pytest.mark.parametrize("seed", range(6))
def test_a_run_that_is_killed_and_goes_on_has_the_same_best_and_stops_at_the_same_validation(
    encoder: RetrieverRig, tmp_path: Path, seed: int
) -> None:
    draw = random.Random(seed)
    scores = {n: float(draw.randrange(-1, 5)) for n in range(1, 10)}
    after = draw.choice([0, 2])
    expected = Run(encoder, tmp_path / "whole", scripted(scores, after), patience=2).go_on()
    killed = Run(encoder, tmp_path / "killed", scripted(scores, after), patience=2)
    for _ in range(3):
        try:
            killed.go_on(kill_at=draw.randrange(1, 9), kill_before_checkpoint=draw.random() < 0.5)
        except StoppedError:
            continue
        break
    ended = killed.go_on()
    assert (ended.best, ended.validations) == (expected.best, expected.validations)
    assert all(torch.equal(weight, ended.weights[name]) for name, weight in expected.weights.items())


def test_measuring_between_two_steps_changes_nothing_in_training(rig: Rig, tmp_path: Path) -> None:
    """The losses are those of a run that validates nothing; the figures of a killed run are those of a whole one."""
    plain = rig.loop(max_steps=4)
    losses: list[float] = []
    plain.run(lambda metrics: losses.append(round(metrics.loss, 6)))
    run = Run(rig, tmp_path / "killed", measured, metric="loss", steps=4)
    with pytest.raises(StoppedError):
        run.go_on(kill_at=3, kill_before_checkpoint=True)
    ended = run.go_on()
    assert [line["loss"] for line in read_metrics(run.out) if "loss" in line] == losses
    whole = Run(rig, tmp_path / "whole", measured, metric="loss", steps=4).go_on()
    assert ended.best == whole.best and ended.best
    assert ended.best.value == min(one.figures["loss"] for one in ended.validations)


def test_weights_that_are_not_finite_give_no_score(encoder: RetrieverRig, tmp_path: Path) -> None:
    loop = encoder.loop()
    next(parameter for _, parameter in loop.components.trainable()).data.fill_(torch.nan)
    with MetricsLog(tmp_path, 0) as log:
        plan = ValidationPlan(1, "f1")
        config = Config(train=TrainConfig(dev_examples="dev.jsonl", validate_steps=1))
        setup = WorkerSetup(
            str(tmp_path), "", EncoderConfig(), (), None, config,
            validation=ValidationSetup(DevSet(DEV, plan, "", ""), Scripted({})),
        )  # fmt: skip
        WorkerValidations(setup, loop, log).after(1, final=False)
    [line] = read_metrics(tmp_path)
    assert "holds NaN or infinity" in line["dev_failed"]
    assert list((tmp_path / STATE_FOLDER).rglob("*")) == []
