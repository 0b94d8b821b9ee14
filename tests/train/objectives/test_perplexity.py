"""Perplexity distillation on whole models: the question encoder alone learns, from what the generator makes of each passage."""

from pathlib import Path

import pytest
import torch

from ragray.config import GenerateConfig, TrainConfig
from ragray.index.search.reader import IndexReader
from ragray.train.objectives.objective import LocalSearcher
from ragray.train.objectives.rag import RagObjective
from ragray.train.objectives.ranking_losses import PerplexityDistillation
from tests.train.rig import EXAMPLES, SETTINGS, Rig


def test_the_loss_is_that_of_the_formula_and_moves_the_question_encoder_alone(
    tiny_decoder: Path, tiny_encoder: Path, tiny_encoder_index: Path
) -> None:
    train = TrainConfig.model_validate({**SETTINGS, "generator_lr": 0})
    components = Rig(tiny_decoder, tiny_encoder, tiny_encoder_index).components(train)
    objective = RagObjective(
        components,
        components.encoders["question_encoder"],
        LocalSearcher(IndexReader.open(tiny_encoder_index)),
        k=3,
        generate=GenerateConfig(passage_temperature=0.5),
        loss=PerplexityDistillation(0.1),
    )
    found = objective.retrieve(EXAMPLES[:2]).result()
    batch = objective.collate(EXAMPLES[:2], found, epoch=0)
    assert components.generator is not None
    with torch.no_grad():
        tokens_RL = components.generator(batch.rows)
        questions_BD = components.encoders["question_encoder"].module(batch.question_ids, batch.question_mask)
    expected = 0.0
    for b in range(2):
        rows = tokens_RL[3 * b : 3 * b + 3]
        target = torch.stack([row[row != 0].mean() for row in rows]).div(0.1).softmax(0)
        p = (batch.passages_BKD[b].float() @ questions_BD[b]).div(0.5).softmax(0)
        expected += float((target * (target / p).log()).sum()) / 2
    before = objective.loss(batch).value
    assert before.item() == pytest.approx(expected, rel=1e-4)
    assert {name.partition(".")[0] for name, _ in components.trainable()} == {"question_encoder"}
    before.backward()
    with torch.no_grad():
        for _, parameter in components.trainable():
            parameter -= 0.01 * parameter.grad
    assert objective.loss(batch).value.item() < before.item()
