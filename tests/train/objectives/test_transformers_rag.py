"""Losses and gradients of RAG-Sequence and RAG-Token are those of the classes of `transformers`, which are run without their retriever."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from transformers import DPRQuestionEncoder, RagSequenceForGeneration, RagTokenForGeneration

from ragray.config import EncoderConfig, GenerateConfig, TrainConfig
from ragray.embed.transformer import TransformerEncoder
from ragray.generate.engines.model import IGNORE, GeneratorModel
from ragray.index.search.result import SearchResult
from ragray.train.components import Components
from ragray.train.objectives.objective import CompletedSearch
from ragray.train.objectives.rag import RagBatch, RagObjective
from ragray.types import Example, Hit, Passage

EXAMPLES = [
    Example("1", "which metal is liquid?", ("mercury",)),
    Example("2", "who discovered radium, and where?", ("marie curie, in paris",)),
    Example("3", "how many moons has mars?", ("2",)),
]
TEXTS = ["mercury is a metal.", "radium was found in paris by two chemists.", "mars has two moons", "no answer here"]
K, TEMPERATURE = 4, 0.5
OF_TRANSFORMERS = {"sequence": RagSequenceForGeneration, "token": RagTokenForGeneration}


def found(dim: int) -> SearchResult:
    """Four passages for each question, in another order each time, with vectors of random numbers."""
    vectors = np.random.default_rng(1).normal(size=(len(EXAMPLES), K, dim)).astype(np.float32) / dim**0.5
    rows = np.stack([np.roll(np.arange(K), n) for n in range(len(EXAMPLES))])
    hits = [[Hit(Passage(str(row), TEXTS[row]), 0.0) for row in order] for order in rows.tolist()]
    return SearchResult(rows, np.zeros((len(EXAMPLES), K), dtype=np.float32), vectors, hits)


def ours(encoder_folder: Path, generator_folder: Path, **settings: Any) -> tuple[RagObjective, Components]:
    config = EncoderConfig(model=str(encoder_folder), pooling=settings.pop("pooling"), normalize=False)
    encoder = TransformerEncoder.load(config, device="cpu")
    components = Components(
        TrainConfig(), question_encoder=encoder, generator=GeneratorModel.load(generator_folder, device="cpu")
    )
    components.double()  # so that what is compared is the computation and not its rounding
    generate = GenerateConfig(marginalize=settings["marginalize"], passage_temperature=TEMPERATURE)
    nowhere: Any = CompletedSearch
    smoothing = settings["smoothing"]
    return RagObjective(components, encoder, nowhere, k=K, generate=generate, label_smoothing=smoothing), components


def theirs(components: Components, batch: RagBatch, marginalize: str, smoothing: float) -> tuple[Tensor, Any]:
    """Return their loss, a mean over the questions, and their model, which has copies of the same weights."""
    generator, encoder = components.generator, components.question_encoder
    assert generator is not None and encoder is not None
    copies = [type(model.model)(model.model.config) for model in (encoder, generator)]
    for copy, model in zip(copies, (encoder, generator), strict=True):
        copy.load_state_dict(model.model.state_dict())  # type: ignore[operator,union-attr] # a model of any kind
    rag = OF_TRANSFORMERS[marginalize](question_encoder=copies[0], generator=copies[1], label_smoothing=smoothing)
    rag.double().eval()
    if not hasattr(rag.config.generator, "bos_token_id"):
        rag.config.generator.bos_token_id = None  # transformers 5.23 asks T5 for it, which has none
    output = rag.question_encoder(input_ids=batch.question_ids, attention_mask=batch.question_mask)
    is_dpr = isinstance(copies[0], DPRQuestionEncoder)
    vectors = output.pooler_output if is_dpr else output.last_hidden_state[:, 0]
    scores = torch.bmm(vectors[:, None], batch.passages_BKD.transpose(1, 2)).squeeze(1) / TEMPERATURE
    answers = batch.rows["labels"][::K]
    start = torch.full_like(answers[:, :1], generator.model.config.decoder_start_token_id)
    labels = torch.cat([start, answers.masked_fill(answers == IGNORE, generator.model.config.pad_token_id)], dim=1)
    loss = rag(
        context_input_ids=batch.rows["input_ids"],
        context_attention_mask=batch.rows["attention_mask"],
        doc_scores=scores,
        labels=labels,
        n_docs=K,
    ).loss
    return loss.mean(), rag


def require_equal_gradients(mine: Any, theirs: Any) -> None:
    """Compare the gradients of two models with the same parameters: relative difference of each tensor below 1e-8."""
    others = dict(theirs.named_parameters())
    names = [
        name for name, parameter in mine.named_parameters() if parameter.requires_grad and parameter.grad is not None
    ]
    assert len(names) > 10
    largest = max(float(others[name].grad.norm()) for name in names)
    for name, parameter in mine.named_parameters():
        if name in names:
            difference = float((parameter.grad - others[name].grad).norm())
            assert difference <= 1e-8 * max(float(others[name].grad.norm()), 1e-2 * largest), name


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("marginalize", ["sequence", "token"])
@pytest.mark.parametrize(
    ("encoder", "pooling", "generator"), [("dpr", "auto", "bart"), ("encoder", "cls", "encoder_decoder")]
)
def test_loss_and_gradients_are_those_of_transformers(
    encoder: str, pooling: str, generator: str, marginalize: str, smoothing: float, request: pytest.FixtureRequest
) -> None:
    folders = (request.getfixturevalue(f"tiny_{name}") for name in (encoder, generator))
    objective, components = ours(*folders, pooling=pooling, marginalize=marginalize, smoothing=smoothing)
    batch = objective.collate(EXAMPLES, found(components.encoders["question_encoder"].fingerprint.dim), epoch=0)
    batch = replace(batch, passages_BKD=batch.passages_BKD.double())
    loss = objective.loss(batch).value
    expected, rag = theirs(components, batch, marginalize, smoothing)
    assert loss.item() == pytest.approx(expected.item(), rel=1e-9)
    loss.backward()
    expected.backward()
    require_equal_gradients(components.generator.model, rag.generator)  # type: ignore[union-attr] # it is there
    require_equal_gradients(components.question_encoder.model, rag.question_encoder)  # type: ignore[union-attr] # it is there
