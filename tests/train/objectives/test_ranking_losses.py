"""The losses of retrievers against slow loops written from the formulas, and against sentence-transformers'."""

import math
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from ragray.train.objectives.ranking_losses import margin_mse_loss, perplexity_distillation_loss, ranking_loss

SCALE = 20.0


def vectors(*shape: int) -> Tensor:
    return F.normalize(torch.randn(*shape, generator=torch.Generator().manual_seed(sum(shape))), dim=-1)


def scores_of(question_BD: Tensor, passages_BPD: Tensor) -> Tensor:
    """Scores of every question with the passages of all, the positive first of each question's."""
    return SCALE * question_BD @ passages_BPD.reshape(-1, passages_BPD.shape[-1]).T


def everything(scores_BM: Tensor) -> Tensor:
    return torch.ones_like(scores_BM, dtype=torch.bool)


def test_the_ranking_loss_equals_a_slow_loop_over_the_passages_that_are_allowed() -> None:
    scores, allowed = 3 * torch.randn(3, 6), torch.ones(3, 6, dtype=torch.bool)
    allowed[0, 4] = allowed[2, 0] = allowed[2, 1] = False
    positive = [0, 2, 4]
    expected = 0.0
    for b in range(3):
        total = sum(math.exp(scores[b, m]) for m in range(6) if allowed[b, m])
        expected -= math.log(math.exp(scores[b, positive[b]]) / total) / 3
    assert float(ranking_loss(scores, torch.tensor(positive), allowed)) == pytest.approx(expected, rel=1e-5)


def test_the_margin_loss_equals_a_slow_loop_over_the_negatives_that_are_there() -> None:
    positive, negatives, margins = torch.randn(2), torch.randn(2, 3), torch.randn(2, 3)
    known = torch.tensor([[True, True, True], [True, False, False]])
    expected = 0.0
    for b, there in enumerate([3, 1]):
        for n in range(there):
            expected += float(positive[b] - negatives[b, n] - margins[b, n]) ** 2 / there / 2
    assert float(margin_mse_loss(positive, negatives, margins, known)) == pytest.approx(expected, rel=1e-5)


def test_perplexity_distillation_equals_a_slow_loop_and_leaves_the_reader_alone() -> None:
    scores = torch.randn(2, 3, requires_grad=True)
    tokens = (-torch.rand(2, 3, 4)).requires_grad_()
    padded = tokens * torch.tensor([[[1.0, 1, 1, 1]], [[1.0, 1, 0, 0]]])
    expected = 0.0
    for b, length in enumerate([4, 2]):
        read = [sum(tokens.detach()[b, k, :length].tolist()) / length / 0.1 for k in range(3)]
        target = [math.exp(one) / sum(map(math.exp, read)) for one in read]
        p = scores.detach()[b].softmax(0).tolist()
        expected += sum(t * math.log(t / q) for t, q in zip(target, p, strict=True)) / 2
    loss = perplexity_distillation_loss(scores.log_softmax(-1), padded, 0.1)
    assert loss.item() == pytest.approx(expected, rel=1e-5)
    loss.backward()
    assert tokens.grad is None
    assert scores.grad is not None


class Precomputed(torch.nn.Module):
    """Stands where sentence-transformers expects a model: its features are the vectors already."""

    def forward(self, features: dict[str, Tensor]) -> dict[str, Tensor]:
        return {"sentence_embedding": features["vectors"]}


def of_sentence_transformers(name: str, columns: list[Tensor], labels: Tensor | None, **options: Any) -> float:
    from sentence_transformers.sentence_transformer import losses  # seconds, which collecting the tests need not take

    model: Any = Precomputed()
    loss = getattr(losses, name)(model, **options)
    return float(loss([{"vectors": column} for column in columns], labels))


@pytest.mark.parametrize("num_negatives", [0, 3])
def test_the_ranking_loss_is_that_of_sentence_transformers(num_negatives: int) -> None:
    question, passages = vectors(5, 8), vectors(5, 1 + num_negatives, 8)
    scores = scores_of(question, passages)
    mine = ranking_loss(scores, (1 + num_negatives) * torch.arange(5), everything(scores))
    columns = [question, *passages.unbind(1)]
    theirs = of_sentence_transformers("MultipleNegativesRankingLoss", columns, None, scale=SCALE)
    assert float(mine) == pytest.approx(theirs, abs=1e-6)


def test_the_margin_loss_is_that_of_sentence_transformers() -> None:
    question, passages, margins = vectors(5, 8), vectors(5, 3, 8), torch.rand(5, 2)
    scores = (passages @ question[:, :, None]).squeeze(-1)
    mine = margin_mse_loss(scores[:, 0], scores[:, 1:], margins, everything(margins))
    theirs = of_sentence_transformers("MarginMSELoss", [question, *passages.unbind(1)], margins)
    assert float(mine) == pytest.approx(theirs, abs=1e-6)
