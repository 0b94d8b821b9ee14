"""Retriever training, but for the training itself. In: an index, mined questions. Out: what to learn; later, what of it is kept."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ragray.artifact.digest import file_checksum
from ragray.config import Config
from ragray.embed.encoder import EncoderFingerprint, encoder_fingerprint, is_hash
from ragray.errors import InputError, TrainingError
from ragray.evaluate.dev_recall import dev_recall, ranks_in_index, ranks_in_pool
from ragray.index.search.reader import IndexReader
from ragray.index.store.live import rows_of_ids
from ragray.index.store.snapshot import Snapshot
from ragray.retrieve.mining.triples import read_triples, triples_file
from ragray.run import ENCODER_FOLDER, MODEL_FOLDER, PASSAGE_ENCODER_FOLDER, DevRecall, RunFacts
from ragray.train.mined import MinedQuestions, held_out

if TYPE_CHECKING:
    from ragray.embed.transformer import TransformerEncoder

REJECTED = "rejected_"
"""Before the name of the folder of an encoder that was trained, and not kept."""


@dataclass(frozen=True, slots=True)
class RetrieverPlan:
    """What is learnt, what is held out (None: nothing), over which snapshot, and the checksum of the mined file."""

    reader: IndexReader
    learnt: MinedQuestions
    held_out: MinedQuestions | None
    checksum: str

    @property
    def snapshot(self) -> Snapshot:
        """The snapshot whose passages the questions name."""
        return self.reader.snapshot


def plan_retriever(index: Path, mined: Path, config: Config) -> RetrieverPlan:
    """Read mined questions, the folder or the file in it, and the vectors of their passages from the current snapshot of an index.

    Raises:
        TrainingError: the index's encoder has no weights.
        InputError: a line is wrong, names a passage that the snapshot does not hold, or no question is left to train on.
    """
    reader, path = IndexReader.open(index, threads=config.retrieve.threads), triples_file(mined)
    model = reader.snapshot.encoder_config.model
    if is_hash(reader.snapshot.encoder_config):
        raise TrainingError(f"{index}: its encoder '{model}' has no weights to train; embed the corpus with another")
    questions = read_triples(path)
    train, dev = held_out(questions, config.train.dev_share, config.train.seed)
    if not train:
        raise InputError(f"{path}: no question is left to train on; lower train.dev_share")
    learnt = MinedQuestions.of([questions[number] for number in train])
    if not config.train.passage_encoder:  # which would need the texts instead
        learnt = _with_vectors(learnt, reader, path)
    dev_questions = MinedQuestions.of([questions[number] for number in dev]) if dev else None
    return RetrieverPlan(reader, learnt, dev_questions, file_checksum(path))


def _with_vectors(questions: MinedQuestions, reader: IndexReader, path: Path) -> MinedQuestions:
    rows = rows_of_ids(reader.index, reader.snapshot, questions.passage_ids, of_documents=False)
    if missing := [name for name in questions.passage_ids if name not in rows]:
        raise InputError(
            f"{path}: snapshot {reader.snapshot.name} of {reader.index} does not hold {len(missing)} of its passages (the first: "
            f"'{missing[0]}'); mine again with this index"
        )
    rows_1K = np.array([[rows[name][0] for name in questions.passage_ids]])
    found = reader.result(rows_1K, np.zeros(rows_1K.shape, np.float32), with_vectors=True)
    return replace(questions, vectors_MD=found.vectors_NKD[0], texts=())


def conclude(plan: RetrieverPlan, out: Path, config: Config, *, num_steps: int, final_loss: float) -> RunFacts:
    """Decide whether the encoders that were trained into ``out`` are kept, and return the facts of the run.

    Kept they are if they find more gold passages of the questions that were held out, or none were. Else their folders get
    other names: without the folder of an encoder a run searches with that of the index.
    """
    measured = _measured(plan, plan.held_out, out, config) if plan.held_out else None
    keeps = measured is None or measured.gained
    rebuild = keeps and config.train.passage_encoder
    facts = RunFacts(
        generate=config.generate,
        k=config.retrieve.k,
        encoder=_trained_fingerprint(plan.snapshot, out) if rebuild else plan.snapshot.encoder,
        snapshot=plan.snapshot.name,
        num_steps=num_steps,
        num_examples=len(plan.learnt.examples),
        final_loss=final_loss,
        objective=config.train.objective,
        kept="trained" if keeps else "base",
        dev=measured,
        rebuild_index=rebuild,
    )
    for folder in [] if keeps else sorted((out / MODEL_FOLDER).glob("*_encoder")):
        folder.rename(folder.with_name(REJECTED + folder.name))
    return facts


def _measured(plan: RetrieverPlan, questions: MinedQuestions, out: Path, config: Config) -> DevRecall:
    """Return how many gold passages of held-out questions are found with the encoders before and after training."""
    model, k = out / MODEL_FOLDER, config.retrieve.k
    before, after = _encoder(plan.snapshot, None), _encoder(plan.snapshot, model / ENCODER_FOLDER)
    if config.train.passage_encoder:
        passages = _encoder(plan.snapshot, model / PASSAGE_ENCODER_FOLDER)
        texts = [example.question for example in questions.examples]
        pairs = ((before, before), (after, passages))
        found = [ranks_in_pool(pair, texts, questions.texts, questions.gold, k) for pair in pairs]
        return dev_recall(found[0], found[1], k, among="pool")
    ranks = [ranks_in_index(plan.reader, encoder, questions.examples, k) for encoder in (before, after)]
    return dev_recall(ranks[0], ranks[1], k)


def _encoder(snapshot: Snapshot, weights: Path | None) -> TransformerEncoder:
    from ragray.embed.transformer import TransformerEncoder

    return TransformerEncoder.load(snapshot.encoder_config, weights=weights, fingerprint=snapshot.encoder)


def _trained_fingerprint(snapshot: Snapshot, out: Path) -> EncoderFingerprint:
    """Return the fingerprint of an index that is built with the trained passage encoder, and otherwise as this one was."""
    folder = (out / MODEL_FOLDER / PASSAGE_ENCODER_FOLDER).resolve()
    fixed = {"pooling": snapshot.encoder.pooling, "passage_prefix": snapshot.encoder.passage_prefix}
    return encoder_fingerprint(snapshot.encoder_config.model_copy(update={"model": str(folder), **fixed}))


def verdict(facts: RunFacts) -> str:
    """Return which weights a retriever run keeps, with the figures that decided."""
    then = "; searches need an index built with its model/passage_encoder" if facts.rebuild_index else ""
    if facts.dev is None:
        return f"trained encoder kept: no question was held out{then}"
    dev, (low, high) = facts.dev, facts.dev.interval
    where = "" if dev.among == "index" else " among their own passages"
    figures = (
        f"recall@{dev.k} of {dev.num_questions} held-out questions{where} {dev.before:.1f} % before, {dev.after:.1f} % after training "
        f"(gain {dev.after - dev.before:+.1f} [{low:+.1f}, {high:+.1f}])"
    )
    return (
        f"trained encoder kept: {figures}{then}" if facts.kept == "trained" else f"base kept: no gain on dev: {figures}"
    )
