"""The training loop, without Ray: resumed equals uninterrupted, accumulated equals large, and it learns."""

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from ragray.config import GenerateConfig
from ragray.embed.encoder import Vectors
from ragray.errors import CorruptArtifactError, TrainingError
from ragray.generate.engines.model import GeneratorModel
from ragray.index.search.reader import IndexReader
from ragray.index.search.result import SearchResult
from ragray.train.components import Components
from ragray.train.loop import StepMetrics, TrainLoop
from ragray.train.objectives.objective import CompletedSearch, LocalSearcher, SearchFuture
from ragray.train.objectives.rag import RagBatch
from tests.train.rig import Rig


@pytest.fixture(scope="module")
def rig(tiny_decoder: Path, tiny_encoder: Path, tiny_encoder_index: Path) -> Rig:
    return Rig(tiny_decoder, tiny_encoder, tiny_encoder_index)


def run(loop: TrainLoop[RagBatch]) -> list[StepMetrics]:
    steps: list[StepMetrics] = []
    loop.run(steps.append)
    return steps


def weights(loop: TrainLoop[RagBatch]) -> dict[str, torch.Tensor]:
    return {name: parameter.detach().clone() for name, parameter in loop.components.trainable()}


def assert_same(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor], **tolerance: float) -> None:
    assert first.keys() == second.keys()
    for name in first:
        torch.testing.assert_close(first[name], second[name], rtol=0, **{"atol": 0.0, **tolerance})


def test_training_lowers_the_loss_and_changes_both_models(rig: Rig) -> None:
    loop = rig.loop(max_steps=30)
    before = weights(loop)
    losses = [step.loss for step in run(loop)]
    assert sum(losses[-5:]) < 0.5 * sum(losses[:5])
    changed = {name.split(".")[0] for name, value in weights(loop).items() if not torch.equal(value, before[name])}
    assert changed == {"question_encoder", "generator"}


@pytest.mark.parametrize(("objective", "tune"), [("loop", "full"), ("loop", "lora"), ("together", "full")])
def test_a_resumed_run_equals_an_uninterrupted_one_bit_by_bit(
    rig: Rig, tmp_path: Path, objective: str, tune: str
) -> None:
    """With adapters too: their random beginning is of no account, the checkpoint holds them."""
    make = getattr(rig, objective)
    whole = make(tune=tune)
    uninterrupted = run(whole)

    class KilledError(Exception):
        pass

    first = make(tune=tune)

    def save_then_die(step: StepMetrics) -> None:
        if step.step == 3:
            first.save(tmp_path)
        if step.step == 4:
            raise KilledError

    with pytest.raises(KilledError):
        first.run(save_then_die)
    second = make(tune=tune)
    spoil_adapters(second)
    second.restore(tmp_path)
    resumed = run(second)
    assert [step.loss for step in resumed] == [step.loss for step in uninterrupted[3:]]
    assert_same(weights(second), weights(whole))


def spoil_adapters(loop: TrainLoop[RagBatch]) -> None:
    with torch.no_grad():
        for name, parameter in loop.components.trainable():
            if "lora_" in name:
                parameter.fill_(7.0)


def test_accumulated_micro_batches_equal_one_large_batch(rig: Rig) -> None:
    large, small = rig.loop(batch_size=4), rig.loop(batch_size=2, gradient_accumulation=2)
    for one, other in zip(run(large), run(small), strict=True):
        assert one.loss == pytest.approx(other.loss, rel=1e-4)
        assert one.grad_norm == pytest.approx(other.grad_norm, rel=1e-3)


def test_the_next_batch_is_retrieved_before_the_current_step_computes(rig: Rig) -> None:
    """When step t takes its passages, the search for step t + 1 has not begun; when it ends, it has."""
    events: list[str] = []
    inner = LocalSearcher(IndexReader.open(rig.index))

    class Recording:
        def submit(self, vectors_ND: object, k: int) -> SearchFuture:
            events.append("search")
            return inner.submit(vectors_ND, k)  # type: ignore[arg-type] # passed on as it came

    loop = rig.loop(Recording(), max_steps=3)
    loop.run(lambda step: events.append(f"step {step.step}"))
    assert events == ["search", "search", "step 1", "search", "step 2", "step 3"]


@pytest.mark.parametrize(
    ("settings", "trained"),
    [
        ({"generator_lr": 0}, {"question_encoder"}),
        ({"encoder_lr": 0}, {"generator"}),
        ({"tune": "last", "last_layers": 1}, {"question_encoder", "generator"}),
        ({"tune": "lora", "lora_rank": 2}, {"question_encoder", "generator"}),
    ],
)
def test_settings_decide_what_is_trained(rig: Rig, settings: dict[str, object], trained: set[str]) -> None:
    loop = rig.loop(max_steps=2, **settings)
    frozen = {n: p.detach().clone() for n, p in loop.components.named_parameters() if not p.requires_grad}
    assert {name.split(".")[0] for name, _ in loop.components.trainable()} == trained
    run(loop)
    assert all(torch.equal(p, frozen[n]) for n, p in loop.components.named_parameters() if n in frozen)


def test_last_layers_leave_the_first_layers_alone(rig: Rig) -> None:
    names = [
        name for name, _ in rig.loop(tune="last", last_layers=1).components.trainable() if name.startswith("generator")
    ]
    assert any(".layers.1." in name for name in names)
    assert not any(".layers.0." in name or "embed_tokens" in name for name in names)


def test_nothing_to_train_is_refused(rig: Rig) -> None:
    with pytest.raises(TrainingError, match="nothing to train"):
        rig.loop(generator_lr=0, encoder_lr=0)


def test_a_checkpoint_of_other_trainable_weights_is_refused(rig: Rig, tmp_path: Path) -> None:
    lora = rig.loop(tune="lora", max_steps=1)
    lora.run(lambda _: lora.save(tmp_path))
    with pytest.raises(CorruptArtifactError, match="other train settings"):
        rig.loop(max_steps=1).restore(tmp_path)


def test_fewer_passages_than_k_train_too(rig: Rig) -> None:
    """Where the index is too small, the missing passages are closed-book prompts with the score of a zero vector."""
    reader = IndexReader.open(rig.index)

    class OnlyOne:
        def submit(self, vectors_ND: object, k: int) -> SearchFuture:
            found = reader.search(vectors_ND, k, with_vectors=True)  # type: ignore[arg-type] # passed on as it came
            found.rows_NK[:, 1:] = -1
            found.vectors_NKD[:, 1:] = 0
            return CompletedSearch(
                SearchResult(found.rows_NK, found.scores_NK, found.vectors_NKD, [h[:1] for h in found.hits])
            )

    assert all(math.isfinite(step.loss) for step in run(rig.loop(OnlyOne(), max_steps=2)))


@pytest.mark.parametrize("tune", ["full", "lora"])
def test_a_saved_model_answers_as_the_trained_one(rig: Rig, tmp_path: Path, tune: str) -> None:
    loop = rig.loop(tune=tune, max_steps=2)
    run(loop)
    generator = loop.components.generator.eval()
    prompts = generator.prompt_template(GenerateConfig(instruction="x", max_prompt_tokens=50))
    batch = generator.answer_batch([prompts.ids("who?", None)], [prompts.answer_ids("red", 8)])
    with torch.no_grad():
        expected = generator(batch)
        loop.components.save(tmp_path)
        torch.testing.assert_close(GeneratorModel.load(tmp_path / "generator", device="cpu")(batch), expected)


def test_an_encoder_decoder_trains_and_its_saved_model_answers_as_the_trained_one(
    tiny_encoder_decoder: Path, tiny_encoder: Path, tiny_encoder_index: Path, tmp_path: Path
) -> None:
    loop = Rig(tiny_encoder_decoder, tiny_encoder, tiny_encoder_index).loop(max_steps=30)
    before = weights(loop)
    losses = [step.loss for step in run(loop)]
    assert sum(losses[-5:]) < 0.5 * sum(losses[:5])
    changed = {name.split(".")[0] for name, value in weights(loop).items() if not torch.equal(value, before[name])}
    assert changed == {"question_encoder", "generator"}
    generator = loop.components.eval().generator
    assert generator is not None
    prompts = generator.prompt_template(GenerateConfig())
    batch = generator.answer_batch([prompts.ids("who?", None)], [prompts.answer_ids("red", 8)])
    with torch.no_grad():
        expected = generator(batch)
        loop.components.save(tmp_path)
        saved = GeneratorModel.load(tmp_path / "generator", device="cpu")
        assert saved.is_encoder_decoder
        torch.testing.assert_close(saved(batch), expected)


def test_marginalize_token_trains_too(rig: Rig) -> None:
    sequence, token = run(rig.loop(max_steps=1)), run(rig.loop(max_steps=30, marginalize="token"))
    assert token[0].loss != sequence[0].loss
    assert sum(step.loss for step in token[-5:]) < 0.5 * sum(step.loss for step in token[:5])


def test_a_loss_that_is_not_finite_stops_before_the_update_and_names_step_and_component(
    rig: Rig, tmp_path: Path
) -> None:
    class Damaged(LocalSearcher):
        """Returns vectors of NaN from the fourth search on."""

        searches = 0

        def submit(self, vectors_ND: Vectors, k: int) -> SearchFuture:
            type(self).searches += 1
            found = super().submit(vectors_ND, k).result()
            return CompletedSearch(replace(found, vectors_NKD=found.vectors_NKD * (np.nan if self.searches > 3 else 1)))

    loop = rig.loop(Damaged(IndexReader.open(rig.index)))
    steps: list[StepMetrics] = []

    def on_step(metrics: StepMetrics) -> None:
        steps.append(metrics)
        if metrics.step == 2:
            loop.save(tmp_path)

    with pytest.raises(
        TrainingError, match=r"step 4 of 6: the loss is nan.*index's vectors.*checkpoint is that of step 2"
    ):
        loop.run(on_step)
    assert [step.step for step in steps] == [1, 2, 3]
    assert not loop.components.weight_not_finite()


def test_a_model_with_a_damaged_weight_is_not_trained(rig: Rig) -> None:
    loop = rig.loop(encoder_lr=0)
    with torch.no_grad():
        loop.components.generator.model.model.layers[0].mlp.down_proj.weight[0, 0] = float("nan")
    with pytest.raises(TrainingError, match=r"step 1 .*generator's weight '.*down_proj.weight'.*no checkpoint"):
        run(loop)


def test_weights_that_the_last_update_spoils_are_found(rig: Rig) -> None:
    loop = rig.loop(max_steps=1)
    step = loop.optimizer.step

    def spoil() -> None:
        step()
        loop.components.generator.model.model.norm.weight.data.fill_(3e38)

    loop.optimizer.step = spoil  # type: ignore[assignment,method-assign] # a step that goes wrong
    with pytest.raises(TrainingError, match=r"step 1 of 1: the loss after the last update is (nan|inf)"):
        run(loop)


def test_weights_that_are_not_finite_are_never_checkpointed(rig: Rig, tmp_path: Path) -> None:
    loop = rig.loop()
    with torch.no_grad():
        loop.components.generator.model.model.embed_tokens.weight[0, 0] = float("inf")
    with pytest.raises(TrainingError, match="embed_tokens"):
        loop.save(tmp_path)
    assert not list(tmp_path.iterdir())


def test_batches_that_are_made_ahead_change_nothing(rig: Rig) -> None:
    """As on a GPU, where the next step's batches are made while it computes."""

    class Aside(Components):
        computes_aside = True

    plain, ahead = rig.loop(), rig.loop()
    ahead.components.__class__ = Aside
    expected, found = run(plain), run(ahead)
    assert [(step.loss, step.grad_norm, step.metrics) for step in found] == [
        (step.loss, step.grad_norm, step.metrics) for step in expected
    ]
    assert_same(weights(ahead), weights(plain))
