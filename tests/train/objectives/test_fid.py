"""Fusion-in-Decoder against a plain reference: each passage encoded alone without padding, the states laid end to end."""

from pathlib import Path

import pytest
import torch
from transformers.modeling_outputs import BaseModelOutput

from ragray.config import EncoderConfig, GenerateConfig, TrainConfig
from ragray.embed.transformer import TransformerEncoder
from ragray.errors import ConfigError
from ragray.generate.engine import GenerationRequest
from ragray.generate.engines.model import GeneratorModel
from ragray.generate.engines.transformer import TransformerGenerator
from ragray.index.search.reader import IndexReader
from ragray.train.components import Components
from ragray.train.loop import StepMetrics, TrainLoop
from ragray.train.objectives.fid import FidObjective
from ragray.train.objectives.objective import LocalSearcher
from ragray.types import Example, Hit, Passage

EXAMPLES = [Example("a", "what is green?", ("grass",)), Example("b", "and what is never still?", ("the open sea",))]
FID = GenerateConfig(strategy="fid", max_new_tokens=8)
PASSAGES = (
    Passage("1", "grass is green, mostly in spring.", "grass"),
    Passage("2", "the sea moves."),
    Passage("3", "x"),
)


def next_logits(model: GeneratorModel, prompts: list[list[int]], before: list[int]) -> torch.Tensor:
    """Return the logits of the token after ``before``, from the encoded prompts laid end to end."""
    states = [model.model.get_encoder()(input_ids=torch.tensor([prompt])).last_hidden_state for prompt in prompts]
    fused = BaseModelOutput(last_hidden_state=torch.cat(states, dim=1))
    start = model.model.config.decoder_start_token_id
    logits: torch.Tensor = model.model(encoder_outputs=fused, decoder_input_ids=torch.tensor([[start, *before]])).logits
    return logits[0, -1]


def objective(generator: Path, encoder: Path, index: Path, train: TrainConfig, **changes: float) -> FidObjective:
    components = Components(train, generator=GeneratorModel.load(generator, device="cpu"))
    asked = TransformerEncoder.load(EncoderConfig(model=str(encoder), max_length=64), device="cpu")
    return FidObjective(components, asked, LocalSearcher(IndexReader.open(index)), k=3, generate=FID, **changes)


@pytest.mark.parametrize("kind", ["encoder_decoder", "bart"])
def test_the_loss_equals_a_plain_reference(
    kind: str, tiny_encoder: Path, tiny_encoder_index: Path, request: pytest.FixtureRequest
) -> None:
    fid = objective(request.getfixturevalue(f"tiny_{kind}"), tiny_encoder, tiny_encoder_index, TrainConfig())
    found = fid.retrieve(EXAMPLES).result()
    model = fid._generator
    template, total, num_tokens = model.prompt_template(FID), 0.0, 0
    with torch.no_grad():
        for number, example in enumerate(EXAMPLES):
            prompts = [template.ids(example.question, hit.passage) for hit in found.hits[number]]
            answer = template.answer_ids(example.answers[0], 8)
            assert len(prompts) == 3
            num_tokens += sum(map(len, prompts)) + len(answer)
            for place, token in enumerate(answer):
                total -= float(next_logits(model, prompts, answer[:place]).log_softmax(-1)[token])
    loss = fid.loss(fid.collate(EXAMPLES, found))
    assert loss.metrics["tokens"] == num_tokens
    assert loss.value.item() == pytest.approx(total / len(EXAMPLES), rel=1e-5)


def test_label_smoothing_spreads_a_share_of_the_loss_over_the_vocabulary(
    tiny_encoder_decoder: Path, tiny_encoder: Path, tiny_encoder_index: Path
) -> None:
    plain = objective(tiny_encoder_decoder, tiny_encoder, tiny_encoder_index, TrainConfig())
    smooth = objective(tiny_encoder_decoder, tiny_encoder, tiny_encoder_index, TrainConfig(), label_smoothing=0.2)
    batch = plain.collate(EXAMPLES, plain.retrieve(EXAMPLES).result())
    logp = plain._generator.log_probs(batch.rows, fused=batch.sizes)
    answered = batch.rows["labels"] != -100
    everywhere = -(logp.mean(-1) * answered).sum(-1).mean()
    expected = 0.8 * plain.loss(batch).value + 0.2 * everywhere
    torch.testing.assert_close(smooth.loss(batch).value, expected)


@pytest.mark.parametrize("kind", ["encoder_decoder", "bart"])
def test_answers_equal_a_plain_reference_alone_and_side_by_side(kind: str, request: pytest.FixtureRequest) -> None:
    """Questions of one, three and no passages share a batch."""
    model = GeneratorModel.load(request.getfixturevalue(f"tiny_{kind}"), device="cpu")
    generator = TransformerGenerator(model, FID)
    hits = tuple(Hit(passage, 1.0, dense=0.01 * n) for n, passage in enumerate(PASSAGES))
    requests = [
        GenerationRequest("what is green?", hits),
        GenerationRequest("who?"),
        GenerationRequest("why?", hits[:1]),
    ]
    for request_, answer in zip(requests, generator.generate(requests), strict=True):
        passages = [hit.passage for hit in request_.hits] or [None]
        prompts = [generator.template.ids(request_.question, passage) for passage in passages]
        tokens: list[int] = []
        with torch.no_grad():
            while (
                len(tokens) < 8 and (token := int(next_logits(model, prompts, tokens).argmax())) not in model.stop_ids()
            ):
                tokens.append(token)
        assert answer.text == generator.template.codec.decode(tokens).strip()
        assert len(answer.weights) == len(request_.hits)
        assert not answer.weights or sum(answer.weights) == pytest.approx(1)


def test_training_lowers_the_loss_and_leaves_the_retriever_alone(
    tiny_encoder_decoder: Path, tiny_encoder: Path, tiny_encoder_index: Path
) -> None:
    train = TrainConfig(batch_size=2, epochs=4, generator_lr=1e-2)
    fid = objective(tiny_encoder_decoder, tiny_encoder, tiny_encoder_index, train)
    components = Components(train, generator=fid._generator)
    steps: list[StepMetrics] = []
    TrainLoop(components, fid, EXAMPLES, train=train).run(steps.append)
    assert steps[-1].loss < steps[0].loss


def test_a_decoder_only_model_is_refused(tiny_decoder: Path, tiny_encoder: Path, tiny_encoder_index: Path) -> None:
    with pytest.raises(ConfigError, match=r"generate\.strategy=fid needs an encoder-decoder"):
        objective(tiny_decoder, tiny_encoder, tiny_encoder_index, TrainConfig())
