"""Trains a retriever on Ray Train. In: an index, what `ragray mine` wrote. Out: a run with the encoder that finds more."""

from __future__ import annotations

import logging
import os
from dataclasses import replace
from pathlib import Path
from time import monotonic

from ragray.artifact.digest import fingerprint
from ragray.artifact.output import stage_output
from ragray.cluster.fit import STATE_FOLDER, fit, prepare_state
from ragray.cluster.resources import require
from ragray.cluster.session import session
from ragray.cluster.train import TrainReport, claim, decisive, publish_run, shown, workers
from ragray.cluster.train_worker import Outcome, WorkerSetup, train_worker
from ragray.cluster.validation.actor import validating
from ragray.config import Config
from ragray.errors import InputError
from ragray.examples import ExampleSource
from ragray.run import RunFacts
from ragray.stages.retriever import conclude, plan_retriever, verdict
from ragray.stages.validation.dev import dev_set

logger = logging.getLogger("ragray")


def train_retriever(
    index: Path,
    mined: ExampleSource,
    out: Path,
    config: Config,
    *,
    address: str | None = None,
    restart: bool = False,
) -> TrainReport:
    """Train the question encoder of an index's current snapshot on what `ragray mine` wrote: its folder, or the file in it.

    The index stays valid, unless ``train.passage_encoder`` lets a passage encoder train too. Questions that are held out
    (``train.dev_share``) decide whether the trained encoder is kept.

    Raises:
        TrainingError: the index's encoder has no weights, or as `ragray.cluster.train.train_rag`.
        InputError: a line is wrong, or names passages that the index does not hold.
    """
    started = monotonic()
    if not isinstance(mined, str | os.PathLike):
        raise InputError("train: this train.objective learns from what ragray mine wrote; give its folder")
    plan = plan_retriever(index, Path(mined), config)
    dev = dev_set(config, index, plan.snapshot, plan.learnt.examples, plan.held_out)
    parts = [plan.snapshot.source, plan.checksum, decisive(config.train), config.retrieve.k]
    key = fingerprint([*parts, *(dev.key if dev else [])])
    with stage_output(out, kind="run", work=STATE_FOLDER) as output:
        if finished := output.finished(key):
            return _report(out, RunFacts.model_validate(finished.facts), started, reused=True)
        claim(output, key, restart)
        if config.train.passage_encoder:
            logger.warning(
                "train: the passage encoder trains too: searches with this run will need an index that is built with it"
            )
        with session(address):
            require("train", [workers(config.train)], wait_s=config.cluster.wait_s)
            setup = WorkerSetup(
                out=str(out.resolve()),
                generator="",
                encoder=plan.snapshot.encoder_config,
                examples=plan.learnt.examples,
                searcher=None,
                config=config,
                checkpoint=prepare_state(out),
                mined=plan.learnt,
            )
            others = [workers(config.train)]
            with validating(setup, dev, others) as validation, shown(out, len(plan.learnt.examples), config.train):
                outcome: Outcome = fit(train_worker, replace(setup, validation=validation), out, config)
        facts = conclude(plan, out, config, num_steps=outcome.num_steps, final_loss=outcome.final_loss)
        facts = facts.model_copy(update={"best": outcome.best})
        publish_run(output, key, facts)
    return _report(out, facts, started, reused=False)


def _report(out: Path, facts: RunFacts, started: float, *, reused: bool) -> TrainReport:
    told = verdict(facts)
    if facts.best and facts.kept == "trained":
        told = f"{told}; {facts.best.in_words}"
    return TrainReport(out, facts.num_steps, facts.final_loss or 0.0, monotonic() - started, reused, told)
