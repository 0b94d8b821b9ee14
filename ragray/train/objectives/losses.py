"""The losses of RAG, pure. In: log-probabilities of passages and of answer tokens. Out: a loss, as the paper writes it.

Lewis et al. 2020, arXiv:2005.11401, section 2.1. B questions, K passages, L answer tokens, V vocabulary, D dim.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from torch import Tensor

from ragray.generate.engines.model import IGNORE, chosen


def rag_sequence_loss(doc_logp_BK: Tensor, token_logp_BKL: Tensor) -> Tensor:
    """Return the mean of -log p(y | x), with p(y | x) = sum_z p(z | x) prod_l p(y_l | x, z, y_<l).

    ``doc_logp_BK`` is log p(z | x), normalised over the K retrieved passages; ``token_logp_BKL`` is zero where an answer has
    ended.
    """
    return -(doc_logp_BK + token_logp_BKL.sum(-1)).logsumexp(-1).mean()


def rag_token_loss(doc_logp_BK: Tensor, token_logp_BKL: Tensor) -> Tensor:
    """Return the mean of -log p(y | x), with p(y | x) = prod_l sum_z p(z | x) p(y_l | x, z, y_<l).

    Arguments as in `rag_sequence_loss`. A token that is no part of an answer has log-probability zero with every passage,
    so that its factor is sum_z p(z | x) = 1.
    """
    return -(doc_logp_BK[:, :, None] + token_logp_BKL).logsumexp(1).sum(-1).mean()


def sequence_smoothing(doc_logp_BK: Tensor, logp_BKLV: Tensor, answered_BL: Tensor) -> Tensor:
    """Return the label smoothing of RAG-Sequence as `transformers` defines it, a mean over the questions.

    It is -log sum_z p(z | x)^V prod_l prod_v p(v | x, z, y_<l) over the tokens l that are part of the answer: the loss that the
    whole vocabulary would have at once (`RagSequenceForGeneration.get_nll`).
    """
    logp_BK = (logp_BKLV.sum(-1) * answered_BL[:, None]).sum(-1)
    return -(logp_BKLV.shape[-1] * doc_logp_BK + logp_BK).logsumexp(-1).mean()


def token_smoothing(doc_logp_BK: Tensor, logp_BKLV: Tensor, answered_BL: Tensor) -> Tensor:
    """Return the label smoothing of RAG-Token as `transformers` defines it, a mean over the questions.

    It is -sum_l sum_v log sum_z p(z | x) p(v | x, z, y_<l) (`RagTokenForGeneration.get_nll`).
    """
    mixture_BL = (doc_logp_BK[:, :, None, None] + logp_BKLV).logsumexp(1).sum(-1)
    return -(mixture_BL * answered_BL).sum(-1).mean()


def smoothed(loss: Tensor, smoothing: Tensor, share: float, vocabulary: int) -> Tensor:
    """Return a loss of which a ``share`` is spread evenly over the vocabulary: (1 - share) loss + share / V smoothing."""
    return (1 - share) * loss + share / vocabulary * smoothing


@dataclass(frozen=True, slots=True)
class AnswerLoss:
    """The loss of answers given their passages: RAG-Sequence's or RAG-Token's, of which ``smoothing`` is label smoothing."""

    marginalize: str
    smoothing: float = 0.0

    def __call__(self, doc_logp_BK: Tensor, logp_BKLV: Tensor, labels_BKL: Tensor) -> Tensor:
        """Return the mean over the questions; the K rows of a question have the same labels."""
        of_sequences = self.marginalize == "sequence"
        loss = (rag_sequence_loss if of_sequences else rag_token_loss)(doc_logp_BK, chosen(logp_BKLV, labels_BKL))
        if not self.smoothing:
            return loss
        smooth = (sequence_smoothing if of_sequences else token_smoothing)(
            doc_logp_BK, logp_BKLV, labels_BKL[:, 0] != IGNORE
        )
        return smoothed(loss, smooth, self.smoothing, logp_BKLV.shape[-1])


def doc_log_probs(
    question_BD: Tensor, passages_BKD: Tensor, temperature: float, absent_BK: Tensor | None = None
) -> Tensor:
    """Return log p(z | x), (B, K): softmax over the retrieved passages of their inner products, divided by ``temperature``.

    Differentiable through the question vectors (the paper's eta, with the passage encoder fixed). Passages that are
    ``absent`` have no probability, as in `normalised`.
    """
    scores_BK = (passages_BKD @ question_BD[:, :, None]).squeeze(-1)
    return normalised(scores_BK / temperature, absent_BK)


def normalised(scores_BK: Tensor, absent_BK: Tensor | None) -> Tensor:
    """Return the logarithm of the softmax over the passages that are there; over all where a question has none."""
    if absent_BK is not None:
        left_out_BK = absent_BK & ~absent_BK.all(-1, keepdim=True)
        scores_BK = scores_BK.masked_fill(left_out_BK, -math.inf)
    return scores_BK.log_softmax(-1)
