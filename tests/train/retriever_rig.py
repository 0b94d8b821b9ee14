"""Retriever training on mined questions over the tiny index, in this process; ranks that are threads."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ragray.config import EncoderConfig, TrainConfig
from ragray.embed.encoder import encoder_fingerprint
from ragray.embed.passage_text import passage_text
from ragray.embed.transformer import TransformerEncoder
from ragray.retrieve.mining.triples import Triple
from ragray.train.components import Components
from ragray.train.loop import TrainLoop
from ragray.train.mined import MinedQuestions
from ragray.train.objectives.contrastive import ContrastiveObjective, RetrieverBatch
from ragray.train.schedule import Rank
from tests.helpers import some_passages
from tests.train.rig import Averaged, Meeting, Ranks

TEXTS = {passage.id: passage_text(passage) for passage in some_passages(40)}
SETTINGS = {"objective": "contrastive", "epochs": 2, "batch_size": 2, "encoder_lr": 1e-3}


def triples(question: int, positive: int, *negatives: int, gold: tuple[int, ...] = ()) -> list[Triple]:
    """The triples of a question about passage ``positive``; each negative has a reranker's margin."""
    return [
        Triple(
            id=f"q{question}",
            question=f"{TEXTS[f'p{positive}'].split()[0]} {question}",
            positive=TEXTS[f"p{positive}"],
            positive_id=f"p{positive}",
            positive_score=0.5,
            gold_ids=tuple(f"p{number}" for number in (positive, *gold)),
            negative=TEXTS[f"p{negative}"],
            negative_id=f"p{negative}",
            negative_score=0.25,
            score=0.1 * negative,
        )
        for negative in negatives
    ]


QUESTIONS = [triples(n, n // 2, 20 + n, *([30 + n] if n % 3 else [])) for n in range(10)]
"""Two questions for each positive; of every three, one has one negative and two have two."""


@dataclass(frozen=True)
class ThreadRanks:
    """The ranks of a `Meeting`, as one of them sees them."""

    meeting: Meeting
    rank: int

    def gather(self, rows_N: Tensor) -> Tensor:
        found: Tensor = _Gather.apply(rows_N, self)
        return found


class _Gather(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, rows_N: Tensor, ranks: ThreadRanks) -> Tensor:
        ctx.ranks, ctx.num_rows = ranks, len(rows_N)
        return ranks.meeting.all(ranks.rank, rows_N).flatten(0, 1)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        total = ctx.ranks.meeting.all(ctx.ranks.rank, gradients[0]).sum(0)
        return total.split(ctx.num_rows)[ctx.ranks.rank], None


@dataclass(frozen=True)
class RetrieverRig:
    """Builds loops over one encoder's initial weights."""

    encoder: Path

    def load(self) -> TransformerEncoder:
        config = EncoderConfig(model=str(self.encoder), max_length=64)
        return TransformerEncoder.load(config, device="cpu", fingerprint=encoder_fingerprint(config))

    def questions(self, train: TrainConfig, mined: list[list[Triple]]) -> MinedQuestions:
        found = MinedQuestions.of(mined)
        if train.passage_encoder:
            return found
        return replace(found, vectors_MD=self.load().encode(found.texts).astype(np.float16), texts=())

    def objective(
        self, mined: list[list[Triple]] = QUESTIONS, ranks: ThreadRanks | None = None, **changes: object
    ) -> tuple[Components, ContrastiveObjective]:
        train = TrainConfig.model_validate({**SETTINGS, **changes})
        passages = self.load() if train.passage_encoder else None
        components = Components(train, question_encoder=self.load(), passage_encoder=passages)
        return components, ContrastiveObjective(components, self.questions(train, mined), train, ranks=ranks)

    def loop(
        self, rank: Rank | None = None, meeting: Meeting | None = None, **changes: object
    ) -> TrainLoop[RetrieverBatch]:
        rank = rank or Rank()
        ranks = ThreadRanks(meeting, rank.rank) if meeting else None
        components, objective = self.objective(ranks=ranks, **changes)
        found = MinedQuestions.of(QUESTIONS)
        return TrainLoop(
            components,
            objective,
            found.examples,
            train=TrainConfig.model_validate({**SETTINGS, **changes}),
            rank=rank,
            parallel=Averaged(components, meeting, rank.rank) if meeting else None,
            groups=found.groups,
        )

    def ranks(self, world_size: int, **changes: object) -> Ranks:
        meeting = Meeting(world_size)
        return Ranks([self.loop(Rank(number, world_size), meeting, **changes) for number in range(world_size)])
