"""The losses of RAG, pure. In: log-probabilities of passages and of answer tokens. Out: a loss, as the paper writes it.

Lewis et al. 2020, arXiv:2005.11401, section 2.1. B questions, K passages, L answer tokens, D dim.
"""

from __future__ import annotations

from torch import Tensor


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


def doc_log_probs(question_BD: Tensor, passages_BKD: Tensor, temperature: float) -> Tensor:
    """Return log p(z | x), (B, K): softmax over the retrieved passages of their inner products, divided by ``temperature``.

    Differentiable through the question vectors (the paper's eta, with the passage encoder fixed).
    """
    scores_BK = (passages_BKD @ question_BD[:, :, None]).squeeze(-1)
    return (scores_BK / temperature).log_softmax(-1)
