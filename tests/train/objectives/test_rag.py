"""The objective RAG on whole models, against a slow loop over questions, passages and tokens."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch

from ragray.config import EncoderConfig, GenerateConfig, TrainConfig
from ragray.errors import TrainingError
from ragray.generate.engines.model import GeneratorModel
from ragray.index.search.reader import IndexReader
from ragray.train.components import Components
from ragray.train.objectives.objective import LocalSearcher
from ragray.train.objectives.rag import RagObjective
from ragray.types import Example, Passage
from tests import helpers
from tests.train.rig import SETTINGS, Rig

EXAMPLES = [Example("a", "what is red?", ("blood",)), Example("b", "and what is blue, if anything?", ("the sky",))]


def token_probability(generator: GeneratorModel, prompt: list[int], answer: list[int], place: int) -> float:
    """p(y_l | prompt, y_<l) in a pass of its own, without padding."""
    before = answer[:place]
    with torch.no_grad():
        if generator.is_encoder_decoder:
            start = generator.model.config.decoder_start_token_id
            decoder_ids = torch.tensor([[start, *before]])
            logits = generator.model(input_ids=torch.tensor([prompt]), decoder_input_ids=decoder_ids).logits
        else:
            logits = generator.model(input_ids=torch.tensor([[*prompt, *before]])).logits
    return float(logits[0, -1].double().softmax(-1)[answer[place]])


def slow_loss(components: Components, index: Path, marginalize: str) -> float:
    """Lewis et al. 2020, section 2.1, one probability at a time."""
    generator, encoder = components.generator, components.encoders["question_encoder"]
    assert generator is not None
    prompts = generator.prompt_template(GenerateConfig())
    found = IndexReader.open(index).search(
        encoder.encode_questions([e.question for e in EXAMPLES]), 2, with_vectors=True
    )
    total = 0.0
    for n, example in enumerate(EXAMPLES):
        question = encoder.encode_questions([example.question])[0].astype(np.float64)
        scores = [float(question @ vector.astype(np.float64)) / 0.5 for vector in found.vectors_NKD[n]]
        p_z = [math.exp(score) / sum(map(math.exp, scores)) for score in scores]
        passages: list[Passage] = [hit.passage for hit in found.hits[n]]
        answer = prompts.answer_ids(example.answers[0], 32)
        p_token = [
            [
                token_probability(generator, prompts.ids(example.question, passage), answer, place)
                for place in range(len(answer))
            ]
            for passage in passages
        ]
        if marginalize == "sequence":
            p_y = sum(p * math.prod(tokens) for p, tokens in zip(p_z, p_token, strict=True))
        else:
            p_y = math.prod(
                sum(p * tokens[place] for p, tokens in zip(p_z, p_token, strict=True)) for place in range(len(answer))
            )
        total -= math.log(p_y) / len(EXAMPLES)
    return total


@pytest.mark.parametrize("kind", ["decoder", "encoder_decoder"])
@pytest.mark.parametrize("marginalize", ["sequence", "token"])
def test_the_loss_of_whole_models_equals_a_slow_loop(
    kind: str, marginalize: str, tiny_encoder: Path, tiny_encoder_index: Path, request: pytest.FixtureRequest
) -> None:
    rig = Rig(request.getfixturevalue(f"tiny_{kind}"), tiny_encoder, tiny_encoder_index)
    train = TrainConfig.model_validate(SETTINGS)
    components = rig.components(train)
    searcher = LocalSearcher(IndexReader.open(tiny_encoder_index))
    generate = GenerateConfig.model_validate({"marginalize": marginalize, "passage_temperature": 0.5})
    objective = RagObjective(components, components.encoders["question_encoder"], searcher, k=2, generate=generate)
    batch = objective.collate(EXAMPLES, objective.retrieve(EXAMPLES).result(), epoch=0)
    expected = slow_loss(components, tiny_encoder_index, marginalize)
    assert objective.loss(batch).value.item() == pytest.approx(expected, rel=1e-4)


def test_components_without_a_generator_are_refused(
    tiny_decoder: Path, tiny_encoder: Path, tiny_encoder_index: Path
) -> None:
    train = TrainConfig()
    encoder = Rig(tiny_decoder, tiny_encoder, tiny_encoder_index).components(train).encoders["question_encoder"]
    searcher = LocalSearcher(IndexReader.open(tiny_encoder_index))
    with pytest.raises(TrainingError, match="RAG trains a generator"):
        RagObjective(Components(train, question_encoder=encoder), encoder, searcher, k=2, generate=GenerateConfig())


@pytest.mark.parametrize("marginalize", ["sequence", "token"])
def test_more_passages_than_the_index_holds_are_all_that_it_holds(
    marginalize: str, tiny_decoder: Path, tiny_encoder: Path, tmp_path: Path
) -> None:
    corpus = helpers.write_corpus(tmp_path / "corpus", helpers.some_passages(3))
    config = EncoderConfig(model=str(tiny_encoder), max_length=64)
    embeddings = helpers.write_embeddings(tmp_path / "embeddings", corpus, config=config)
    index = helpers.write_index(tmp_path / "index", embeddings, corpus)
    components = Rig(tiny_decoder, tiny_encoder, index).components(TrainConfig())
    generate, losses = GenerateConfig.model_validate({"marginalize": marginalize}), []
    for k in (3, 5):
        searcher, encoder = LocalSearcher(IndexReader.open(index)), components.encoders["question_encoder"]
        objective = RagObjective(components, encoder, searcher, k=k, generate=generate)
        losses.append(objective.loss(objective.collate(EXAMPLES, objective.retrieve(EXAMPLES).result(), epoch=0)).value)
    torch.testing.assert_close(*losses)
    losses[1].backward()
    assert components.gradient_not_finite() == ""
