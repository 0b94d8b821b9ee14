"""Runs `train` on Ray Train. In: an index, examples. Out: a run; the same command goes on where a killed one stopped."""

from __future__ import annotations

import logging
import os
import shutil
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from time import monotonic
from typing import Any

from ragray.artifact.digest import fingerprint
from ragray.artifact.files import atomic_path
from ragray.artifact.lock import exclusive
from ragray.artifact.manifest import is_current, publish, read_manifest, unpublish
from ragray.cluster.failures import PeerLostError, cause, is_death, is_peer_loss
from ragray.cluster.fit import STATE_FOLDER, fit, prepare_state, temporary_checkpoint
from ragray.cluster.resources import Want, require
from ragray.cluster.retrieval.start import RetrieverPool, pool_want, retriever_pool
from ragray.cluster.session import session
from ragray.config import Config, EncoderConfig, RetrieveConfig, TrainConfig
from ragray.embed.load import load_encoder
from ragray.errors import RagrayError, TrainingError, first_line
from ragray.examples import ExampleSource, read_examples
from ragray.failures import storage_errno, told
from ragray.generate.check import check_questions, warn_of_cut_answers
from ragray.generate.load import load_template
from ragray.index.search.reader import IndexReader
from ragray.index.store.snapshot import Snapshot
from ragray.models import resolve_model, weights_fingerprint
from ragray.progress import Progress
from ragray.run import MODEL_FOLDER, RunFacts
from ragray.train.batch import Schedule
from ragray.train.metrics import METRICS_FILE, MetricsLog, read_metrics
from ragray.types import Example

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


@dataclass(frozen=True, slots=True)
class WorkerSetup:
    """Everything a training worker needs to begin; ``checkpoint``: what to go on from where Ray Train knows of none, or nothing."""

    out: str
    generator: str
    encoder: EncoderConfig
    examples: Sequence[Example]
    pool: RetrieverPool
    config: Config
    checkpoint: str = ""


def train_rag(
    index: Path,
    examples: ExampleSource,
    out: Path,
    config: Config,
    *,
    address: str | None = None,
    restart: bool = False,
) -> TrainReport:
    """Fine-tune question encoder and generator with RAG-Sequence on the current snapshot of an index.

    ``examples`` is a path or URI, a pandas DataFrame, a `datasets.Dataset`, or a list of mappings or `Example`s.

    Raises:
        TrainingError: ``out`` holds a run with other settings and ``restart`` is off, or the workers failed too often.
        InputError: an example is wrong, or there is none; the message names place and field.
        NotAnArtifactError: ``index`` is not an index.
    """
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
    schedule = Schedule(len(questions), config.train.num_workers, config.train)
    key = fingerprint(
        [
            snapshot.source,
            [example.content for example in questions],
            weights_fingerprint(generator),
            *_decisive(config),
        ]
    )
    with exclusive(out, kind="run"):
        if is_current(out, kind="run", fingerprint=key):
            loss = float(str(read_manifest(out, "run").facts["final_loss"]))
            return TrainReport(out, schedule.num_steps, loss, monotonic() - started, True)
        _claim(out, key, restart)
        with session(address):
            require(
                "train", [_workers(config.train), pool_want(snapshot, config.retrieve)], wait_s=config.cluster.wait_s
            )
            with retriever_pool(index, config.retrieve, snapshot=snapshot.name) as pool:
                resumed = prepare_state(out)
                setup = WorkerSetup(
                    str(out.resolve()), str(generator), snapshot.encoder_config, questions, pool, config, resumed
                )
                with Progress("train", total=schedule.num_steps, unit="steps") as progress, _following(out, progress):
                    loss = float(fit(train_worker, setup, out, config))
        _publish(out, key, snapshot, config, schedule, loss)
    return TrainReport(out, schedule.num_steps, loss, monotonic() - started, False)


def _workers(config: TrainConfig) -> Want:
    settings = ("train.num_workers", "train.cpus_per_worker", "train.gpus_per_worker")
    return Want("worker", config.num_workers, settings, config.cpus_per_worker, config.gpus_per_worker)


def _decisive(config: Config) -> list[dict[str, Any]]:
    """Return the settings that decide the outcome; how often is logged or checkpointed, and on what resources, does not."""
    indifferent = {
        "logging_steps",
        "checkpoint_steps",
        "keep_checkpoints",
        "max_failures",
        "cpus_per_worker",
        "gpus_per_worker",
        "threads_per_worker",
    }
    return [
        config.train.model_dump(mode="json", exclude=indifferent),
        config.generate.model_dump(mode="json", exclude={"batch_size"}),
        config.retrieve.model_dump(mode="json", include={"k"}),
    ]


def _claim(out: Path, key: str, restart: bool) -> None:
    """Make ``out`` ours: empty, or holding an unfinished run with the same key, which will go on."""
    path = out / KEY_FILE
    if path.is_file() and path.read_text(encoding="utf-8") != key and not restart:
        raise TrainingError(
            f"{out}: holds a run with other settings, examples or index; repeat its settings to go on with it, "
            "choose another --out, or pass --restart to throw it away"
        )
    if restart:
        unpublish(out)
        for name in (STATE_FOLDER, MODEL_FOLDER, "tensorboard"):
            shutil.rmtree(out / name, ignore_errors=True)
        (out / METRICS_FILE).unlink(missing_ok=True)
    with atomic_path(path) as temporary:
        temporary.write_text(key, encoding="utf-8")


@dataclass(slots=True)
class Reached:
    """How far a worker is: steps computed, and the step of the checkpoint that a next run goes on from."""

    step: int = 0
    saved: int = 0


def train_worker(loop_config: dict[str, WorkerSetup]) -> float:
    """Run one data-parallel worker; Ray Train starts it. What goes wrong in it is told in one line, with the step.

    Raises:
        PeerLostError: the connection to another worker broke, which died or failed itself.
        RagrayError: anything else; trying again would not change it.
    """
    setup, reached = loop_config["setup"], Reached()
    try:
        return _train(setup, reached)
    except Exception as err:
        if isinstance(err, RagrayError) or is_death(err):
            raise
        logger.error("%s: a training worker failed", setup.out, exc_info=err)  # the worker's log keeps the traceback
        if setup.config.train.num_workers > 1 and is_peer_loss(err):
            raise PeerLostError(first_line(err)) from None
        then = f"run the same command: it goes on from step {reached.saved}"
        where = setup.out if storage_errno(cause(err)) else f"{setup.out}: step {reached.step + 1}"
        raise told(cause(err), where, then=then, kind=TrainingError) from None


def _train(setup: WorkerSetup, reached: Reached) -> float:
    import ray.train
    import ray.train.torch
    import torch

    from ragray.embed.transformer import TransformerEncoder
    from ragray.generate.engines.model import GeneratorModel
    from ragray.train.loop import StepMetrics, TrainLoop, Worker
    from ragray.train.model import RagModel

    config, out = setup.config, Path(setup.out)
    context = ray.train.get_context()
    worker = Worker(context.get_world_rank(), context.get_world_size())
    torch.set_num_threads(config.train.threads_per_worker or max(1, (os.cpu_count() or 1) // worker.world_size))
    torch.manual_seed(config.train.seed)
    encoder = load_encoder(setup.encoder)
    generator = GeneratorModel.load(Path(setup.generator), dtype=torch.float32)
    model = RagModel(
        encoder if isinstance(encoder, TransformerEncoder) else None,
        generator,
        config.train,
        passage_temperature=config.generate.passage_temperature,
    )
    parallel = ray.train.torch.prepare_model(model, move_to_device=False)
    loop = TrainLoop(
        model,
        encoder,
        setup.pool,
        setup.examples,
        train=config.train,
        generate=config.generate,
        k=config.retrieve.k,
        worker=worker,
        parallel=parallel,
    )
    if checkpoint := ray.train.get_checkpoint():
        with checkpoint.as_directory() as folder:
            loop.restore(Path(folder))
    elif setup.checkpoint:
        loop.restore(Path(setup.checkpoint))
    reached.step = reached.saved = loop.step

    last_loss = float("nan")

    def on_step(metrics: StepMetrics) -> None:
        nonlocal last_loss
        reached.step = metrics.step
        final = metrics.step == loop.schedule.num_steps
        if final or metrics.step % config.train.logging_steps == 0:
            last_loss = _mean_over_workers(metrics.loss, worker.world_size)
            if log:
                log.write(
                    metrics.step,
                    epoch=metrics.epoch,
                    loss=last_loss,
                    learning_rate=metrics.learning_rate,
                    grad_norm=metrics.grad_norm,
                    step_seconds=metrics.seconds,
                    wait_seconds=metrics.wait_seconds,
                )
        if metrics.step % config.train.checkpoint_steps == 0 or final:
            with temporary_checkpoint(out) as folder:
                loop.save(folder)
                ray.train.report({"step": metrics.step}, checkpoint=ray.train.Checkpoint.from_directory(str(folder)))
            reached.saved = metrics.step

    log = MetricsLog(out, loop.step) if worker.rank == 0 else None
    try:
        loop.run(on_step)
    finally:
        if log:
            log.__exit__(None, None, None)
    if worker.rank == 0:
        with atomic_path(out / MODEL_FOLDER) as folder:
            model.save(folder)
        if last_loss != last_loss:  # nothing was left to do: every step had been computed before the crash
            last_loss = next((line["loss"] for line in reversed(list(read_metrics(out)))), last_loss)
    return last_loss


def _mean_over_workers(value: float, world_size: int) -> float:
    import torch

    if world_size == 1:
        return value
    device = "cuda" if torch.cuda.is_available() else "cpu"
    total = torch.tensor([value], device=device)
    torch.distributed.all_reduce(total)
    return float(total) / world_size


@contextmanager
def _following(out: Path, progress: Progress) -> Iterator[None]:
    """Show the steps that the first worker writes to its metrics file."""
    stop = threading.Event()

    def follow() -> None:
        while not stop.wait(1.0):
            line = next(reversed(list(read_metrics(out))), None)
            if line and line["step"] > progress.done:
                progress.advance(int(line["step"]) - progress.done, f"loss {line['loss']:.3f}")

    thread = threading.Thread(target=follow, daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def _publish(out: Path, key: str, snapshot: Snapshot, config: Config, schedule: Schedule, loss: float) -> None:
    facts = RunFacts(
        generate=config.generate,
        k=config.retrieve.k,
        mode="dense",  # whatever ``config.retrieve`` says: training searches all passages, by vectors
        where="",
        rerank_model="",
        encoder=snapshot.encoder,
        snapshot=snapshot.name,
        num_steps=schedule.num_steps,
        num_examples=schedule.num_examples,
        final_loss=loss,
    )
    files = [path for path in sorted((out / MODEL_FOLDER).rglob("*")) if path.is_file()]
    publish(out, kind="run", fingerprint=key, facts=facts.model_dump(mode="json"), files=[*files, out / METRICS_FILE])
    shutil.rmtree(out / STATE_FOLDER, ignore_errors=True)
