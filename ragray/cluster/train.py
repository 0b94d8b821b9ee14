"""Runs `train` on Ray Train. In: an index, examples. Out: a run; the same command goes on where a killed one stopped."""

from __future__ import annotations

import logging
import shutil
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from time import monotonic
from typing import Any

from ragray.artifact.digest import fingerprint
from ragray.artifact.files import atomic_path
from ragray.artifact.output import StageOutput, stage_output
from ragray.cluster.fit import STATE_FOLDER, fit, prepare_state, saved_progress
from ragray.cluster.refresh import own_index, pool_index, refresh_want, refreshes, refreshing, require_trainable
from ragray.cluster.resources import Want, require
from ragray.cluster.retrieval.start import pool_want, retriever_pool
from ragray.cluster.session import session
from ragray.cluster.train_worker import Outcome, WorkerSetup, train_worker
from ragray.cluster.validation.actor import validating
from ragray.config import FROM_MINED, Config, GenerateConfig, RetrieveConfig, TrainConfig
from ragray.config.usage import TOGETHER
from ragray.errors import ConfigError, TrainingError
from ragray.examples import ExampleSource, read_examples
from ragray.generate.check import check_questions, warn_of_cut_answers
from ragray.generate.load import load_template, of_model
from ragray.index.search.reader import IndexReader
from ragray.index.store.snapshot import Snapshot, read_snapshot
from ragray.models import resolve_part, weights_fingerprint
from ragray.progress import Progress
from ragray.run import INDEX_FOLDER, MODEL_FOLDER, RunFacts
from ragray.stages.validation.dev import dev_set
from ragray.train.gold import answering_passages
from ragray.train.metrics import METRICS_FILE, MetricsTail, read_metrics
from ragray.train.schedule import Schedule
from ragray.train.trackers import TENSORBOARD_FOLDER, TRACKED_FILE, require_trackers
from ragray.train.validation.judge import FAILED, in_words
from ragray.types import Example

KEY_FILE = "run.key"
UNUSED = ("mode", "where", "rerank_model")
"""Keys of `RetrieveConfig` that training does not look at."""

LATER_TRAIN = (
    *("warmup_steps", "lr_schedule", "label_smoothing", "encoder_tune", "encoder_last_layers"),
    *("gradient_checkpointing", "precision", "objective", "score_scale", "reader_temperature", "cache_batch_size"),
    *("passage_encoder", "dev_share", "distractors", "refresh_steps", "refresh_candidates"),
)
LATER_GENERATE = ("strategy", "prompt", "spans", "prior")
"""Keys that decide how a run is trained and that earlier versions lacked: at their defaults they leave its key as it was."""

logger = logging.getLogger("ragray")


@dataclass(frozen=True, slots=True)
class TrainReport:
    """What a run of `train` did."""

    folder: Path
    num_steps: int
    final_loss: float
    seconds: float
    reused: bool
    verdict: str = ""
    """Which weights were kept, and why, where that was not certain from the start."""


def train_rag(
    index: Path,
    examples: ExampleSource,
    out: Path,
    config: Config,
    *,
    address: str | None = None,
    restart: bool = False,
) -> TrainReport:
    """Fine-tune a generator on the current snapshot of an index, as ``generate.strategy`` will have it answer.

    With `marginal` the question encoder is trained too, with RAG's loss; with `together` it stays as it is, and so it does with
    ``train.objective=reader``. With ``train.passage_encoder`` the passage encoder is trained as well, and the index that belongs
    to it lies in ``out``/index.
    ``examples`` is a path or URI, a pandas DataFrame, a `datasets.Dataset`, or a list of mappings or `Example`s. With a
    ``train.objective`` that learns from mined questions this is `ragray.cluster.train_retriever.train_retriever`.

    Raises:
        TrainingError: ``out`` holds a run with other settings and ``restart`` is off, or the workers failed too often.
        ConfigError: objective and strategy do not fit each other.
        InputError: an example is wrong, or there is none; the message names place and field.
        NotAnArtifactError: ``index`` is not an index.
        ConfigError: ``train.passage_encoder`` is set where no encoder is trained.
        MissingPackageError: one of ``train.trackers`` is not installed.
    """
    require_trackers(config.train.trackers)
    if config.train.objective in FROM_MINED:
        from ragray.cluster.train_retriever import train_retriever

        return train_retriever(index, examples, out, config, address=address, restart=restart)
    started = monotonic()
    snapshot = IndexReader.open(index).snapshot
    questions = read_examples(examples, config.examples)
    unused = [name for name in UNUSED if getattr(config.retrieve, name) != RetrieveConfig.model_fields[name].default]
    if unused:
        names = ", ".join(f"retrieve.{name}" for name in unused)
        logger.warning("train: %s without effect: training searches all passages, by vectors", names)
    config = config.model_copy(update={"generate": of_model(config.generate)})
    together = _together(config)
    _require_alone(config)
    require_trainable(config, snapshot)
    generator = resolve_part(config.generate.model, "generator")
    if config.generate.strategy == "fid":
        logger.info("train: generate.strategy=fid trains the generator; the question encoder stays as it is")
    if prompts := load_template(config.generate):
        check_questions(questions, prompts)
        warn_of_cut_answers(
            _cited(questions) if together and config.train.cite else questions, prompts, config.generate.max_new_tokens
        )
    dev = dev_set(config, index, snapshot, questions)
    key = fingerprint(
        [
            snapshot.source,
            [example.content for example in questions],
            weights_fingerprint(generator),
            *_decisive(config),
            *(dev.key if dev else []),
        ]
    )
    with stage_output(out, kind="run", work=STATE_FOLDER) as output:
        if finished := output.finished(key):
            facts = RunFacts.model_validate(finished.facts)
            return _report(out, facts, started, reused=True)
        claim(output, key, restart)
        with_gold = together or config.train.objective == "reader"
        gold = answering_passages(questions, index, snapshot) if with_gold else {}
        if with_gold:
            how = "generate.strategy=together" if together else "train.objective=reader"
            logger.info("train: %s trains the generator; the question encoder stays as it is", how)
        with session(address):
            later = [workers(config.train), *([refresh_want(config.train)] if refreshes(config.train) else [])]
            require("train", [*later, pool_want(snapshot, config.retrieve)], wait_s=config.cluster.wait_s)
            searched = pool_index(index, snapshot, out, config.train)
            with (
                retriever_pool(searched, config.retrieve, snapshot=snapshot.name) as pool,
                refreshing(index, snapshot, out, pool, config),
            ):
                resumed = prepare_state(out)
                setup = WorkerSetup(
                    str(out.resolve()), str(generator), snapshot.encoder_config, questions, pool, config, resumed,
                    {**gold, **(dev.gold if dev else {})},
                )  # fmt: skip
                with validating(setup, dev, later) as validation, shown(out, len(questions), config.train):
                    outcome: Outcome = fit(train_worker, replace(setup, validation=validation), out, config)
            if config.train.passage_encoder:
                own_index(index, snapshot, out, config)
        facts = _publish(output, key, snapshot, config, len(questions), outcome)
    return _report(out, facts, started, reused=False)


def workers(config: TrainConfig) -> Want:
    """Return what the training workers reserve."""
    settings = ("train.num_workers", "train.cpus_per_worker", "train.gpus_per_worker")
    return Want("worker", config.num_workers, settings, config.cpus_per_worker, config.gpus_per_worker)


def _decisive(config: Config) -> list[dict[str, Any]]:
    """Return the settings that a run must keep to go on."""
    unused = {"encoder_lr"} if _together(config) else set(TOGETHER)  # the keys of earlier runs know nothing of it
    return [
        {key: value for key, value in decisive(config.train).items() if key not in unused},
        config.generate.model_dump(
            mode="json",
            exclude={"batch_size", "engine", "num_beams", "decoding"} | _at_default(config.generate, LATER_GENERATE),
        ),
        config.retrieve.model_dump(mode="json", include={"k"}),
    ]


def decisive(config: TrainConfig) -> dict[str, Any]:
    """Return what of the section `train` a run must keep to go on: not how often it logs or saves, nor on what resources it computes.

    Another number of workers changes the examples per step, yet the run can go on: see `ragray.train.schedule.Schedule`. What is
    validated has a key of its own, `DevSet.key`.
    """
    may_change = {
        "num_workers",
        "logging_steps",
        "trackers",
        "checkpoint_steps",
        "keep_checkpoints",
        "dev_examples",
        "num_dev_examples",
        "validate_steps",
        "best_metric",
        "patience",
        "max_failures",
        "cpus_per_worker",
        "gpus_per_worker",
        "threads_per_worker",
        "refresh_cpus",
        "refresh_gpus",
        "refresh_wait",
    }
    return config.model_dump(mode="json", exclude=may_change | _at_default(config, LATER_TRAIN))


def _at_default(section: TrainConfig | GenerateConfig, keys: Sequence[str]) -> set[str]:
    """Return the keys that have their default value."""
    return {key for key in keys if getattr(section, key) == type(section).model_fields[key].default}


def _together(config: Config) -> bool:
    """Return whether a generator is trained on prompts with all passages."""
    return config.generate.strategy == "together" and config.train.objective == "rag"


def _require_alone(config: Config) -> None:
    """Raise `ConfigError` where a reader of single passages is to be trained on other prompts."""
    if config.train.objective == "reader" and config.generate.strategy != "marginal":
        raise ConfigError(
            f"train.objective=reader reads each passage alone, and generate.strategy={config.generate.strategy} does not; "
            "set generate.strategy=marginal, or train.objective=rag"
        )


def _cited(examples: Sequence[Example]) -> list[Example]:
    """Return examples with their answers as training lets the generator write them."""
    return [replace(example, answers=(f"{example.answers[0]} [1]",)) for example in examples]


def claim(output: StageOutput, key: str, restart: bool) -> None:
    """Write the key of this run to its folder, which is empty or holds an unfinished run with the same key."""
    out = output.folder
    path = out / KEY_FILE
    if path.is_file() and path.read_text(encoding="utf-8") != key and not restart:
        raise TrainingError(
            f"{out}: holds a run with other settings, examples or index; repeat its settings to go on with it, "
            "choose another --out, or pass --restart to throw it away"
        )
    if restart:
        output.withdraw()
        for name in (STATE_FOLDER, MODEL_FOLDER, INDEX_FOLDER, TENSORBOARD_FOLDER):
            shutil.rmtree(out / name, ignore_errors=True)
        for name in (METRICS_FILE, TRACKED_FILE):
            (out / name).unlink(missing_ok=True)
    with atomic_path(path) as temporary:
        temporary.write_text(key, encoding="utf-8")


@contextmanager
def shown(out: Path, num_examples: int, config: TrainConfig) -> Iterator[None]:
    """Show the steps that the first worker writes to its metrics file."""
    planned = Schedule(num_examples, config.num_workers, config).num_steps(saved_progress(out))
    stop = threading.Event()
    with Progress("train", total=planned, unit="steps") as progress:
        thread = threading.Thread(target=_follow, args=(out, progress, stop), daemon=True)
        thread.start()
        try:
            yield
        finally:
            stop.set()
            thread.join()


def _follow(out: Path, progress: Progress, stop: threading.Event) -> None:
    tail, told = MetricsTail(out), set(map(in_words, read_metrics(out)))  # a resumed run writes its earlier lines again
    ended = False
    while not ended:
        ended = stop.wait(1.0)
        lines = tail.read()
        for line in lines:
            if (words := in_words(line)) and words not in told:
                told.add(words)
                logger.log(logging.WARNING if FAILED in line else logging.INFO, "train: %s", words)
        for line in [line for line in lines if "loss" in line][-1:]:
            if line["step"] > progress.done:
                age = f", index of {line['index_age_steps']:.0f} steps ago" if "index_age_steps" in line else ""
                progress.advance(int(line["step"]) - progress.done, f"loss {line['loss']:.3f}{age}")


def _publish(
    output: StageOutput, key: str, snapshot: Snapshot, config: Config, num_examples: int, outcome: Outcome
) -> RunFacts:
    own = config.train.passage_encoder
    searched = read_snapshot(output.folder / INDEX_FOLDER) if own else snapshot
    facts = RunFacts(
        generate=config.generate,
        k=config.retrieve.k,
        mode="dense",  # whatever ``config.retrieve`` says: training searches all passages, by vectors
        where="",
        rerank_model="",
        encoder=searched.encoder,
        snapshot=searched.name,
        num_steps=outcome.num_steps,
        num_examples=num_examples,
        final_loss=outcome.final_loss,
        best=outcome.best,
        objective=config.train.objective,
        own_index=own,
    )
    publish_run(output, key, facts)
    return facts


def _report(out: Path, facts: RunFacts, started: float, *, reused: bool) -> TrainReport:
    verdict = facts.best.in_words if facts.best else ""
    return TrainReport(out, facts.num_steps, facts.final_loss or 0.0, monotonic() - started, reused, verdict)


def publish_run(output: StageOutput, key: str, facts: RunFacts) -> None:
    """Write the manifest of a run whose models are saved."""
    files = [path for path in sorted((output.folder / MODEL_FOLDER).rglob("*")) if path.is_file()]
    output.publish(key, facts.model_dump(mode="json"), [*files, output.folder / METRICS_FILE])
