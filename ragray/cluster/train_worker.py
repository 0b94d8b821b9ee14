"""What a training worker computes; Ray Train starts it. In: its setup, a checkpoint. Out: metrics, checkpoints, the trained model."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from ragray.artifact.files import atomic_path
from ragray.cluster.failures import PeerLostError, cause, is_death, is_peer_loss
from ragray.cluster.fit import temporary_checkpoint
from ragray.cluster.refresh import index_refresh
from ragray.cluster.validation.actor import ValidationSetup
from ragray.cluster.validation.worker import WorkerValidations
from ragray.config import Config, EncoderConfig
from ragray.embed.load import load_question_encoder
from ragray.errors import RagrayError, TrainingError, first_line
from ragray.failures import storage_errno, told
from ragray.run import MODEL_FOLDER, BestValidation
from ragray.train.metrics import MetricsLog, read_metrics
from ragray.train.mined import MinedQuestions
from ragray.train.objectives.objective import TOKENS, Objective, Searcher
from ragray.train.schedule import Rank
from ragray.types import Example, Passage

if TYPE_CHECKING:
    from ragray.embed.transformer import TransformerEncoder
    from ragray.train.components import Components
    from ragray.train.loop import StepMetrics, TrainLoop
    from ragray.train.refresh.worker import IndexRefresh

logger = logging.getLogger("ragray")


@dataclass(frozen=True, slots=True)
class WorkerSetup:
    """Everything that a training worker needs.

    ``checkpoint`` is the one to go on from where Ray Train has no record of any, else "". ``gold`` holds by example id the passages
    that gold ids name, for the strategy `together` and the objective `reader`. With ``mined`` a retriever is trained on these
    questions: there are no generator and no searcher then. ``validation``: what is measured while it trains.
    """

    out: str
    generator: str
    encoder: EncoderConfig
    examples: Sequence[Example]
    searcher: Searcher | None
    config: Config
    checkpoint: str = ""
    gold: Mapping[str, Sequence[Passage]] = field(default_factory=dict)
    mined: MinedQuestions | None = None
    validation: ValidationSetup | None = None


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a finished training returns; ``best`` where its weights are not simply those of the last step."""

    num_steps: int
    final_loss: float
    best: BestValidation | None = None


@dataclass(slots=True)
class Reached:
    """How far a worker is: steps computed, the step of the last checkpoint, the last loss that was logged."""

    step: int = 0
    saved: int = 0
    loss: float | None = None


class TrainContext(Protocol):
    """What Ray Train tells a worker about its place."""

    def get_world_rank(self) -> int:
        """Return the worker's number among all."""

    def get_world_size(self) -> int:
        """Return the number of workers."""

    def get_local_world_size(self) -> int:
        """Return the number of workers on this node."""


def train_worker(loop_config: dict[str, WorkerSetup]) -> Outcome:
    """Run one data-parallel worker; a failure is described in one line that names the step.

    Raises:
        PeerLostError: the connection to another worker broke, because that one died or failed.
        RagrayError: any other failure; it would happen again.
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


def num_threads(setting: int, num_cpus: int, context: TrainContext) -> int:
    """Return the torch threads of a worker: the setting, or an even share of the node's CPUs where it is 0."""
    return setting or max(1, num_cpus // context.get_local_world_size())


def _train(setup: WorkerSetup, reached: Reached) -> Outcome:
    import ray.train

    out, context = Path(setup.out), ray.train.get_context()
    rank = Rank(context.get_world_rank(), context.get_world_size())
    loop = _loop(setup, context, rank)
    refresh = index_refresh(out, setup.searcher, loop, setup.config.train)
    _restore(loop, setup.checkpoint, refresh)
    reached.step = reached.saved = loop.progress.step
    trackers = setup.config.train.trackers
    with MetricsLog(out, reached.step, trackers) if rank.rank == 0 else nullcontext() as log:
        validations = WorkerValidations(setup, loop, log)
        loop.run(_StepReport(setup, loop, reached, log, validations, refresh))
        best = validations.finish()
    if rank.rank == 0:
        with atomic_path(out / MODEL_FOLDER) as folder:
            loop.components.save(folder)
        if reached.loss is None:  # every step had been computed before the crash
            reached.loss = next((line["loss"] for line in reversed(list(read_metrics(out))) if "loss" in line), None)
    return Outcome(loop.progress.step, float("nan") if reached.loss is None else reached.loss, best)


def _loop(setup: WorkerSetup, context: TrainContext, rank: Rank) -> TrainLoop[Any]:
    import ray.train.torch
    import torch

    from ragray.train.loop import TrainLoop

    train = setup.config.train
    torch.set_num_threads(num_threads(train.threads_per_worker, os.cpu_count() or 1, context))
    torch.manual_seed(train.seed)
    components, objective = make_objective(setup)
    # The models load to the worker's GPU by themselves, and the encoder keeps using its module: a move here would leave the
    # objective with tensors on another device than the weights.
    parallel = ray.train.torch.prepare_model(components, move_to_device=False)
    groups = setup.mined.groups if setup.mined else ()
    return TrainLoop(components, objective, setup.examples, train=train, rank=rank, parallel=parallel, groups=groups)


def make_objective(setup: WorkerSetup) -> tuple[Components, Objective[Any]]:
    """Load the models of a run, and make the objective that trains them."""
    return _rag_objective(setup) if setup.mined is None else _retriever_objective(setup, setup.mined)


def _retriever_objective(setup: WorkerSetup, mined: MinedQuestions) -> tuple[Components, Objective[Any]]:
    from ragray.embed.transformer import TransformerEncoder
    from ragray.train.components import Components
    from ragray.train.objectives.contrastive import ContrastiveObjective

    train = setup.config.train
    passages = TransformerEncoder.load(setup.encoder) if train.passage_encoder else None
    questions = TransformerEncoder.load(setup.encoder)
    components = Components(train, question_encoder=questions, passage_encoder=passages)
    return components, ContrastiveObjective(components, mined, train)


def _rag_objective(setup: WorkerSetup) -> tuple[Components, Objective[Any]]:
    import torch

    from ragray.embed.transformer import TransformerEncoder
    from ragray.generate.engines.model import GeneratorModel
    from ragray.train.components import Components
    from ragray.train.objectives.fid import FidObjective
    from ragray.train.objectives.rag import RagObjective
    from ragray.train.objectives.ranking_losses import PerplexityDistillation
    from ragray.train.objectives.reader import ReaderObjective
    from ragray.train.objectives.together import TogetherObjective

    config, train, k = setup.config, setup.config.train, setup.config.retrieve.k
    strategy, smoothing = config.generate.strategy, train.label_smoothing
    assert setup.searcher is not None
    encoder = load_question_encoder(setup.encoder)
    generator = GeneratorModel.load(Path(setup.generator), dtype=torch.float32)
    trained = encoder if isinstance(encoder, TransformerEncoder) else None
    passages, candidates = _passage_encoder(setup, trained), train.refresh_candidates
    if train.objective == "perplexity":
        if trained is None:
            raise TrainingError(
                "train.objective=perplexity trains the question encoder, and the index's has no weights"
            )
        frozen = train.model_copy(update={"generator_lr": 0.0})
        components = Components(frozen, question_encoder=trained, passage_encoder=passages, generator=generator)
        loss = PerplexityDistillation(train.reader_temperature)
        return components, RagObjective(
            components, encoder, setup.searcher, k=k, generate=config.generate, loss=loss, candidates=candidates
        )
    if strategy == "fid":
        components = Components(train, generator=generator)
        return components, FidObjective(
            components, encoder, setup.searcher, k=k, generate=config.generate, label_smoothing=smoothing
        )
    if strategy == "together" or train.objective == "reader":
        components = Components(
            train.model_copy(update={"encoder_lr": 0}), question_encoder=trained, generator=generator
        )
        make = TogetherObjective if strategy == "together" else ReaderObjective
        return components, make(
            components, encoder, setup.searcher, k=k, generate=config.generate, train=train, gold=setup.gold
        )
    components = Components(train, question_encoder=trained, passage_encoder=passages, generator=generator)
    return components, RagObjective(
        components,
        encoder,
        setup.searcher,
        k=k,
        generate=config.generate,
        label_smoothing=smoothing,
        candidates=candidates,
    )


def _passage_encoder(setup: WorkerSetup, questions: TransformerEncoder | None) -> TransformerEncoder | None:
    """Return the passage encoder that trains, which is the question encoder where the index has one for both; None where none does."""
    if questions is None or not setup.config.train.passage_encoder:
        return None
    return type(questions).load(setup.encoder) if setup.encoder.question_model else questions


def _restore(loop: TrainLoop[Any], checkpoint: str, refresh: IndexRefresh | None) -> None:
    import ray.train

    found = ray.train.get_checkpoint()
    with found.as_directory() if found else nullcontext(checkpoint) as folder:
        if folder:
            loop.restore(Path(folder))
        if refresh:
            refresh.restore(Path(folder) if folder else None)


@dataclass(frozen=True, slots=True)
class _StepReport:
    """Called after each step: writes metrics and checkpoints as often as the settings say, and after the last step."""

    setup: WorkerSetup
    loop: TrainLoop[Any]
    reached: Reached
    log: MetricsLog | None
    validations: WorkerValidations
    refresh: IndexRefresh | None = None

    def __call__(self, metrics: StepMetrics) -> None:
        train = self.setup.config.train
        self.reached.step = metrics.step
        final = metrics.step == self.loop.num_steps
        if self.refresh and not final:
            self.refresh.after_step(metrics.step)
        # All ranks must come to the same decision here: a mean, and Ray Train's report of a checkpoint, wait for every rank.
        if final or metrics.step % train.logging_steps == 0:
            self._write(metrics)
        self.validations.after(metrics.step, final=final)
        if final or metrics.step % train.checkpoint_steps == 0:
            self._save(metrics.step)

    def _write(self, metrics: StepMetrics) -> None:
        world_size = self.loop.rank.world_size
        means = {name: mean_over_ranks(value, world_size) for name, value in sorted(metrics.metrics.items())}
        self.reached.loss = mean_over_ranks(metrics.loss, world_size)
        if (tokens := means.pop(TOKENS, None)) is not None:
            micro_batches = self.setup.config.train.gradient_accumulation * world_size
            means["tokens_per_second"] = tokens * micro_batches / metrics.seconds
        if self.refresh:
            means["index_age_steps"] = float(self.refresh.age(metrics.step))
            means["refresh_seconds"] = self.refresh.seconds
        if self.log:
            self.log.write(
                metrics.step,
                epoch=metrics.epoch,
                loss=self.reached.loss,
                learning_rate=metrics.learning_rate,
                grad_norm=metrics.grad_norm,
                step_seconds=metrics.seconds,
                wait_seconds=metrics.wait_seconds,
                **means,
            )

    def _save(self, step: int) -> None:
        import ray.train

        with temporary_checkpoint(Path(self.setup.out)) as folder:
            self.loop.save(folder)
            if self.refresh:
                self.refresh.save(folder)
            ray.train.report({"step": step}, checkpoint=ray.train.Checkpoint.from_directory(str(folder)))
        self.reached.saved = step
        self.validations.saved(step)


def mean_over_ranks(value: float, world_size: int) -> float:
    """Return the mean of a value over all ranks; a collective, which waits until every rank has called it."""
    import torch

    if world_size == 1:
        return value
    device = "cuda" if torch.cuda.is_available() else "cpu"
    total = torch.tensor([value], device=device)
    torch.distributed.all_reduce(total)
    return float(total) / world_size
