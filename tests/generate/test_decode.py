"""Marginal decoding against the same mixture computed slowly, one full forward pass a token."""

from pathlib import Path

import pytest
import torch

from ragray.config import GenerateConfig
from ragray.generate.decode import Decoding, decode
from ragray.generate.generator import Generation, Prompt
from ragray.generate.model import GeneratorModel
from ragray.generate.transformer import TransformerGenerator
from ragray.types import Hit, Passage

PASSAGES = ["rome is the capital of italy.", "the nile is a river.", "paris"]
QUESTIONS = ["what is the capital?", "who?"]


@pytest.fixture(scope="module", params=["decoder", "encoder_decoder"])
def model(request: pytest.FixtureRequest, tiny_decoder: Path, tiny_encoder_decoder: Path) -> GeneratorModel:
    folder = tiny_decoder if request.param == "decoder" else tiny_encoder_decoder
    return GeneratorModel.load(folder, device="cpu")


def rows(model: GeneratorModel, question: str) -> list[list[int]]:
    encoder = model.prompt_encoder(instruction="Answer.", max_prompt_tokens=200)
    return [encoder.ids(question, Passage(text, text)) for text in PASSAGES]


def next_log_probs(model: GeneratorModel, prompt: list[int], written: list[int]) -> torch.Tensor:
    """Return log p(next token | prompt, written), (V,), with one unpadded forward pass and no cache."""
    with torch.no_grad():
        if model.is_encoder_decoder:
            start = model.model.config.decoder_start_token_id
            out = model.model(input_ids=torch.tensor([prompt]), decoder_input_ids=torch.tensor([[start, *written]]))
        else:
            out = model.model(input_ids=torch.tensor([[*prompt, *written]]))
    return out.logits[0, -1].log_softmax(-1)


def slow_decode(
    model: GeneratorModel, prompts: list[list[int]], prior: torch.Tensor, steps: int, sequence: bool
) -> Decoding:
    """Write the mixture from its formula: weights p(z | x), times the probability of what z has written so far."""
    joint = prior.clone()
    answer = Decoding()
    for _ in range(steps):
        each_KV = torch.stack([next_log_probs(model, prompt, answer.token_ids) for prompt in prompts])
        weights_K = joint.log_softmax(-1) if sequence else prior
        mixture_V = torch.log((weights_K.exp()[:, None] * each_KV.exp()).sum(0))
        token = int(mixture_V.argmax())
        answer.log_prob += float(mixture_V[token])
        joint = joint + each_KV[:, token]
        answer.weights = joint.softmax(-1).tolist()
        if token in model.stop_ids():
            break
        answer.token_ids.append(token)
    return answer


@pytest.mark.parametrize("sequence", [True, False])
def test_batched_cached_decoding_equals_the_mixture_computed_slowly(model: GeneratorModel, sequence: bool) -> None:
    prior = torch.log_softmax(torch.tensor([[2.0, 1.0, 0.0], [0.0, 0.5, 0.2]]), -1)
    prompts = [rows(model, question) for question in QUESTIONS]
    *_, fast = decode(model, prompts, prior, max_new_tokens=8, update_posterior=sequence)
    for number, answer in enumerate(fast):
        slow = slow_decode(model, prompts[number], prior[number], 8, sequence)
        assert answer.token_ids == slow.token_ids
        assert answer.log_prob == pytest.approx(slow.log_prob, abs=1e-3)
        assert answer.weights == pytest.approx(slow.weights, abs=1e-3)


def test_the_log_probability_is_that_of_the_whole_answer_under_the_sequence_mixture(model: GeneratorModel) -> None:
    """Chain rule: the steps' probabilities multiply to sum_z p(z|x) prod_i p(y_i | x, z, y_<i)."""
    prior = torch.log_softmax(torch.tensor([[1.0, 0.0, 0.5]]), -1)
    prompts = rows(model, QUESTIONS[0])
    *_, [answer] = decode(model, [prompts], prior, max_new_tokens=6, update_posterior=True)
    written = answer.token_ids if not answer.finished else [*answer.token_ids, 2]
    total = torch.stack(
        [
            prior[0, z] + sum(next_log_probs(model, prompt, written[:i])[token] for i, token in enumerate(written))
            for z, prompt in enumerate(prompts)
        ]
    )
    assert answer.log_prob == pytest.approx(float(total.logsumexp(0)), abs=1e-3)


def test_a_question_is_answered_alike_alone_and_in_a_batch(model: GeneratorModel) -> None:
    generator = TransformerGenerator(model, GenerateConfig(max_new_tokens=8, batch_size=4))
    prompts = [Prompt(q, tuple(Hit(Passage(t, t), 1.0 / (n + 1)) for n, t in enumerate(PASSAGES))) for q in QUESTIONS]
    prompts.append(Prompt(QUESTIONS[0]))
    together = generator.generate(prompts)
    for prompt, answer in zip(prompts, together, strict=True):
        [alone] = generator.generate([prompt])
        assert alone.text == answer.text
        assert alone.log_prob == pytest.approx(answer.log_prob, abs=1e-3)


def test_a_stream_writes_the_answer_that_generate_returns(model: GeneratorModel) -> None:
    generator = TransformerGenerator(model, GenerateConfig(max_new_tokens=12))
    prompt = Prompt(QUESTIONS[0], tuple(Hit(Passage(t, t), 0.5) for t in PASSAGES))
    *pieces, last = generator.stream(prompt)
    assert isinstance(last, Generation)
    assert last == generator.generate([prompt])[0]
    assert "".join(str(piece) for piece in pieces).strip() == last.text


def test_closed_book_answers_have_no_weights(model: GeneratorModel) -> None:
    [answer] = TransformerGenerator(model, GenerateConfig(max_new_tokens=3)).generate([Prompt("who?")])
    assert answer.weights == ()
