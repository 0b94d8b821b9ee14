"""The losses of retrievers, pure. In: scores of questions and passages. Out: a loss.

B questions, M passages of all questions, N negatives, K passages of one question, L answer tokens.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from ragray.generate.engines.model import chosen


def ranking_loss(scores_BM: Tensor, positive_B: Tensor, allowed_BM: Tensor) -> Tensor:
    """Return the mean of -log softmax(scores)[positive] over the passages that are allowed (multiple negatives ranking loss).

    ``positive_B`` is the column of each question's positive. Henderson et al. 2017, arXiv:1705.00652, section 4.4, with mined
    negatives as further columns.
    """
    return F.cross_entropy(scores_BM.masked_fill(~allowed_BM, -torch.inf), positive_B)


def margin_mse_loss(positive_B: Tensor, negative_BN: Tensor, margin_BN: Tensor, known_BN: Tensor) -> Tensor:
    """Return the squared error of the margins between positive and negatives, a mean over a question's, then over the questions.

    ``margin_BN`` are the margins of the teacher, ``known_BN`` marks the negatives that there are: each question has one at least.
    Hofstätter et al. 2020, arXiv:2010.02666, equation 4.
    """
    error_BN = (positive_B[:, None] - negative_BN - margin_BN).square().masked_fill(~known_BN, 0)
    return (error_BN.sum(-1) / known_BN.sum(-1)).mean()


def perplexity_distillation_loss(doc_logp_BK: Tensor, token_logp_BKL: Tensor, temperature: float) -> Tensor:
    """Return KL(target || p(passage | question)), a mean over the questions; no gradient reaches the generator.

    The target is softmax over a question's passages of the mean log-probability of the answer's tokens, divided by ``temperature``.
    Izacard et al. 2022, arXiv:2208.03299, section 2.2 (perplexity distillation); Shi et al. 2023, arXiv:2301.12652, section 4. A
    token that is no part of an answer has log-probability zero, and is not counted; a passage without probability is left out.
    """
    absent_BK = doc_logp_BK.isneginf()
    tokens_BK = (token_logp_BKL != 0).sum(-1).clamp(min=1)
    means_BK = (token_logp_BKL.detach().sum(-1) / tokens_BK / temperature).masked_fill(absent_BK, -torch.inf)
    target_BK = means_BK.log_softmax(-1).masked_fill(absent_BK, 0)
    divergence_BK = target_BK.exp() * (target_BK - doc_logp_BK.masked_fill(absent_BK, 0))
    return divergence_BK.masked_fill(absent_BK, 0).sum(-1).mean()


@dataclass(frozen=True, slots=True)
class PerplexityDistillation:
    """`perplexity_distillation_loss` of what a generator says of labelled answers."""

    temperature: float

    def __call__(self, doc_logp_BK: Tensor, logp_BKLV: Tensor, labels_BKL: Tensor) -> Tensor:
        """Return the loss; arguments as of `ragray.train.objectives.losses.AnswerLoss`."""
        return perplexity_distillation_loss(doc_logp_BK, chosen(logp_BKLV, labels_BKL), self.temperature)
