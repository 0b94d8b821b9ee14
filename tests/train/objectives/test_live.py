"""Passages scored by current weights: the best of the candidates, the loss and its gradients as the formula has them."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from ragray.config import GenerateConfig, TrainConfig
from ragray.embed.passage_text import passage_text
from ragray.errors import TrainingError
from ragray.index.search.reader import IndexReader
from ragray.index.search.result import SearchResult
from ragray.train.components import Components
from ragray.train.objectives.live import LivePassages
from ragray.train.objectives.objective import LocalSearcher
from ragray.train.objectives.rag import RagObjective
from ragray.types import Example
from tests.train.rig import SETTINGS, Rig

EXAMPLES = [Example("a", "who wears the red hat?", ("nobody",)), Example("b", "how deep is it?", ("nine feet",))]
QUESTIONS = [example.question for example in EXAMPLES]


@pytest.fixture
def components(tiny_decoder: Path, tiny_encoder: Path, tiny_encoder_index: Path) -> Components:
    """Both encoders are one, and have moved away from what the index was made with."""
    made = Rig(tiny_decoder, tiny_encoder, tiny_encoder_index).components(
        TrainConfig.model_validate({**SETTINGS, "passage_encoder": True})
    )
    torch.manual_seed(3)
    assert made.question_encoder is not None and made.question_encoder is made.passage_encoder
    with torch.no_grad():
        for parameter in made.question_encoder.parameters():
            parameter += 0.1 * torch.randn_like(parameter)
    return made.eval()


@pytest.fixture
def found(components: Components, tiny_encoder_index: Path) -> SearchResult:
    vectors = components.encoders["question_encoder"].encode_questions(QUESTIONS)
    return IndexReader.open(tiny_encoder_index).search(vectors, 6, with_vectors=True)


def objective(components: Components, index: Path, candidates: int = 6) -> RagObjective:
    encoder, searcher = components.encoders["question_encoder"], LocalSearcher(IndexReader.open(index))
    generate = GenerateConfig(passage_temperature=0.5)
    return RagObjective(components, encoder, searcher, k=2, generate=generate, candidates=candidates)


def current_scores(components: Components, found: SearchResult) -> list[list[float]]:
    """The inner product of every question and candidate, each encoded by itself."""
    encoder = components.encoders["passage_encoder"]
    return [
        [float(encoder.encode_questions([q])[0] @ encoder.encode([passage_text(hit.passage)])[0]) for hit in hits]
        for q, hits in zip(QUESTIONS, found.hits, strict=True)
    ]


def test_the_best_candidates_by_current_weights_are_kept(components: Components, found: SearchResult) -> None:
    live = LivePassages.of(components)
    assert live is not None
    best = live.best(EXAMPLES, found, 2)
    for row, scores in enumerate(current_scores(components, found)):
        order = sorted(range(6), key=lambda place: -scores[place])[:2]
        assert best.rows_NK[row].tolist() == [int(found.rows_NK[row, place]) for place in order]
        assert best.scores_NK[row] == pytest.approx([scores[place] for place in order], abs=1e-5)
        assert [hit.passage for hit in best.hits[row]] == [found.hits[row][place].passage for place in order]
    assert (best.rows_NK != found.rows_NK[:, :2]).any()  # the index would have chosen others


def test_missing_candidates_come_last(components: Components, found: SearchResult) -> None:
    """A question with one candidate, and one with none."""
    found.rows_NK[0, 1:] = found.rows_NK[1] = -1
    few = SearchResult(found.rows_NK, found.scores_NK, found.vectors_NKD, [found.hits[0][:1], []])
    live = LivePassages.of(components)
    assert live is not None
    best = live.best(EXAMPLES, few, 2)
    assert best.rows_NK.tolist() == [[int(found.rows_NK[0, 0]), -1], [-1, -1]]
    assert [len(hits) for hits in best.hits] == [1, 0]
    assert live.tensors(best)[0].shape[0] == 4


def slow_loss(components: Components, found: SearchResult) -> Tensor:
    """-log sum_z p(z | x) p(y | x, z) with both encoders at their current weights, one text at a time; differentiable."""
    encoder, generator = components.encoders["passage_encoder"], components.generator
    assert generator is not None
    prompts = generator.prompt_template(GenerateConfig())
    total = torch.zeros(())
    for example, hits, scores in zip(EXAMPLES, found.hits, current_scores(components, found), strict=True):
        kept = sorted(range(len(hits)), key=lambda place: -scores[place])[:2]
        question = encoder.module(*encoder.question_tensors([example.question]))[0]
        logits, answers = [], []
        for place in kept:
            passage = hits[place].passage
            vector = encoder.module(*encoder.passage_tensors([passage_text(passage)]))[0]
            logits.append(question @ vector / 0.5)
            batch = generator.answer_batch(
                [prompts.ids(example.question, passage)], [prompts.answer_ids(example.answers[0], 32)]
            )
            answers.append(generator(batch).sum())
        total = total - (torch.stack(logits).log_softmax(0) + torch.stack(answers)).logsumexp(0)
    return total / len(EXAMPLES)


def gradients(components: Components, loss: Tensor) -> dict[str, Tensor]:
    components.zero_grad()
    loss.backward()
    return {name: p.grad.clone() for name, p in components.trainable() if p.grad is not None}


def assert_close(mine: dict[str, Tensor], slow: dict[str, Tensor]) -> None:
    """Of the encoders and of the generator, each measured by its largest gradient."""
    assert mine.keys() == slow.keys()
    for part in ("question_encoder", "passage_encoder", "generator"):
        names = [name for name in slow if name.startswith(part)]
        largest = max((float(slow[name].abs().max()) for name in names), default=0.0)
        for name in names:
            torch.testing.assert_close(mine[name], slow[name], rtol=1e-3, atol=1e-4 * largest)


def test_loss_and_gradients_are_those_of_the_formula_although_the_index_is_old(
    components: Components, found: SearchResult, tiny_encoder_index: Path
) -> None:
    rag = objective(components, tiny_encoder_index)
    loss = rag.loss(rag.collate(EXAMPLES, rag.retrieve(EXAMPLES).result(), epoch=0)).value
    expected = slow_loss(components, found)
    assert loss.item() == pytest.approx(expected.item(), rel=1e-5)
    assert_close(gradients(components, loss), gradients(components, expected))


def test_a_tower_of_its_own_learns_from_the_passages_alone(
    tiny_decoder: Path, tiny_encoder: Path, tiny_encoder_index: Path
) -> None:
    """Two towers with the same weights: their gradients add up to that of the one they might share."""
    rig = Rig(tiny_decoder, tiny_encoder, tiny_encoder_index)
    train = TrainConfig.model_validate({**SETTINGS, "passage_encoder": True})
    one, other = rig.components(train).eval(), rig.components(train)
    assert one.generator is not None
    two = Components(
        train,
        question_encoder=one.encoders["question_encoder"],
        passage_encoder=other.encoders["question_encoder"],
        generator=one.generator,
    ).eval()
    found = {}
    for name, parts in (("one", one), ("two", two)):
        rag = objective(parts, tiny_encoder_index)
        found[name] = gradients(parts, rag.loss(rag.collate(EXAMPLES, rag.retrieve(EXAMPLES).result(), epoch=0)).value)
    of_passages = {name: value for name, value in found["two"].items() if name.startswith("passage_encoder.")}
    assert len(of_passages) > 10
    summed = {name: value for name, value in found["two"].items() if name not in of_passages}
    for name, value in of_passages.items():
        summed[name.replace("passage_encoder.", "question_encoder.")] += value
    assert_close(summed, found["one"])


def test_twice_k_passages_are_looked_up_unless_it_is_said(components: Components, tiny_encoder_index: Path) -> None:
    depths = [objective(components, tiny_encoder_index, n).retrieve(EXAMPLES).result().rows_NK.shape[1] for n in (0, 5)]
    assert depths == [4, 5]


def test_fewer_candidates_than_k_are_refused(components: Components, tiny_encoder_index: Path) -> None:
    with pytest.raises(TrainingError, match=r"train.refresh_candidates=1 is below retrieve.k=2"):
        objective(components, tiny_encoder_index, 1)


def test_weights_that_are_not_finite_are_named(components: Components, tiny_encoder_index: Path) -> None:
    rag = objective(components, tiny_encoder_index)
    batch = rag.collate(EXAMPLES, rag.retrieve(EXAMPLES).result(), epoch=0)
    assert components.passage_encoder is not None
    with torch.no_grad():
        next(components.passage_encoder.parameters()).fill_(math.nan)
        assert rag.not_finite(batch) == "the passage encoder's vectors are not finite"


def test_a_frozen_copy_is_the_passage_encoder_as_it_was(components: Components) -> None:
    texts = ["red hats", "deep water"]
    frozen, before = components.frozen_passage_encoder(), components.encoders["passage_encoder"].encode(texts)
    assert components.passage_encoder is not None
    with torch.no_grad():
        for parameter in components.passage_encoder.parameters():
            parameter += 1
    np.testing.assert_array_equal(frozen.encode(texts), before)
    assert not any(parameter.requires_grad for parameter in frozen.module.parameters())


def test_adapters_on_a_shared_encoder_are_added_once_and_merged_in_its_copy(
    tiny_decoder: Path, tiny_encoder: Path, tiny_encoder_index: Path
) -> None:
    train = TrainConfig.model_validate({**SETTINGS, "passage_encoder": True, "encoder_tune": "lora", "lora_rank": 2})
    components = Rig(tiny_decoder, tiny_encoder, tiny_encoder_index).components(train)
    with torch.no_grad():
        for name, parameter in components.trainable():
            if "question_encoder" in name:
                assert name.count("lora_") == 1
                parameter.normal_()
    expected = components.encoders["passage_encoder"].encode(["red hats"])
    np.testing.assert_allclose(components.frozen_passage_encoder().encode(["red hats"]), expected, atol=1e-5)
    np.testing.assert_allclose(components.encoders["passage_encoder"].encode(["red hats"]), expected, atol=1e-6)
