"""RAG-Sequence and RAG-Token against slow loops written from the paper's formulas."""

import math
from pathlib import Path

import pytest
import torch

from ragray.config import GenerateConfig
from ragray.generate.engines.model import GeneratorModel
from ragray.train.objectives.losses import doc_log_probs, rag_sequence_loss, rag_token_loss


def test_the_loss_equals_a_slow_loop_over_passages_and_tokens() -> None:
    torch.manual_seed(0)
    scores = torch.randn(3, 4)
    tokens = -torch.rand(3, 4, 5)
    expected = 0.0
    for b in range(3):
        total_exp = sum(math.exp(scores[b, z]) for z in range(4))
        p_y = 0.0
        for z in range(4):
            p_z = math.exp(scores[b, z]) / total_exp
            for i in range(5):
                p_z *= math.exp(tokens[b, z, i])
            p_y += p_z
        expected -= math.log(p_y) / 3
    loss = rag_sequence_loss(scores.log_softmax(-1), tokens)
    assert float(loss) == pytest.approx(expected, rel=1e-5)


def test_the_token_loss_equals_a_slow_loop_over_tokens_and_passages() -> None:
    """An answer that has ended, with zeros, adds nothing."""
    torch.manual_seed(0)
    scores, tokens = torch.randn(3, 4), -torch.rand(3, 4, 5)
    tokens[1, :, 3:] = 0
    expected = 0.0
    for b in range(3):
        total_exp = sum(math.exp(scores[b, z]) for z in range(4))
        for i in range(3 if b == 1 else 5):
            expected -= math.log(sum(math.exp(scores[b, z] + tokens[b, z, i]) for z in range(4)) / total_exp) / 3
    assert float(rag_token_loss(scores.log_softmax(-1), tokens)) == pytest.approx(expected, rel=1e-5)


def test_sequence_and_token_loss_are_one_where_there_is_one_passage() -> None:
    tokens = -torch.rand(3, 1, 5)
    certain = torch.zeros(3, 1)
    torch.testing.assert_close(rag_token_loss(certain, tokens), rag_sequence_loss(certain, tokens))


def test_passage_probabilities_are_a_softmax_of_inner_products() -> None:
    question = torch.tensor([[1.0, 2.0]])
    passages = torch.tensor([[[1.0, 0.0], [0.0, 1.0]]])
    found = doc_log_probs(question, passages, temperature=0.5).exp()
    assert found[0].tolist() == pytest.approx([1 / (1 + math.e**2), math.e**2 / (1 + math.e**2)], rel=1e-5)


def test_the_loss_moves_the_question_towards_the_passage_that_explains_the_answer() -> None:
    question = torch.zeros(1, 2, requires_grad=True)
    passages = torch.tensor([[[1.0, 0.0], [0.0, 1.0]]])
    tokens = torch.tensor([[[-0.1], [-5.0]]])
    rag_sequence_loss(doc_log_probs(question, passages, 1.0), tokens).backward()
    assert question.grad is not None
    assert question.grad[0, 0] < 0 < question.grad[0, 1]


@pytest.mark.parametrize("kind", ["decoder", "encoder_decoder"])
def test_token_log_probabilities_equal_unpadded_single_passes(
    kind: str, tiny_decoder: Path, tiny_encoder_decoder: Path
) -> None:
    model = GeneratorModel.load(tiny_decoder if kind == "decoder" else tiny_encoder_decoder, device="cpu")
    encoder = model.prompt_template(GenerateConfig(max_prompt_tokens=320))
    prompts = [encoder.ids("who was it?", None), encoder.ids("x?", None)]
    answers = [encoder.answer_ids("rome", 8), encoder.answer_ids("the nile", 12)]
    with torch.no_grad():
        together = model(model.answer_batch(prompts, answers))
        for row, (prompt, answer) in enumerate(zip(prompts, answers, strict=True)):
            if model.is_encoder_decoder:
                decoder_ids = torch.tensor([[model.model.config.decoder_start_token_id, *answer[:-1]]])
                logits = model.model(input_ids=torch.tensor([prompt]), decoder_input_ids=decoder_ids).logits[0]
            else:
                logits = model.model(input_ids=torch.tensor([[*prompt, *answer]])).logits[0, len(prompt) - 1 : -1]
            alone = sum(float(logits.log_softmax(-1)[i, token]) for i, token in enumerate(answer))
            assert float(together[row].sum()) == pytest.approx(alone, abs=1e-3)
