"""What a validation measures equals what the parts give one by one; what it leaves behind is what was there."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from ragray.config import Config, EncoderConfig, GenerateConfig, RetrieveConfig, TrainConfig
from ragray.embed.encoder import encoder_fingerprint
from ragray.embed.transformer import TransformerEncoder
from ragray.errors import CorruptArtifactError, InputError
from ragray.evaluate.answers import score
from ragray.generate.answer.markers import with_known_numbers
from ragray.generate.engine import GenerationRequest
from ragray.generate.engines.model import GeneratorModel
from ragray.generate.engines.transformer import TransformerGenerator
from ragray.index.search.reader import IndexReader
from ragray.retrieve.retriever import LocalRetriever
from ragray.stages.validation.dev import DevSet
from ragray.stages.validation.measure import LocalValidator
from ragray.train.components import Components
from ragray.train.objectives.fid import FidObjective
from ragray.train.objectives.objective import LocalSearcher, Objective
from ragray.train.objectives.rag import RagObjective
from ragray.train.objectives.together import TogetherObjective
from ragray.train.validation.judge import ValidationPlan
from ragray.train.validation.weights import load_weights, save_weights
from ragray.types import Example
from tests.helpers import some_passages
from tests.train.retriever_rig import QUESTIONS, TEXTS, RetrieverRig

PASSAGES = some_passages(40)
EXAMPLES = tuple(Example(f"dev/{n}", TEXTS[f"p{n}"], ("blue", "red"), (f"p{n}",)) for n in range(7))
K = 2
PLAN = ValidationPlan(1, "loss")


class Parts:
    """Components, an objective over them, and what a run of this strategy is set to."""

    def __init__(self, strategy: str, encoder: Path, generator: Path, index: Path) -> None:
        kind = {"strategy": strategy} if strategy in ("together", "fid") else {"marginalize": strategy}
        self.config = Config(
            train=TrainConfig(batch_size=3, encoder_lr=1e-3, generator_lr=1e-2),
            retrieve=RetrieveConfig(k=K),
            generate=GenerateConfig.model_validate({**kind, "max_new_tokens": 3, "passage_temperature": 0.5}),
        )
        self.reader = IndexReader.open(index)
        settings = EncoderConfig(model=str(encoder), max_length=64)
        self.encoder = TransformerEncoder.load(settings, device="cpu", fingerprint=encoder_fingerprint(settings))
        self.model = GeneratorModel.load(generator, device="cpu")
        self.components = Components(self.config.train, question_encoder=self.encoder, generator=self.model)
        searcher, generate, train = LocalSearcher(self.reader), self.config.generate, self.config.train
        given = (self.components, self.encoder, searcher)
        self.objective: RagObjective | FidObjective | TogetherObjective
        if strategy == "fid":
            self.objective = FidObjective(*given, k=K, generate=generate)
        elif strategy == "together":
            self.objective = TogetherObjective(*given, k=K, generate=generate, train=train, gold={})
        else:
            self.objective = RagObjective(*given, k=K, generate=generate)

    def validator(self, examples: Sequence[Example] = EXAMPLES) -> LocalValidator:
        return LocalValidator(self.components, self.objective, DevSet(tuple(examples), PLAN, "", ""), self.config)

    def answers(self) -> dict[str, str]:
        """What is answered to the questions, one by one."""
        retriever = LocalRetriever(self.reader, self.encoder, self.config.retrieve)
        generator = TransformerGenerator(self.model, self.config.generate)
        found = {one.id: retriever.search([one.question], K)[0].hits for one in EXAMPLES}
        answers = {one.id: generator.generate([GenerationRequest(one.question, found[one.id])])[0] for one in EXAMPLES}
        return {
            name: with_known_numbers(answer.text, 0) if answer.numbered else answer.text
            for name, answer in answers.items()
        }

    def loss(self, examples: Sequence[Example]) -> float:
        """The mean of the losses of single questions."""
        objective: Objective[Any] = self.objective
        batches = [objective.collate([one], objective.retrieve([one]).result(), epoch=0) for one in examples]
        return sum(float(objective.loss(batch).value) for batch in batches) / len(batches)

    def recall(self) -> float:
        """The share of questions of which the gold passage is among the K nearest."""
        searches = [self.reader.search(self.encoder.encode_questions([one.question]), K) for one in EXAMPLES]
        found = [
            any(hit.passage.id in one.gold_ids for hit in search.hits[0])
            for search, one in zip(searches, EXAMPLES, strict=True)
        ]
        return 100 * sum(found) / len(found)


@pytest.mark.parametrize("strategy", ["sequence", "token", "together", "fid"])
def test_the_figures_are_those_of_a_loop_over_the_questions(
    strategy: str,
    tiny_encoder: Path,
    tiny_decoder: Path,
    tiny_encoder_decoder: Path,
    tiny_encoder_index: Path,
    tmp_path: Path,
) -> None:
    generator = tiny_encoder_decoder if strategy == "fid" else tiny_decoder
    parts = Parts(strategy, tiny_encoder, generator, tiny_encoder_index)
    parts.components.eval()
    texts = parts.answers()
    examples = [replace(one, answers=(texts[one.id] or "none",)) if n < 3 else one for n, one in enumerate(EXAMPLES)]
    save_weights(tmp_path / "w", parts.components)
    found = parts.validator(examples).measure(tmp_path / "w")
    scores = score(texts, examples)
    with torch.no_grad():
        loss = parts.loss(examples)
    assert found.pop("seconds") > 0
    assert found == pytest.approx(
        {"exact_match": scores.exact_match, "f1": scores.f1, "recall": parts.recall(), "loss": loss},
        rel=1e-4,
    )
    assert found["exact_match"] > 0 or strategy == "fid"  # whose answers are marks, which do not count
    assert found["recall"] > 0


@pytest.fixture(scope="module")
def parts(tiny_encoder: Path, tiny_decoder: Path, tiny_encoder_index: Path) -> Parts:
    return Parts("sequence", tiny_encoder, tiny_decoder, tiny_encoder_index)


def test_the_weights_of_the_file_are_measured_and_those_that_train_stay(parts: Parts, tmp_path: Path) -> None:
    components = parts.components.train()
    save_weights(tmp_path / "before", components)
    expected = parts.validator().measure(tmp_path / "before")["loss"]
    with torch.no_grad():
        for _, parameter in components.trainable():
            parameter.add_(0.01)
    kept = {name: parameter.detach().clone() for name, parameter in components.trainable()}
    assert parts.validator().measure(tmp_path / "before")["loss"] == expected
    assert components.training
    assert all(torch.equal(parameter, kept[name]) for name, parameter in components.trainable())
    load_weights(tmp_path / "before", components)
    assert not all(torch.equal(parameter, kept[name]) for name, parameter in components.trainable())


def test_what_goes_wrong_is_kept_for_whoever_asks_for_the_figures(parts: Parts, tmp_path: Path) -> None:
    with pytest.raises(CorruptArtifactError, match=r"gone: cannot be read .* --restart"):
        parts.validator().submit(tmp_path / "gone").result()


def test_weights_that_are_not_finite_have_no_figures(parts: Parts, tmp_path: Path) -> None:
    [parameter, *_] = [p for name, p in parts.components.trainable() if name.startswith("question_encoder")]
    kept = parameter.detach().clone()
    parameter.data.fill_(torch.nan)
    save_weights(tmp_path / "nan", parts.components)
    parameter.data.copy_(kept)
    with pytest.raises(InputError, match="its vector holds NaN or infinity"):
        parts.validator().submit(tmp_path / "nan").result()
    assert parts.components.weight_not_finite() == ""


def test_examples_without_gold_ids_give_no_recall(parts: Parts, tmp_path: Path) -> None:
    save_weights(tmp_path / "w", parts.components)
    bare = [Example("dev/x", "who?", ("she",))]
    assert "recall" not in parts.validator(bare).measure(tmp_path / "w")


@pytest.mark.parametrize("passage_encoder", [False, True])
def test_of_a_retriever_recall_is_measured_in_the_index_or_among_the_questions_own_passages(
    tiny_encoder: Path, tiny_encoder_index: Path, tmp_path: Path, passage_encoder: bool
) -> None:
    rig = RetrieverRig(tiny_encoder)
    changes = {"passage_encoder": passage_encoder}
    components, objective = rig.objective(**changes)
    train = TrainConfig.model_validate({"objective": "contrastive", **changes})
    questions = rig.questions(TrainConfig(passage_encoder=True), QUESTIONS)
    pool = questions if passage_encoder else None
    dev = DevSet(
        questions.examples, PLAN, str(tiny_encoder_index), IndexReader.open(tiny_encoder_index).snapshot.name, pool=pool
    )
    save_weights(tmp_path / "w", components)
    config = Config(train=train, retrieve=RetrieveConfig(k=K))
    found = LocalValidator(components, objective, dev, config).measure(tmp_path / "w")
    encoder, passages = rig.load(), questions.texts if passage_encoder else [p.text for p in PASSAGES]
    names = questions.passage_ids if passage_encoder else [p.id for p in PASSAGES]
    if passage_encoder:
        vectors = encoder.encode(passages)
    else:
        reader = IndexReader.open(tiny_encoder_index)
        every = reader.search(encoder.encode_questions(["x"]), len(PASSAGES), with_vectors=True)
        names, vectors = [hit.passage.id for hit in every.hits[0]], every.vectors_NKD[0].astype("float32")
    hits = 0
    for one in questions.examples:
        scores = encoder.encode_questions([one.question])[0] @ vectors.T
        best = [names[row] for row in scores.argsort()[::-1][:K]]
        hits += any(name in one.gold_ids for name in best)
    assert found["recall"] == pytest.approx(100 * hits / len(questions.examples))
