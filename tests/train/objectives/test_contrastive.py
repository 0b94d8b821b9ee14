"""Retriever training: against slow loops, two ranks against one, resumed against uninterrupted, in parts against at once."""

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch

from ragray.embed.transformer import TransformerEncoder
from ragray.errors import TrainingError
from ragray.index.search.result import nothing
from ragray.train.components import Components
from ragray.train.loop import StepMetrics, TrainLoop
from ragray.train.mined import MinedQuestions, held_out
from ragray.train.objectives.contrastive import ContrastiveObjective, RetrieverBatch
from tests.train.retriever_rig import QUESTIONS, TEXTS, RetrieverRig, triples
from tests.train.rig import Ranks


@pytest.fixture(scope="module")
def rig(tiny_encoder: Path) -> RetrieverRig:
    return RetrieverRig(tiny_encoder)


def batch_of(objective: ContrastiveObjective, mined: Sequence[object]) -> RetrieverBatch:
    examples = MinedQuestions.of(mined).examples  # type: ignore[arg-type]
    return objective.collate(examples, nothing(len(examples), 1), epoch=0)


def score(encoder: TransformerEncoder, question: str, passage: int) -> float:
    """The inner product times 20, of vectors that are encoded alone; the passage's as an index holds it."""
    vector = encoder.encode([TEXTS[f"p{passage}"]])[0].astype(np.float16).astype(np.float32)
    return 20 * float(encoder.encode_questions([question])[0] @ vector)


def test_the_loss_counts_all_passages_of_the_batch_but_those_that_answer_the_question(rig: RetrieverRig) -> None:
    """Question 0 and 1 have one positive; passage 3 answers question 2 too, and is a negative of question 0."""
    mined = [triples(0, 0, 3), triples(1, 0, 4), triples(2, 1, 5, 6, gold=(3,))]
    _, objective = rig.objective(mined)
    pools = [(0, [0, 3, 4, 1, 5, 6]), (0, [0, 3, 4, 1, 5, 6]), (1, [0, 0, 4, 1, 5, 6])]
    encoder, expected = rig.load(), 0.0
    for [first, *_], (positive, pool) in zip(mined, pools, strict=True):
        total = sum(math.exp(score(encoder, first.question, passage)) for passage in pool)
        expected -= math.log(math.exp(score(encoder, first.question, positive)) / total) / 3
    loss = objective.loss(batch_of(objective, mined))
    assert loss.value.item() == pytest.approx(expected, rel=1e-4)
    assert 0 <= loss.metrics["in_batch_accuracy"].item() <= 1


def test_the_margins_learnt_are_those_of_the_reranker(rig: RetrieverRig) -> None:
    mined = [triples(0, 0, 3), triples(2, 1, 5, 6)]
    _, objective = rig.objective(mined, objective="margin_mse")
    encoder, expected = rig.load(), 0.0
    for lines in mined:
        for triple in lines:
            positive, negative = (
                score(encoder, triple.question, int(name[1:])) for name in (triple.positive_id, triple.negative_id)
            )
            expected += (positive - negative - triple.score) ** 2 / len(lines) / 2
    assert objective.loss(batch_of(objective, mined)).value.item() == pytest.approx(expected, rel=1e-4)


def losses(ranks: Ranks) -> list[float]:
    return [sum(step.loss for step in row) / len(row) for row in zip(*ranks.run(), strict=True)]


def weights(loop: TrainLoop[RetrieverBatch]) -> dict[str, torch.Tensor]:
    return {name: parameter.detach().clone() for name, parameter in loop.components.trainable()}


@pytest.mark.parametrize(
    ("objective", "passage_encoder"), [("contrastive", False), ("contrastive", True), ("margin_mse", True)]
)
def test_two_ranks_equal_one_with_the_doubled_batch(rig: RetrieverRig, objective: str, passage_encoder: bool) -> None:
    """Ten questions in steps of four: the last step of an epoch is filled up."""
    settings = {"objective": objective, "passage_encoder": passage_encoder}
    one, two = rig.ranks(1, batch_size=4, **settings), rig.ranks(2, batch_size=2, **settings)
    assert losses(two) == pytest.approx(losses(one), rel=1e-3)
    for name, value in weights(one.loops[0]).items():
        torch.testing.assert_close(weights(two.loops[0])[name], value, rtol=0, atol=2e-3)


def run(loop: TrainLoop[RetrieverBatch]) -> list[StepMetrics]:
    steps: list[StepMetrics] = []
    loop.run(steps.append)
    return steps


def test_a_resumed_run_equals_an_uninterrupted_one(rig: RetrieverRig, tmp_path: Path) -> None:
    whole, begun = rig.loop(passage_encoder=True), rig.ranks(1, passage_encoder=True)
    expected = [step.loss for step in run(whole)]
    begun.run(stop_at=4, folder=tmp_path)
    resumed = rig.loop(passage_encoder=True)
    resumed.restore(tmp_path)
    assert [step.loss for step in run(resumed)] == expected[4:]
    for name, value in weights(whole).items():
        assert torch.equal(weights(resumed)[name], value)


def test_training_finds_the_positives(rig: RetrieverRig) -> None:
    steps = run(rig.loop(epochs=12, batch_size=10, encoder_lr=5e-3))
    assert steps[-1].loss < 0.7 * steps[0].loss
    assert steps[-1].metrics["in_batch_accuracy"] > steps[0].metrics["in_batch_accuracy"]


def gradients(components: Components, objective: ContrastiveObjective) -> list[torch.Tensor]:
    objective.loss(batch_of(objective, QUESTIONS)).value.backward()
    return [parameter.grad for _, parameter in components.trainable() if parameter.grad is not None]


def test_a_batch_that_is_encoded_in_parts_has_the_gradients_of_the_whole(rig: RetrieverRig) -> None:
    at_once = gradients(*rig.objective(passage_encoder=True))
    in_parts = gradients(*rig.objective(passage_encoder=True, cache_batch_size=3))
    assert len(at_once) == len(in_parts) > 0
    for mine, theirs in zip(in_parts, at_once, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-4, atol=1e-6)


def test_what_cannot_be_trained_is_refused_with_what_to_do(rig: RetrieverRig) -> None:
    without_scores = [[triple.model_copy(update={"score": None}) for triple in triples(0, 0, 3)]]
    with pytest.raises(TrainingError, match=r"mine them with retrieve\.rerank_model"):
        rig.objective(without_scores, objective="margin_mse")
    with pytest.raises(TrainingError, match="nothing to train"):
        rig.objective(encoder_lr=0)


def test_a_loss_that_is_not_finite_is_traced_to_its_component(rig: RetrieverRig) -> None:
    components, objective = rig.objective()
    batch = batch_of(objective, QUESTIONS)
    assert objective.not_finite(batch) == ""
    with torch.no_grad():
        next(components.parameters()).fill_(float("nan"))
    assert objective.not_finite(batch) == "the question encoder's vectors are not finite"


def test_questions_of_one_positive_are_held_out_together() -> None:
    train, dev = held_out(QUESTIONS, 0.3, seed=0)
    assert sorted(train + dev) == list(range(10))
    assert len(dev) == 4
    assert not {QUESTIONS[n][0].positive_id for n in train} & {QUESTIONS[n][0].positive_id for n in dev}
    assert held_out(QUESTIONS, 0.3, seed=0) == (train, dev) != held_out(QUESTIONS, 0.3, seed=1)
    assert held_out(QUESTIONS, 0, seed=0) == (list(range(10)), [])
