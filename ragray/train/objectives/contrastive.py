"""Retriever training. In: mined questions with their passages. Out: the loss of the ranking, or of the margins, of positive and negatives.

B questions, P places (a positive and its negatives), N negatives, M passages of all ranks' questions, D dim.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from ragray.config import TrainConfig
from ragray.embed.transformer import TransformerEncoder
from ragray.errors import TrainingError
from ragray.index.search.result import SearchResult, nothing
from ragray.train.components import Components
from ragray.train.mined import NONE, MinedQuestions
from ragray.train.objectives.gather import AllRanks, Ranks
from ragray.train.objectives.objective import CompletedSearch, Loss, SearchFuture
from ragray.train.objectives.ranking_losses import margin_mse_loss, ranking_loss
from ragray.types import Example

NOBODY = -2
"""The number of no passage, other than `NONE`."""


@dataclass(frozen=True, slots=True)
class RetrieverBatch:
    """A micro-batch: tokenised questions, numbers of their passages (B, P) and of those that answer them (B, G), margins (B, N).

    The passages' vectors (B, P, D) are those of the index or, where a passage encoder trains, its tokens of the passages that are there.
    """

    question_ids: Tensor
    question_mask: Tensor
    passages_BP: Tensor
    gold_BG: Tensor
    margins_BN: Tensor
    vectors_BPD: Tensor | None
    passage_ids: Tensor
    passage_mask: Tensor


class ContrastiveObjective:
    """Trains the question encoder, and with `train.passage_encoder` a passage encoder beside it, on mined questions.

    ``train.objective=contrastive``: the positive is told from the question's negatives and from the passages of all other questions
    of the batch, those of all ranks included; passages that answer the question do not count among them. ``margin_mse``: the
    margins between the positive and its negatives become the reranker's. Scores are inner products times ``train.score_scale``.
    """

    def __init__(
        self,
        components: Components,
        questions: MinedQuestions,
        train: TrainConfig,
        *,
        ranks: Ranks | None = None,
    ) -> None:
        """Without a passage encoder ``questions`` bring vectors; ``ranks`` are those of torch.distributed by default.

        Raises:
            TrainingError: the components lack a question encoder, or there are no margins to learn.
        """
        if components.question_encoder is None:
            raise TrainingError("a retriever is trained by its question encoder; the index's encoder has no weights")
        if train.objective == "margin_mse" and not np.isfinite(questions.margins_QN).any(1).all():
            raise TrainingError(
                "train.objective=margin_mse learns a reranker's margins, which these triples lack (column `score`); mine them "
                "with retrieve.rerank_model"
            )
        self._components = components
        self._encoders: dict[str, TransformerEncoder] = components.encoders
        self._questions = questions
        self._train = train
        self._ranks = ranks or AllRanks()
        self._numbers = {example.id: number for number, example in enumerate(questions.examples)}

    def retrieve(self, examples: Sequence[Example]) -> SearchFuture:
        """Return at once: the passages are known."""
        return CompletedSearch(nothing(len(examples), 1))

    def collate(self, examples: Sequence[Example], found: SearchResult, *, epoch: int) -> RetrieverBatch:
        """Make a micro-batch of the examples' passages."""
        encoder = self._encoders["question_encoder"]
        rows = [self._numbers[example.id] for example in examples]
        passages_BP = self._questions.passages_QP[rows]
        question_ids, question_mask = encoder.question_tensors([example.question for example in examples])
        vectors_MD = self._questions.vectors_MD
        passage_ids, passage_mask = self._passage_tensors(passages_BP)
        return RetrieverBatch(
            question_ids=question_ids,
            question_mask=question_mask,
            passages_BP=torch.from_numpy(passages_BP).to(encoder.device),
            gold_BG=_padded([self._questions.gold[row] for row in rows]).to(encoder.device),
            margins_BN=torch.from_numpy(self._questions.margins_QN[rows]).to(encoder.device),
            vectors_BPD=None if vectors_MD is None else torch.from_numpy(vectors_MD[passages_BP]).to(encoder.device),
            passage_ids=passage_ids,
            passage_mask=passage_mask,
        )

    def loss(self, batch: RetrieverBatch) -> Loss:
        """Return the loss of a micro-batch, a mean over its questions."""
        question_BD, passages_BPD = self._encoded(batch)
        with torch.autocast(question_BD.device.type, enabled=False):  # inner products that differ by .001 matter
            if self._train.objective == "margin_mse":
                return self._margin_loss(batch, question_BD.float(), passages_BPD.float())
            return self._ranking_loss(batch, question_BD.float(), passages_BPD.float())

    def not_finite(self, batch: RetrieverBatch) -> str:
        """Return which encoder's vectors of a micro-batch are not finite, or ""."""
        question_BD, passages_BPD = self._encoded(batch)
        if not bool(question_BD.isfinite().all()):
            return "the question encoder's vectors are not finite"
        whose = "index's" if batch.vectors_BPD is not None else "passage encoder's"
        return "" if bool(passages_BPD.isfinite().all()) else f"the {whose} vectors are not finite"

    def _ranking_loss(self, batch: RetrieverBatch, question_BD: Tensor, passages_BPD: Tensor) -> Loss:
        num_questions, places, dim = passages_BPD.shape
        pool_MD = self._ranks.gather(passages_BPD.reshape(-1, dim))
        pool_M = self._ranks.gather(batch.passages_BP.reshape(-1))
        first = self._ranks.rank * num_questions
        positive_B = places * torch.arange(first, first + num_questions, device=pool_M.device)
        allowed_BM = (pool_M != NONE) & ~(batch.gold_BG[:, :, None] == pool_M).any(1)
        allowed_BM = allowed_BM.scatter(1, positive_B[:, None], True)
        scores_BM = self._train.score_scale * question_BD @ pool_MD.T
        value = ranking_loss(scores_BM, positive_B, allowed_BM)
        best_B = scores_BM.detach().masked_fill(~allowed_BM, -torch.inf).argmax(1)
        return Loss(value, {"in_batch_accuracy": (best_B == positive_B).float().mean()})

    def _margin_loss(self, batch: RetrieverBatch, question_BD: Tensor, passages_BPD: Tensor) -> Loss:
        scores_BP = self._train.score_scale * (passages_BPD @ question_BD[:, :, None]).squeeze(-1)
        margins_BN = batch.margins_BN
        return Loss(margin_mse_loss(scores_BP[:, 0], scores_BP[:, 1:], margins_BN.nan_to_num(), margins_BN.isfinite()))

    def _encoded(self, batch: RetrieverBatch) -> tuple[Tensor, Tensor]:
        """Return the vectors of the questions, (B, D), and of their passages, (B, P, D): zeros where there is none."""
        question_BD = self._encode(self._components.question_encoder, batch.question_ids, batch.question_mask)
        if batch.vectors_BPD is not None:
            return question_BD, batch.vectors_BPD
        known_BP = batch.passages_BP != NONE
        vectors = self._encode(self._components.passage_encoder, batch.passage_ids, batch.passage_mask)
        empty_BPD = vectors.new_zeros(*known_BP.shape, vectors.shape[-1])
        return question_BD, empty_BPD.index_put((known_BP,), vectors)

    def _encode(self, module: nn.Module | None, ids: Tensor, mask: Tensor) -> Tensor:
        """Encode some texts at a time, and again when their gradients are needed (`train.cache_batch_size`).

        The gradients of the vectors are computed once, over the whole batch, then those of the weights part by part: GradCache
        (Gao et al. 2021, arXiv:2101.06983), here as activation checkpointing, so that it works with any wrapper of the modules.
        """
        assert module is not None
        size = self._train.cache_batch_size
        if not size:
            vectors: Tensor = module(ids, mask)
            return vectors
        parts = [slice(start, start + size) for start in range(0, len(ids), size)]
        return torch.cat([checkpoint(module, ids[part], mask[part], use_reentrant=False) for part in parts])

    def _passage_tensors(self, passages_BP: np.ndarray) -> tuple[Tensor, Tensor]:
        """Tokenise the passages that are there, where a passage encoder trains."""
        encoder = self._encoders.get("passage_encoder")
        if encoder is None:
            return torch.empty(0), torch.empty(0)
        texts = [self._questions.texts[number] for number in passages_BP[passages_BP != NONE].tolist()]
        return encoder.passage_tensors(texts)


def _padded(numbers: Sequence[Sequence[int]]) -> Tensor:
    """Return lists of numbers as rows, (B, G), filled up with a number that no passage has."""
    width = max(map(len, numbers))
    return torch.tensor([[*row, *[NOBODY] * (width - len(row))] for row in numbers])
