"""The objective `reader` on whole models, against a slow loop over questions, passages and tokens."""

import math
from pathlib import Path

import pytest

from ragray.config import GenerateConfig, TrainConfig
from ragray.errors import TrainingError
from ragray.index.search.reader import IndexReader
from ragray.train.components import Components
from ragray.train.objectives.draw import draw_apart
from ragray.train.objectives.objective import LocalSearcher
from ragray.train.objectives.reader import ReaderBatch, ReaderObjective
from ragray.types import Example, Passage
from tests.train.objectives.test_rag import token_probability
from tests.train.rig import SETTINGS, Rig

EXAMPLES = [Example("a", "what is red?", ("blood",), ("p1",)), Example("b", "and what is blue?", ("the sky",), ("p2",))]
GOLD = {"a": (Passage("p1", "a gem is red as blood"),), "b": (Passage("p2", "clear water and the sky are blue"),)}
GENERATE = GenerateConfig(instruction="Say it.", max_new_tokens=40)


def made(
    generator: Path, encoder: Path, index: Path, *, gold: dict[str, tuple[Passage, ...]] = GOLD, **changes: object
) -> tuple[Components, ReaderObjective]:
    train = TrainConfig.model_validate({**SETTINGS, "objective": "reader", **changes})
    components = Rig(generator, encoder, index).components(train)
    searcher = LocalSearcher(IndexReader.open(index))
    encoding = components.encoders["question_encoder"]
    return components, ReaderObjective(components, encoding, searcher, k=4, generate=GENERATE, train=train, gold=gold)


def collated(objective: ReaderObjective, epoch: int = 0) -> ReaderBatch:
    return objective.collate(EXAMPLES, objective.retrieve(EXAMPLES).result(), epoch=epoch)


@pytest.mark.parametrize("kind", ["decoder", "encoder_decoder"])
def test_the_loss_of_whole_models_equals_a_slow_loop(
    kind: str, tiny_encoder: Path, tiny_encoder_index: Path, request: pytest.FixtureRequest
) -> None:
    """The mean over the questions of -log p(answer | gold) - sum of log p(end | wrong); prompts are those of serving."""
    tiny = request.getfixturevalue(f"tiny_{kind}")
    components, objective = made(tiny, tiny_encoder, tiny_encoder_index, distractors=2)
    generator = components.generator
    assert generator is not None
    prompts = generator.prompt_template(GENERATE)
    found, total = objective.retrieve(EXAMPLES).result(), 0.0
    for example, hits in zip(EXAMPLES, found.hits, strict=True):
        passages = [hit.passage for hit in hits]
        right, wrong = draw_apart(example, passages, GOLD[example.id], config=TrainConfig(distractors=2), epoch=0)
        assert right in GOLD[example.id]
        assert len(wrong) == 2
        read = [
            (right, prompts.answer_ids(example.answers[0], 40)),
            *((each, [prompts.tokenizer.eos_token_id]) for each in wrong),
        ]
        for passage, answer in read:
            prompt = prompts.ids(example.question, passage)
            total -= sum(math.log(token_probability(generator, prompt, answer, n)) for n in range(len(answer)))
    assert objective.loss(collated(objective)).value.item() == pytest.approx(total / len(EXAMPLES), rel=1e-4)


def test_the_log_tells_of_gold_and_counts_tokens(
    tiny_decoder: Path, tiny_encoder: Path, tiny_encoder_index: Path
) -> None:
    _, objective = made(tiny_decoder, tiny_encoder, tiny_encoder_index, distractors=1)
    batch = collated(objective)
    metrics = objective.loss(batch).metrics
    assert {name: float(value) for name, value in metrics.items()} == {
        "gold": 1.0, "recall": 0.0, "tokens": float(batch.rows["attention_mask"].sum())
    }  # fmt: skip


def test_an_example_without_a_gold_passage_teaches_silence(
    tiny_decoder: Path, tiny_encoder: Path, tiny_encoder_index: Path
) -> None:
    _, objective = made(tiny_decoder, tiny_encoder, tiny_encoder_index, gold={}, distractors=0)
    labels = collated(objective).rows["labels"]
    assert labels.tolist() == [[objective._prompts.tokenizer.eos_token_id]] * 2


def test_components_without_a_generator_are_refused(
    tiny_decoder: Path, tiny_encoder: Path, tiny_encoder_index: Path
) -> None:
    components, objective = made(tiny_decoder, tiny_encoder, tiny_encoder_index)
    encoder = components.encoders["question_encoder"]
    alone = Components(TrainConfig(), question_encoder=encoder)
    with pytest.raises(TrainingError, match="trains a generator"):
        ReaderObjective(alone, encoder, objective._searcher, k=2, generate=GENERATE, train=TrainConfig(), gold={})
