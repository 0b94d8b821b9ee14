"""Components: any may be absent; what is there is trained and saved. And an objective that the loop knows nothing of."""

from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from torch import Tensor

from ragray.config import EncoderConfig, TrainConfig
from ragray.embed.transformer import TransformerEncoder
from ragray.index.search.result import SearchResult, nothing
from ragray.train.components import Components
from ragray.train.loop import StepMetrics, TrainLoop
from ragray.train.objectives.objective import CompletedSearch, Loss, SearchFuture
from ragray.types import Example

EXAMPLES = [Example(str(n), f"number {n}?", ("red",)) for n in range(6)]
TRAIN = TrainConfig(batch_size=2, gradient_accumulation=2, max_steps=4, epochs=9, encoder_lr=3e-4)


class TwoEncoders:
    """Draws the vectors of question and passage encoder together; retrieves nothing, writes nothing."""

    def __init__(self, components: Components) -> None:
        self.components = components

    def retrieve(self, examples: Sequence[Example]) -> SearchFuture:
        return CompletedSearch(nothing(len(examples), 0))

    def collate(self, examples: Sequence[Example], found: SearchResult, *, epoch: int) -> tuple[Tensor, Tensor]:
        assert len(found.hits) == len(examples)
        return self.components.encoders["question_encoder"].question_tensors([example.question for example in examples])

    def loss(self, batch: tuple[Tensor, Tensor]) -> Loss:
        assert self.components.question_encoder is not None and self.components.passage_encoder is not None
        distance = (self.components.question_encoder(*batch) - self.components.passage_encoder(*batch)).square().mean()
        return Loss(distance, {"size": torch.tensor(float(len(batch[0])))})

    def not_finite(self, batch: tuple[Tensor, Tensor]) -> str:
        return ""


@pytest.fixture
def components(tiny_encoder: Path) -> Components:
    config = EncoderConfig(model=str(tiny_encoder), max_length=64)
    question, passage = (TransformerEncoder.load(config, device="cpu") for _ in range(2))
    with torch.no_grad():
        passage.module.model.embeddings.word_embeddings.weight.mul_(2)  # type: ignore[operator,union-attr] # of any model
    return Components(TRAIN, question_encoder=question, passage_encoder=passage)


def run(components: Components, folder: Path | None = None, stop_at: int = 0) -> list[StepMetrics]:
    steps: list[StepMetrics] = []
    loop = TrainLoop(components, TwoEncoders(components), EXAMPLES, train=TRAIN)

    def on_step(step: StepMetrics) -> None:
        steps.append(step)
        if folder and step.step == stop_at:
            loop.save(folder)

    if folder and not stop_at:
        loop.restore(folder)
    loop.run(on_step)
    return steps


def test_the_loop_trains_any_objective_over_any_components_and_reports_its_metrics(components: Components) -> None:
    steps = run(components)
    assert len(steps) == 4 and steps[-1].loss < steps[0].loss
    assert [dict(step.metrics) for step in steps] == [{"size": 2.0}] * 4


def test_a_resumed_run_of_any_objective_equals_an_uninterrupted_one(
    components: Components, tiny_encoder: Path, tmp_path: Path
) -> None:
    whole = run(components, tmp_path, stop_at=2)
    assert [step.loss for step in run(components, tmp_path)] == [step.loss for step in whole[2:]]


def test_what_is_there_is_saved_and_nothing_else(components: Components, tmp_path: Path) -> None:
    components.save(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["passage_encoder", "question_encoder"]
    config = EncoderConfig(model=str(tmp_path / "passage_encoder"), max_length=64)
    loaded = TransformerEncoder.load(config, device="cpu").module.state_dict()
    for name, value in components.encoders["passage_encoder"].module.state_dict().items():
        assert torch.equal(value, loaded[name])
    assert {group["peak_lr"] for group in components.parameter_groups()} == {TRAIN.encoder_lr}


# What trains.


def encoders(folder: Path, **settings: object) -> Components:
    config = EncoderConfig(model=str(folder), max_length=64)
    train = TrainConfig.model_validate(settings)
    return Components(train, question_encoder=TransformerEncoder.load(config, device="cpu"))


@pytest.mark.parametrize(
    ("settings", "trained", "frozen"),
    [
        ({}, ("embeddings", "layer.0.", "layer.1."), ("pooler",)),
        ({"encoder_tune": "last", "encoder_last_layers": 1}, ("layer.1.",), ("embeddings", "layer.0.", "pooler")),
        ({"encoder_tune": "lora", "lora_rank": 2}, ("lora_A", "lora_B"), ("base_layer", "embeddings", "pooler")),
    ],
)
def test_the_question_encoder_trains_whole_in_its_last_layers_or_by_adapters(
    settings: dict[str, object], trained: tuple[str, ...], frozen: tuple[str, ...], tiny_encoder: Path
) -> None:
    names = [name for name, _ in encoders(tiny_encoder, **settings).trainable()]
    assert all(any(part in name for name in names) for part in trained)
    assert not [name for name in names if any(part in name for part in frozen)]


def test_adapters_of_the_question_encoder_are_merged_where_it_is_saved(tiny_encoder: Path, tmp_path: Path) -> None:
    components = encoders(tiny_encoder, encoder_tune="lora")
    for name, parameter in components.trainable():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter)
    encoder = components.encoders["question_encoder"]
    before, changed = TransformerEncoder.load(encoder.config, device="cpu").encode(["a cat"]), encoder.encode(["a cat"])
    components.save(tmp_path)
    loaded = TransformerEncoder.load(
        EncoderConfig(model=str(tmp_path / "question_encoder"), max_length=64), device="cpu"
    )
    assert loaded.encode(["a cat"]) == pytest.approx(changed, abs=1e-5)
    assert loaded.encode(["a cat"]) != pytest.approx(before, abs=1e-2)


@pytest.mark.parametrize("tune", ["full", "lora"])
def test_checkpointed_gradients_are_those_of_a_plain_backward_pass(tune: str, tiny_encoder: Path) -> None:
    found = []
    for checkpointing in (False, True):
        torch.manual_seed(0)
        components = encoders(tiny_encoder, gradient_checkpointing=checkpointing, encoder_tune=tune).train()
        batch = components.encoders["question_encoder"].question_tensors(["one", "two?"])
        assert components.question_encoder is not None
        components.question_encoder(*batch)[:, 0].sum().backward()
        found.append([p.grad for _, p in components.trainable()])
    assert len(found[0]) > 3
    for plain, again in zip(*found, strict=True):
        torch.testing.assert_close(plain, again)


def test_the_forward_pass_computes_in_the_type_that_is_set(tiny_encoder: Path) -> None:
    for precision, expected in (("auto", torch.float32), ("float32", torch.float32), ("bfloat16", torch.bfloat16)):
        components = encoders(tiny_encoder, precision=precision)
        with components.autocast():
            assert torch.mm(torch.eye(2), torch.eye(2)).dtype == expected
