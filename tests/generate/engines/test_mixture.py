"""Marginal decoding against the same mixture computed slowly, one full forward pass a token."""

from collections.abc import Sequence
from pathlib import Path

import pytest
import torch

from ragray.config import GenerateConfig
from ragray.errors import InputError, ModelError
from ragray.generate.engine import Generation, GenerationRequest, Submission
from ragray.generate.engines.mixture import MixtureBatch, MixtureRequest, SequenceState
from ragray.generate.engines.model import GeneratorModel
from ragray.generate.engines.transformer import TransformerGenerator
from ragray.generate.strategy import WeightedPrompts
from ragray.types import Hit, Passage

PASSAGES = ["rome is the capital of italy.", "the nile is a river.", "paris"]
QUESTIONS = ["what is the capital?", "who?"]


@pytest.fixture(scope="module", params=["decoder", "encoder_decoder", "bart"])
def model(request: pytest.FixtureRequest) -> GeneratorModel:
    return GeneratorModel.load(request.getfixturevalue(f"tiny_{request.param}"), device="cpu")


def rows(model: GeneratorModel, question: str, passages: Sequence[str] = PASSAGES) -> list[list[int]]:
    encoder = model.prompt_template(GenerateConfig(instruction="Answer.", max_prompt_tokens=200))
    return [encoder.ids(question, Passage(text, text)) for text in passages]


def decode(
    model: GeneratorModel, prompts: list[list[list[int]]], prior_BK: torch.Tensor, steps: int, sequence: bool = True
) -> list[SequenceState]:
    batch = MixtureBatch(model, update_posterior=sequence)
    weighted = [WeightedPrompts(rows, prior) for rows, prior in zip(prompts, prior_BK.tolist(), strict=True)]
    batch.add({number: MixtureRequest(each, steps) for number, each in enumerate(weighted)})
    done: dict[int, SequenceState] = {}
    while len(batch):
        done.update(batch.step())
    return [done[number] for number in range(len(prompts))]


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
) -> SequenceState:
    """Write the mixture from its formula: weights p(z | x), times the probability of what z has written so far."""
    joint = prior.clone()
    answer = SequenceState()
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
    for number, answer in enumerate(decode(model, prompts, prior, 8, sequence)):
        slow = slow_decode(model, prompts[number], prior[number], 8, sequence)
        assert answer.token_ids == slow.token_ids
        assert answer.log_prob == pytest.approx(slow.log_prob, abs=1e-3)
        assert answer.weights == pytest.approx(slow.weights, abs=1e-3)


def test_the_log_probability_is_that_of_the_whole_answer_under_the_sequence_mixture(model: GeneratorModel) -> None:
    """Chain rule: the steps' probabilities multiply to sum_z p(z|x) prod_i p(y_i | x, z, y_<i)."""
    prior = torch.log_softmax(torch.tensor([[1.0, 0.0, 0.5]]), -1)
    prompts = rows(model, QUESTIONS[0])
    [answer] = decode(model, [prompts], prior, 6)
    written = answer.token_ids if answer.finish_reason == "length" else [*answer.token_ids, 2]
    total = torch.stack(
        [
            prior[0, z] + sum(next_log_probs(model, prompt, written[:i])[token] for i, token in enumerate(written))
            for z, prompt in enumerate(prompts)
        ]
    )
    assert answer.log_prob == pytest.approx(float(total.logsumexp(0)), abs=1e-3)


def test_a_question_is_answered_alike_alone_and_in_a_batch(model: GeneratorModel) -> None:
    generator = TransformerGenerator(model, GenerateConfig(max_new_tokens=8, batch_size=4))
    prompts = [
        GenerationRequest(q, tuple(Hit(Passage(t, t), 1.0 / (n + 1)) for n, t in enumerate(PASSAGES)))
        for q in QUESTIONS
    ]
    prompts.append(GenerationRequest(QUESTIONS[0]))
    together = generator.generate(prompts)
    for prompt, answer in zip(prompts, together, strict=True):
        [alone] = generator.generate([prompt])
        assert alone.text == answer.text
        assert alone.log_prob == pytest.approx(answer.log_prob, abs=1e-3)


def test_a_stream_writes_the_answer_that_generate_returns(model: GeneratorModel) -> None:
    generator = TransformerGenerator(model, GenerateConfig(max_new_tokens=12))
    prompt = GenerationRequest(QUESTIONS[0], tuple(Hit(Passage(t, t), 0.5) for t in PASSAGES))
    *pieces, last = generator.stream(prompt)
    assert isinstance(last, Generation)
    [whole] = generator.generate([prompt])
    assert (last.text, last.finish_reason) == (whole.text, whole.finish_reason)
    assert last.weights == pytest.approx(whole.weights, abs=1e-5)
    assert "".join(str(piece) for piece in pieces).strip() == last.text


def test_closed_book_answers_have_no_weights(model: GeneratorModel) -> None:
    [answer] = TransformerGenerator(model, GenerateConfig(max_new_tokens=3)).generate([GenerationRequest("who?")])
    assert answer.weights == ()


def hits(*texts: str) -> tuple[Hit, ...]:
    return tuple(Hit(Passage(text, text), 1.0 / (number + 1)) for number, text in enumerate(texts))


def test_questions_that_join_and_leave_between_two_tokens_are_answered_as_alone(tiny_decoder: Path) -> None:
    generator = TransformerGenerator(GeneratorModel.load(tiny_decoder, device="cpu"), GenerateConfig(max_new_tokens=12))
    prompts = {
        0: GenerationRequest("what is the capital?", hits(*PASSAGES)),
        1: GenerationRequest("who?", hits("x " * 40)),
        2: GenerationRequest("where is the river that is so long?", hits("the nile is a river.", "rome")),
        3: GenerationRequest("why?"),
    }
    alone = {key: generator.generate([prompt])[0] for key, prompt in prompts.items()}
    batch = generator.open_runner()
    done: dict[int, Generation] = {}
    joins = {0: 0, 2: 1, 3: 2, 5: 3}  # at which step which question joins; question 1 leaves at step 4
    for step in range(30):
        if step in joins:
            batch.add({joins[step]: Submission(prompts[joins[step]])})
        if step == 4:
            batch.remove(1)
        done.update({key: piece for key, piece in batch.step() if isinstance(piece, Generation)})
    assert done.keys() == {0, 2, 3}
    assert not len(batch)
    for key, answer in done.items():
        assert answer.text == alone[key].text
        assert answer.log_prob == pytest.approx(alone[key].log_prob, abs=1e-3)
        assert answer.weights == pytest.approx(alone[key].weights, abs=1e-3)


def test_a_batch_of_an_encoder_decoder_takes_no_further_questions_while_it_runs(tiny_encoder_decoder: Path) -> None:
    generator = TransformerGenerator(GeneratorModel.load(tiny_encoder_decoder, device="cpu"), GenerateConfig())
    batch = generator.open_runner()
    assert (batch.max_running, batch.joinable) == (8, True)
    batch.add({0: Submission(GenerationRequest("who?"))})
    assert not batch.joinable
    batch.remove(0)
    assert batch.joinable


def test_a_question_that_is_too_long_does_not_join_and_leaves_the_batch_as_it_was(tiny_decoder: Path) -> None:
    generator = TransformerGenerator(GeneratorModel.load(tiny_decoder, device="cpu"), GenerateConfig(max_new_tokens=5))
    batch = generator.open_runner()
    batch.add({0: Submission(GenerationRequest("who?"))})
    refused = batch.add({1: Submission(GenerationRequest("y" * 600))})
    assert list(refused) == [1]
    with pytest.raises(InputError, match=r"512 .*generate\.max_new_tokens=5|generate\.max_prompt_tokens"):
        raise refused[1]
    assert len(batch) == 1
    pieces = [piece for _ in range(5) for key, piece in batch.step() if key == 0]
    assert pieces[-1] == generator.generate([GenerationRequest("who?")])[0]


def test_an_answer_says_whether_it_ended_or_was_cut(tiny_decoder: Path) -> None:
    model = GeneratorModel.load(tiny_decoder, device="cpu")
    generator = TransformerGenerator(model, GenerateConfig(max_new_tokens=4))
    [cut] = generator.generate([GenerationRequest("who?")])
    [written] = decode(model, [[generator.template.ids("who?", None)]], torch.zeros(1, 1), 4)
    model.model.generation_config.eos_token_id = written.token_ids[2]
    [ended] = generator.generate([GenerationRequest("who?")])
    assert (cut.finish_reason, ended.finish_reason) == ("length", "stop")
    assert cut.text.startswith(ended.text)


def test_a_model_whose_output_is_not_finite_says_which_weight_is_damaged(tiny_decoder: Path) -> None:
    model = GeneratorModel.load(tiny_decoder, device="cpu")
    with torch.no_grad():
        model.model.model.layers[1].mlp.down_proj.weight[0, 0] = float("nan")
    with pytest.raises(ModelError, match=r"layers\.1\.mlp\.down_proj\.weight"):
        TransformerGenerator(model, GenerateConfig()).generate([GenerationRequest("who?")])
