"""The objective of `together` on whole models, against a slow loop over questions and tokens; what a prompt's answer is."""

import math
from pathlib import Path

import pytest

from ragray.config import GenerateConfig, TrainConfig
from ragray.errors import TrainingError
from ragray.index.search.reader import IndexReader
from ragray.train.components import Components
from ragray.train.objectives.draw import Drawn
from ragray.train.objectives.objective import LocalSearcher
from ragray.train.objectives.together import TogetherBatch, TogetherObjective, target
from ragray.types import Example, Passage
from tests.train.objectives.test_rag import token_probability
from tests.train.rig import SETTINGS, Rig

EXAMPLES = [Example("a", "what is red?", ("blood",), ("p1",)), Example("b", "and what is blue?", ("the sky",), ("p2",))]
P1, P2 = Passage("p1", "a gem is red as blood"), Passage("p2", "clear water and the sky are blue")
GOLD = {"a": (P1,), "b": (P2,)}


def made(
    generator: Path, encoder: Path, index: Path, *, gold: dict[str, tuple[Passage, ...]] = GOLD, **changes: object
) -> tuple[Components, TogetherObjective]:
    train = TrainConfig.model_validate({**SETTINGS, "min_k": 2, **changes})
    components = Rig(generator, encoder, index).components(train)
    objective = TogetherObjective(
        components, components.encoders["question_encoder"], LocalSearcher(IndexReader.open(index)), k=2, train=train,
        generate=GenerateConfig(strategy="together", instruction="Say it.", max_new_tokens=40), gold=gold,
    )  # fmt: skip
    return components, objective


def collated(objective: TogetherObjective) -> TogetherBatch:
    return objective.collate(EXAMPLES, objective.retrieve(EXAMPLES).result(), epoch=0)


@pytest.mark.parametrize("kind", ["decoder", "encoder_decoder"])
@pytest.mark.parametrize(("gold_share", "cite"), [(1, True), (1, False), (0, True)])
def test_the_loss_of_whole_models_equals_a_slow_loop(
    kind: str,
    gold_share: float,
    cite: bool,
    tiny_encoder: Path,
    tiny_encoder_index: Path,
    request: pytest.FixtureRequest,
) -> None:
    """The mean over the questions of -log p(answer | prompt), one probability at a time; prompts are those of serving."""
    tiny = request.getfixturevalue(f"tiny_{kind}")
    components, objective = made(
        tiny, tiny_encoder, tiny_encoder_index, gold_share=gold_share, cite=cite, shuffle=False, unanswerable="no idea"
    )
    generator = components.generator
    assert generator is not None
    prompts = generator.prompt_template(GenerateConfig(strategy="together", instruction="Say it.", max_new_tokens=40))
    questions = [example.question for example in EXAMPLES]
    found = IndexReader.open(tiny_encoder_index).search(
        components.encoders["question_encoder"].encode_questions(questions), 5
    )
    total = 0.0
    for example, hits in zip(EXAMPLES, found.hits, strict=True):
        others = [hit.passage for hit in hits if hit.passage.id not in example.gold_ids]
        gold = GOLD[example.id][0]
        ranks = [hit.passage.id for hit in hits]
        passages = [others[0], gold] if gold_share else others[:2]
        if gold_share and gold.id in ranks and ranks.index(gold.id) == 0:
            passages.reverse()
        said = f"{example.answers[0]}{f' [{passages.index(gold) + 1}]' if cite else ''}" if gold_share else "no idea"
        answer = prompts.answer_ids(said, 40)
        row, num_read = prompts.numbered_ids(example.question, passages)
        assert num_read == 2
        total -= sum(math.log(token_probability(generator, row, answer, place)) for place in range(len(answer)))
    assert objective.loss(collated(objective)).value.item() == pytest.approx(total / len(EXAMPLES), rel=1e-4)


def test_the_log_tells_how_many_prompts_held_gold(
    tiny_decoder: Path, tiny_encoder: Path, tiny_encoder_index: Path
) -> None:
    _, objective = made(tiny_decoder, tiny_encoder, tiny_encoder_index, gold_share=1)
    metrics = objective.loss(collated(objective)).metrics
    assert metrics["gold"].item() == 1
    assert set(metrics) == {"gold", "recall"}


def test_distractors_that_do_not_fit_beside_gold_are_left_out(
    tiny_decoder: Path, tiny_encoder: Path, tiny_encoder_index: Path
) -> None:
    """The tiny tokenizer makes a token of every letter, and the window has 512."""
    long = Passage("p1", f"{'so it goes on and on ' * 15}until blood")
    _, objective = made(tiny_decoder, tiny_encoder, tiny_encoder_index, gold={"a": (long,), "b": (long,)}, gold_share=1)
    rows = collated(objective).rows["input_ids"]
    tokenizer = objective._prompts.tokenizer
    assert all("until blood" in tokenizer.decode(row) for row in rows)


def test_the_answer_is_the_first_accepted_one_cited_or_that_it_is_not_there() -> None:
    example = Example("a", "what?", ("blood", "gore"))
    with_gold, without = Drawn((P2, P1), 1), Drawn((P2,), None)
    default = TrainConfig()
    assert target(example, with_gold, default) == "blood [2]"
    assert target(example, with_gold, TrainConfig(cite=False)) == "blood"
    assert target(example, without, default) == default.unanswerable
    assert target(example, without, TrainConfig(unanswerable="")) == "blood"


def test_components_without_a_generator_are_refused(
    tiny_decoder: Path, tiny_encoder: Path, tiny_encoder_index: Path
) -> None:
    components, objective = made(tiny_decoder, tiny_encoder, tiny_encoder_index)
    encoder = components.encoders["question_encoder"]
    alone = Components(TrainConfig(), question_encoder=encoder)
    with pytest.raises(TrainingError, match="trains a generator"):
        TogetherObjective(
            alone, encoder, objective._searcher, k=2, generate=GenerateConfig(), train=TrainConfig(), gold={}
        )


def test_passages_fit_exactly_where_the_end_of_the_last_stands_in_the_prompt(
    tiny_decoder: Path, tiny_encoder: Path, tiny_encoder_index: Path
) -> None:
    prompts = made(tiny_decoder, tiny_encoder, tiny_encoder_index)[1]._prompts
    fitting = []
    for length in range(150, 250):
        passages = [Passage("a", "so it is. " * 14), Passage("b", f"{'x' * length}end")]
        ids, num_read = prompts.numbered_ids("what?", passages)
        fitting.append(prompts.fits("what?", passages))
        assert fitting[-1] == (num_read == 2 and "xend" in prompts.tokenizer.decode(ids))
    assert set(fitting) == {True, False}
