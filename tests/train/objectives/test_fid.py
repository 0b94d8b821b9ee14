"""Fusion-in-Decoder against a plain reference: each passage encoded alone without padding, the states laid end to end."""

from dataclasses import dataclass
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
from ragray.train.objectives.fid import FidBatch, FidObjective
from ragray.train.objectives.objective import LocalSearcher
from ragray.train.schedule import Rank
from ragray.types import Example, Hit, Passage
from tests.train.rig import Averaged, Meeting, Ranks

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
    loss = fid.loss(fid.collate(EXAMPLES, found, epoch=0))
    assert loss.metrics["tokens"] == num_tokens
    assert loss.value.item() == pytest.approx(total / len(EXAMPLES), rel=1e-5)


def test_label_smoothing_spreads_a_share_of_the_loss_over_the_vocabulary(
    tiny_encoder_decoder: Path, tiny_encoder: Path, tiny_encoder_index: Path
) -> None:
    plain = objective(tiny_encoder_decoder, tiny_encoder, tiny_encoder_index, TrainConfig())
    smooth = objective(tiny_encoder_decoder, tiny_encoder, tiny_encoder_index, TrainConfig(), label_smoothing=0.2)
    batch = plain.collate(EXAMPLES, plain.retrieve(EXAMPLES).result(), epoch=0)
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


SETTINGS = {"batch_size": 2, "max_steps": 3, "epochs": 9, "generator_lr": 1e-2}
SEVEN = [Example(str(n), f"what is the colour of number {n}?", ("red" if n % 2 else "deep blue",)) for n in range(7)]


@dataclass(frozen=True)
class Loops:
    """Makes loops that begin with the same weights."""

    generator: Path
    encoder: Path
    index: Path

    def loop(self, *, rank: Rank | None = None, meeting: Meeting | None = None, **changes: int) -> TrainLoop[FidBatch]:
        train = TrainConfig.model_validate({**SETTINGS, **changes})
        fid = objective(self.generator, self.encoder, self.index, train)
        components = Components(train, generator=fid._generator)
        parallel = Averaged(components, meeting, rank.rank) if meeting and rank else None
        return TrainLoop(components, fid, SEVEN, train=train, rank=rank, parallel=parallel)


@pytest.fixture
def loops(tiny_encoder_decoder: Path, tiny_encoder: Path, tiny_encoder_index: Path) -> Loops:
    return Loops(tiny_encoder_decoder, tiny_encoder, tiny_encoder_index)


def run(loop: TrainLoop[FidBatch], folder: Path | None = None) -> list[float]:
    """Return the losses of the steps; with a folder the first step leaves a checkpoint there."""
    losses: list[float] = []

    def on_step(step: StepMetrics) -> None:
        losses.append(step.loss)
        if folder and step.step == 1:
            loop.save(folder)

    loop.run(on_step)
    return losses


def test_a_resumed_run_equals_an_uninterrupted_one_and_learns(loops: Loops, tmp_path: Path) -> None:
    whole = run(loops.loop(), tmp_path)
    assert len(whole) == 3 and whole[-1] < whole[0]
    resumed = loops.loop()
    resumed.restore(tmp_path)
    assert run(resumed) == whole[1:]


def test_two_ranks_equal_one_with_the_doubled_batch_also_where_the_last_is_filled_up(loops: Loops) -> None:
    meeting = Meeting(2)
    ranks = [loops.loop(rank=Rank(number, 2), meeting=meeting) for number in range(2)]
    steps = Ranks(ranks).run()
    one = loops.loop(batch_size=4)
    alone = run(one)
    both = [(left.loss + right.loss) / 2 for left, right in zip(*steps, strict=True)]
    assert both == pytest.approx(alone, rel=1e-4)
    for (name, mine), (_, theirs) in zip(ranks[0].components.trainable(), one.components.trainable(), strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-3, atol=1e-5, msg=name)


def test_a_decoder_only_model_is_refused(tiny_decoder: Path, tiny_encoder: Path, tiny_encoder_index: Path) -> None:
    with pytest.raises(ConfigError, match=r"generate\.strategy=fid needs an encoder-decoder"):
        objective(tiny_decoder, tiny_encoder, tiny_encoder_index, TrainConfig())
