"""Trains a retriever on Ray Train. In: an index, what `ragray mine` wrote. Out: a run with the encoder that finds more."""

from __future__ import annotations

import logging
import os
from dataclasses import replace
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING

import numpy as np

from ragray.artifact.digest import file_checksum, fingerprint
from ragray.artifact.output import StageOutput, stage_output
from ragray.cluster.fit import STATE_FOLDER, fit, prepare_state
from ragray.cluster.resources import require
from ragray.cluster.session import session
from ragray.cluster.train import TrainReport, claim, decisive, publish_run, shown, workers
from ragray.cluster.train_worker import Outcome, WorkerSetup, train_worker
from ragray.config import Config
from ragray.embed.encoder import EncoderFingerprint, encoder_fingerprint, is_hash
from ragray.errors import InputError, TrainingError
from ragray.evaluate.dev_recall import dev_recall, ranks_in_index, ranks_in_pool
from ragray.examples import ExampleSource
from ragray.index.search.reader import IndexReader
from ragray.index.store.live import rows_of_ids
from ragray.index.store.snapshot import Snapshot
from ragray.retrieve.triples import read_triples, triples_file
from ragray.run import ENCODER_FOLDER, MODEL_FOLDER, PASSAGE_ENCODER_FOLDER, DevRecall, RunFacts
from ragray.train.mined import MinedQuestions, held_out

if TYPE_CHECKING:
    from ragray.embed.transformer import TransformerEncoder

REJECTED = "rejected_"
"""Before the name of the folder of an encoder that was trained, and not kept."""

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
    (``train.dev_share``) decide whether the trained encoder is kept: only if it finds more of their gold passages.

    Raises:
        TrainingError: the index's encoder has no weights, or as `ragray.cluster.train.train_rag`.
        InputError: a line is wrong, or names passages that the index does not hold.
    """
    started = monotonic()
    reader = IndexReader.open(index, threads=config.retrieve.threads)
    snapshot, path = reader.snapshot, _path(mined)
    if is_hash(snapshot.encoder_config):
        raise TrainingError(
            f"{index}: its encoder '{snapshot.encoder_config.model}' has no weights to train; embed with another"
        )
    questions = read_triples(path)
    train, dev = held_out(questions, config.train.dev_share, config.train.seed)
    if not train:
        raise InputError(f"{path}: no question is left to train on; lower train.dev_share")
    learnt = _with_passages(MinedQuestions.of([questions[number] for number in train]), reader, config, path)
    key = fingerprint([snapshot.source, file_checksum(path), decisive(config.train), config.retrieve.k])
    with stage_output(out, kind="run", work=STATE_FOLDER) as output:
        if finished := output.finished(key):
            facts = RunFacts.model_validate(finished.facts)
            return TrainReport(out, facts.num_steps, facts.final_loss, monotonic() - started, True, verdict(facts))
        claim(output, key, restart)
        if config.train.passage_encoder:
            logger.warning(
                "train: the passage encoder trains too: searches with this run need an index that is built with it"
            )
        with session(address):
            require("train", [workers(config.train)], wait_s=config.cluster.wait_s)
            setup = WorkerSetup(
                str(out.resolve()),
                "",
                snapshot.encoder_config,
                learnt.examples,
                None,
                config,
                prepare_state(out),
                learnt,
            )
            with shown(out, len(learnt.examples), config.train):
                outcome: Outcome = fit(train_worker, setup, out, config)
        measured = (
            _measured(reader, MinedQuestions.of([questions[number] for number in dev]), out, config) if dev else None
        )
        facts = _facts(snapshot, config, len(learnt.examples), outcome, measured, out)
        _keep(output, facts)
        publish_run(output, key, facts)
    return TrainReport(out, outcome.num_steps, outcome.final_loss, monotonic() - started, False, verdict(facts))


def _path(mined: ExampleSource) -> Path:
    if not isinstance(mined, str | os.PathLike):
        raise InputError("train: this objective learns from what ragray mine wrote; give its folder")
    return triples_file(Path(mined))


def _with_passages(questions: MinedQuestions, reader: IndexReader, config: Config, path: Path) -> MinedQuestions:
    """Give the passages their vectors from the index; where a passage encoder trains it needs the texts instead.

    Raises:
        InputError: the snapshot does not hold a passage.
    """
    if config.train.passage_encoder:
        return questions
    rows = rows_of_ids(reader.index, reader.snapshot, questions.passage_ids, of_documents=False)
    if missing := [name for name in questions.passage_ids if name not in rows]:
        raise InputError(
            f"{path}: snapshot {reader.snapshot.name} of {reader.index} does not hold {len(missing)} of its passages (the first: "
            f"'{missing[0]}'); mine again with this index"
        )
    rows_1K = np.array([[rows[name][0] for name in questions.passage_ids]])
    found = reader.result(rows_1K, np.zeros(rows_1K.shape, np.float32), with_vectors=True)
    return replace(questions, vectors_MD=found.vectors_NKD[0], texts=())


def _measured(reader: IndexReader, questions: MinedQuestions, out: Path, config: Config) -> DevRecall:
    """Return how many gold passages of held-out questions are found with the encoders before and after training."""
    before, after = _encoder(reader.snapshot, None), _encoder(reader.snapshot, out / MODEL_FOLDER / ENCODER_FOLDER)
    k = config.retrieve.k
    if config.train.passage_encoder:
        passages = _encoder(reader.snapshot, out / MODEL_FOLDER / PASSAGE_ENCODER_FOLDER)
        texts = [example.question for example in questions.examples]
        pairs = ((before, before), (after, passages))
        found = [ranks_in_pool(pair, texts, questions.texts, questions.gold, k) for pair in pairs]
        return dev_recall(found[0], found[1], k, among="pool")
    ranks = [ranks_in_index(reader, encoder, questions.examples, k) for encoder in (before, after)]
    return dev_recall(ranks[0], ranks[1], k)


def _encoder(snapshot: Snapshot, weights: Path | None) -> TransformerEncoder:
    from ragray.embed.transformer import TransformerEncoder

    return TransformerEncoder.load(snapshot.encoder_config, weights=weights, fingerprint=snapshot.encoder)


def _facts(
    snapshot: Snapshot, config: Config, num_examples: int, outcome: Outcome, measured: DevRecall | None, out: Path
) -> RunFacts:
    keeps = measured is None or measured.gained
    rebuild = keeps and config.train.passage_encoder
    return RunFacts(
        generate=config.generate,
        k=config.retrieve.k,
        encoder=_trained_fingerprint(snapshot, out) if rebuild else snapshot.encoder,
        snapshot=snapshot.name,
        num_steps=outcome.num_steps,
        num_examples=num_examples,
        final_loss=outcome.final_loss,
        objective=config.train.objective,
        kept="trained" if keeps else "base",
        dev=measured,
        rebuild_index=rebuild,
    )


def _trained_fingerprint(snapshot: Snapshot, out: Path) -> EncoderFingerprint:
    """Return the fingerprint of an index that is built with the trained passage encoder, and otherwise as this one was."""
    folder = (out / MODEL_FOLDER / PASSAGE_ENCODER_FOLDER).resolve()
    changes = {
        "model": str(folder),
        "pooling": snapshot.encoder.pooling,
        "passage_prefix": snapshot.encoder.passage_prefix,
    }
    return encoder_fingerprint(snapshot.encoder_config.model_copy(update=changes))


def _keep(output: StageOutput, facts: RunFacts) -> None:
    """Set encoders aside that were not kept: without the folder of an encoder a run searches with that of the index."""
    if facts.kept == "base":
        for folder in sorted((output.folder / MODEL_FOLDER).glob("*_encoder")):
            folder.rename(folder.with_name(REJECTED + folder.name))


def verdict(facts: RunFacts) -> str:
    """Return which weights a retriever run keeps, with the figures that decided."""
    then = "; searches need an index built with its model/passage_encoder" if facts.rebuild_index else ""
    if facts.dev is None:
        return f"trained encoder kept: no questions were held out (train.dev_share=0){then}"
    dev, (low, high) = facts.dev, facts.dev.interval
    where = "" if dev.among == "index" else " among their own passages"
    figures = (
        f"recall@{dev.k} of {dev.num_questions} held-out questions{where} {dev.before:.1f} % before, {dev.after:.1f} % after training "
        f"(gain {dev.after - dev.before:+.1f} [{low:+.1f}, {high:+.1f}])"
    )
    return (
        f"trained encoder kept: {figures}{then}" if facts.kept == "trained" else f"base kept: no gain on dev: {figures}"
    )
