"""The stage `mine`. In: an index, examples. Out: triples of question, positive and hard negative, and what was left out, by reason.

N questions, K passages, D dim.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from time import monotonic

import numpy as np
from pydantic import BaseModel, ConfigDict

from ragray.artifact.digest import fingerprint
from ragray.artifact.output import stage_output
from ragray.config import Config
from ragray.embed.encoder import Vectors
from ragray.embed.passage_text import passage_text
from ragray.errors import InputError
from ragray.evaluate.gold import warn_of_unknown_gold_ids
from ragray.examples import ExampleSource, read_examples
from ragray.index.search.reader import IndexReader
from ragray.index.store.live import rows_of_ids
from ragray.progress import Progress
from ragray.retrieve.fuse import fuse_scores
from ragray.retrieve.load import question_encoder
from ragray.retrieve.mining.choose import Mined, choose_negatives, choose_positive, similarity
from ragray.retrieve.mining.triples import KIND, TRIPLES_FILE, Triple, write_triples
from ragray.retrieve.rerank import CrossEncoder
from ragray.retrieve.retriever import LocalRetriever
from ragray.run import Run
from ragray.train.gold import answers
from ragray.types import Example, Hit

BATCH = 64
"""Questions that are encoded and searched for together."""

NO_POSITIVE, NO_NEGATIVE = "no positive", "no negative"

logger = logging.getLogger("ragray")


class MineFacts(BaseModel):
    """What was mined: counts of questions and triples, of questions that were left out, of candidates that were refused, by reason."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    snapshot: str
    num_questions: int
    num_triples: int
    left_out: dict[str, int]
    refused: dict[str, int]


@dataclass(frozen=True, slots=True)
class MineReport:
    """What a run of `mine` did."""

    facts: MineFacts
    seconds: float
    reused: bool


@dataclass(slots=True)
class _Counts:
    num_questions: int = 0
    num_triples: int = 0
    left_out: Counter[str] = field(default_factory=Counter)
    refused: Counter[str] = field(default_factory=Counter)


def mine_negatives(
    index: Path, examples: ExampleSource, out: Path, config: Config, *, run: Path | None = None
) -> MineReport:
    """Write triples for the training of a retriever into the folder ``out``; it does nothing where they are there already.

    Candidates are what dense and lexical search find together, in the order of their convex combination. Scores are inner
    products with the question encoder of ``run``, or of the index. `ragray.retrieve.mining.choose` says what is chosen.

    Raises:
        InputError: the index has no lexical part, an example is wrong, or no question has a positive and a negative.
    """
    started = monotonic()
    reader = IndexReader.open(index, threads=config.retrieve.threads)
    questions = read_examples(examples, config.examples)
    key = fingerprint([
        *(reader.snapshot.name, Run.open(run).name if run else "", config.retrieve.rerank_model),
        *(config.retrieve.where, config.retrieve.dense_weight, config.mine.model_dump(mode="json")),
        [example.content for example in questions],
    ])  # fmt: skip
    with stage_output(out, kind=KIND) as output:
        if finished := output.finished(key):
            return MineReport(MineFacts.model_validate(finished.facts), monotonic() - started, True)
        output.withdraw()
        miner, counts = Miner.load(reader, run, config), _Counts()
        warn_of_unknown_gold_ids(questions, index, reader.snapshot.name, "mine")
        write_triples(out / TRIPLES_FILE, _counted(miner.mine(questions), counts, config))
        if not counts.num_triples:
            raise InputError(
                f"mine: none of {len(questions)} questions can be used ({_told(counts.left_out)}); give gold_ids that the index holds, "
                "or raise mine.candidates and mine.share"
            )
        facts = MineFacts(
            snapshot=reader.snapshot.name,
            num_questions=counts.num_questions,
            num_triples=counts.num_triples,
            left_out=counts.left_out,
            refused=counts.refused,
        )
        output.publish(key, facts.model_dump(mode="json"), [out / TRIPLES_FILE])
    return MineReport(facts, monotonic() - started, False)


@dataclass(frozen=True, slots=True)
class Miner:
    """Mines questions from one snapshot."""

    reader: IndexReader
    retriever: LocalRetriever
    reranker: CrossEncoder | None
    config: Config

    @classmethod
    def load(cls, reader: IndexReader, run: Path | None, config: Config) -> Miner:
        """Load the models; raises as `ragray.retrieve.load.load_retriever` does."""
        settings = config.retrieve.model_copy(update={"mode": "hybrid"})
        retriever = LocalRetriever(reader, question_encoder(reader, run, config), settings)
        name = config.retrieve.rerank_model
        return cls(reader, retriever, CrossEncoder.load(name) if name else None, config)

    def mine(self, questions: Sequence[Example]) -> Iterator[tuple[Example, Mined | None, list[float]]]:
        """Yield every question with what was mined for it, None without a positive, and the reranker's margins of its negatives."""
        ids = {name for example in questions for name in example.gold_ids}
        rows = rows_of_ids(self.reader.index, self.reader.snapshot, ids)
        with Progress("mine", total=len(questions), unit="questions") as progress:
            for start in range(0, len(questions), BATCH):
                batch = questions[start : start + BATCH]
                yield from self._mine(batch, rows)
                progress.advance(len(batch))

    def _mine(
        self, batch: Sequence[Example], rows: Mapping[str, Sequence[int]]
    ) -> Iterator[tuple[Example, Mined | None, list[float]]]:
        texts = [example.question for example in batch]
        vectors_BD = self.retriever.encode(texts)
        assert vectors_BD is not None  # the mode is hybrid, which needs an encoder
        settings = self.config
        depth, weight = settings.mine.candidates, settings.retrieve.dense_weight
        parts = self.retriever.candidates(texts, vectors_BD, depth, settings.retrieve.where)
        candidates = fuse_scores(parts, weight, self.retriever.spread, 2 * depth).hits
        for example, vector_D, found in zip(batch, vectors_BD, candidates, strict=True):
            gold = self._gold(example, vector_D, rows)
            mined = _mined(example, gold, found, settings)
            yield example, mined, self._margins(example, mined)

    def _gold(self, example: Example, question_D: Vectors, rows: Mapping[str, Sequence[int]]) -> list[Hit]:
        """Return the gold passages of a question that the snapshot holds, with their inner products."""
        own = sorted({row for name in example.gold_ids for row in rows.get(name, ())})
        if not own:
            return []
        rows_1K = np.array([own])
        found = self.reader.result(rows_1K, np.zeros(rows_1K.shape, np.float32), with_vectors=True)
        scores_K = found.vectors_NKD[0].astype(np.float32) @ question_D
        return [replace(hit, dense=float(score)) for hit, score in zip(found.hits[0], scores_K, strict=True)]

    def _margins(self, example: Example, mined: Mined | None) -> list[float]:
        if self.reranker is None or mined is None:
            return []
        hits = (mined.positive, *mined.negatives)
        positive, *negatives = self.reranker.scores(
            [(example.question, passage_text(hit.passage)) for hit in hits]
        ).tolist()
        return [positive - negative for negative in negatives]


def _mined(example: Example, gold: Sequence[Hit], candidates: Sequence[Hit], config: Config) -> Mined | None:
    def holds(hit: Hit) -> bool:
        return answers(hit.passage, example)

    positive = choose_positive(gold, candidates, holds)
    return choose_negatives(positive, gold, candidates, holds, config.mine) if positive else None


def _counted(
    found: Iterator[tuple[Example, Mined | None, list[float]]], counts: _Counts, config: Config
) -> Iterator[Triple]:
    """Yield the triples of all questions, and count them, what was left out and what was refused."""
    for example, mined, margins in found:
        if mined:
            counts.refused.update(mined.refused)
        if mined is None or not (mined.negatives or config.mine.negatives == 0):
            counts.left_out[NO_NEGATIVE if mined else NO_POSITIVE] += 1
            continue
        counts.num_questions += 1
        for triple in _triples(example, mined, margins):
            counts.num_triples += 1
            yield triple


def _triples(example: Example, mined: Mined, margins: Sequence[float]) -> list[Triple]:
    base = Triple(
        id=example.id,
        question=example.question,
        positive=passage_text(mined.positive.passage),
        positive_id=mined.positive.passage.id,
        positive_score=round(similarity(mined.positive), 6),
        gold_ids=mined.gold_ids,
    )
    if not mined.negatives:
        return [base]
    return [
        base.model_copy(
            update={
                "negative": passage_text(hit.passage),
                "negative_id": hit.passage.id,
                "negative_score": round(similarity(hit), 6),
                "score": margins[number] if margins else None,
            }
        )
        for number, hit in enumerate(mined.negatives)
    ]


def _told(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{count} {reason}" for reason, count in sorted(counts.items())) or "none"
