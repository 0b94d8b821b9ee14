"""Runs `train` on Ray Train. In: an index, examples. Out: a run; the same command goes on where a killed one stopped."""

from __future__ import annotations

import logging
import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from time import monotonic
from typing import Any

from ragray.artifact.digest import fingerprint
from ragray.artifact.files import atomic_path
from ragray.artifact.output import StageOutput, stage_output
from ragray.cluster.fit import STATE_FOLDER, fit, prepare_state, saved_progress
from ragray.cluster.resources import Want, require
from ragray.cluster.retrieval.start import pool_want, retriever_pool
from ragray.cluster.session import session
from ragray.cluster.train_worker import Outcome, WorkerSetup, train_worker
from ragray.config import FROM_MINED, Config, RetrieveConfig, TrainConfig
from ragray.errors import TrainingError
from ragray.examples import ExampleSource, read_examples
from ragray.generate.check import check_questions, warn_of_cut_answers
from ragray.generate.load import load_template
from ragray.index.search.reader import IndexReader
from ragray.index.store.snapshot import Snapshot
from ragray.models import resolve_model, weights_fingerprint
from ragray.progress import Progress
from ragray.run import MODEL_FOLDER, RunFacts
from ragray.train.metrics import METRICS_FILE, MetricsTail
from ragray.train.schedule import Schedule

KEY_FILE = "run.key"
UNUSED = ("mode", "where", "rerank_model")
"""Keys of `RetrieveConfig` that training does not look at."""

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
    """Of a retriever: which weights were kept, and why."""


def train_rag(
    index: Path,
    examples: ExampleSource,
    out: Path,
    config: Config,
    *,
    address: str | None = None,
    restart: bool = False,
) -> TrainReport:
    """Fine-tune question encoder and generator with RAG on the current snapshot of an index.

    ``examples`` is a path or URI, a pandas DataFrame, a `datasets.Dataset`, or a list of mappings or `Example`s. With a
    ``train.objective`` that learns from mined questions this is `ragray.cluster.train_retriever.train_retriever`.

    Raises:
        TrainingError: ``out`` holds a run with other settings and ``restart`` is off, or the workers failed too often.
        InputError: an example is wrong, or there is none; the message names place and field.
        NotAnArtifactError: ``index`` is not an index.
    """
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
    generator = resolve_model(config.generate.model)
    if prompts := load_template(config.generate):
        check_questions(questions, prompts)
        warn_of_cut_answers(questions, prompts, config.generate.max_new_tokens)
    key = fingerprint(
        [
            snapshot.source,
            [example.content for example in questions],
            weights_fingerprint(generator),
            *_decisive(config),
        ]
    )
    with stage_output(out, kind="run", work=STATE_FOLDER) as output:
        if finished := output.finished(key):
            facts = RunFacts.model_validate(finished.facts)
            return TrainReport(out, facts.num_steps, facts.final_loss, monotonic() - started, True)
        claim(output, key, restart)
        with session(address):
            require(
                "train", [workers(config.train), pool_want(snapshot, config.retrieve)], wait_s=config.cluster.wait_s
            )
            with retriever_pool(index, config.retrieve, snapshot=snapshot.name) as pool:
                resumed = prepare_state(out)
                setup = WorkerSetup(
                    str(out.resolve()), str(generator), snapshot.encoder_config, questions, pool, config, resumed
                )
                with shown(out, len(questions), config.train):
                    outcome: Outcome = fit(train_worker, setup, out, config)
        _publish(output, key, snapshot, config, len(questions), outcome)
    return TrainReport(out, outcome.num_steps, outcome.final_loss, monotonic() - started, False)


def workers(config: TrainConfig) -> Want:
    """Return what the training workers reserve."""
    settings = ("train.num_workers", "train.cpus_per_worker", "train.gpus_per_worker")
    return Want("worker", config.num_workers, settings, config.cpus_per_worker, config.gpus_per_worker)


def _decisive(config: Config) -> list[dict[str, Any]]:
    """Return the settings that a run must keep to go on."""
    return [
        decisive(config.train),
        config.generate.model_dump(mode="json", exclude={"batch_size", "strategy", "engine"}),
        config.retrieve.model_dump(mode="json", include={"k"}),
    ]


def decisive(config: TrainConfig) -> dict[str, Any]:
    """Return what of the section `train` a run must keep to go on: not how often it logs or saves, nor on what resources it computes.

    Another number of workers changes the examples per step, yet the run can go on: see `ragray.train.schedule.Schedule`.
    """
    may_change = {
        "num_workers",
        "logging_steps",
        "checkpoint_steps",
        "keep_checkpoints",
        "max_failures",
        "cpus_per_worker",
        "gpus_per_worker",
        "threads_per_worker",
    }
    return config.model_dump(mode="json", exclude=may_change)


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
        for name in (STATE_FOLDER, MODEL_FOLDER, "tensorboard"):
            shutil.rmtree(out / name, ignore_errors=True)
        (out / METRICS_FILE).unlink(missing_ok=True)
    with atomic_path(path) as temporary:
        temporary.write_text(key, encoding="utf-8")


@contextmanager
def shown(out: Path, num_examples: int, config: TrainConfig) -> Iterator[None]:
    """Show the steps that the first worker writes to its metrics file."""
    planned = Schedule(num_examples, config.num_workers, config).num_steps(saved_progress(out))
    stop = threading.Event()
    with Progress("train", total=planned, unit="steps") as progress:
        thread = threading.Thread(target=_follow, args=(MetricsTail(out), progress, stop), daemon=True)
        thread.start()
        try:
            yield
        finally:
            stop.set()
            thread.join()


def _follow(tail: MetricsTail, progress: Progress, stop: threading.Event) -> None:
    while not stop.wait(1.0):
        for line in tail.read()[-1:]:
            if line["step"] > progress.done:
                progress.advance(int(line["step"]) - progress.done, f"loss {line['loss']:.3f}")


def _publish(
    output: StageOutput, key: str, snapshot: Snapshot, config: Config, num_examples: int, outcome: Outcome
) -> None:
    facts = RunFacts(
        generate=config.generate,
        k=config.retrieve.k,
        mode="dense",  # whatever ``config.retrieve`` says: training searches all passages, by vectors
        where="",
        rerank_model="",
        encoder=snapshot.encoder,
        snapshot=snapshot.name,
        num_steps=outcome.num_steps,
        num_examples=num_examples,
        final_loss=outcome.final_loss,
        objective=config.train.objective,
    )
    publish_run(output, key, facts)


def publish_run(output: StageOutput, key: str, facts: RunFacts) -> None:
    """Write the manifest of a run whose models are saved."""
    files = [path for path in sorted((output.folder / MODEL_FOLDER).rglob("*")) if path.is_file()]
    output.publish(key, facts.model_dump(mode="json"), [*files, output.folder / METRICS_FILE])
