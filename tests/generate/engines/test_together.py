"""The strategy `together` on the torch engine: one row per question, numbers that cite, and what a run pins."""

from pathlib import Path

import pytest

from ragray.config import GenerateConfig
from ragray.errors import ConfigError
from ragray.generate.answer.writing import Writing
from ragray.generate.engine import Generation, GenerationRequest, Sampling, Submission
from ragray.generate.engines.model import GeneratorModel
from ragray.generate.engines.transformer import TransformerGenerator
from ragray.generate.load import effective, engine_of
from ragray.generate.strategy import Together, WeightedPrompts
from ragray.types import Hit, Passage
from tests.generate.test_strategy import template

ASKED = GenerationRequest("who?", tuple(Hit(Passage(text, text), 1.0) for text in ("rome", "nile", "paris")))


def test_a_question_is_one_row_and_its_answer_that_of_plain_greedy_decoding(tiny_decoder: Path) -> None:
    model = GeneratorModel.load(tiny_decoder, device="cpu")
    generator = TransformerGenerator(model, GenerateConfig(strategy="together", max_new_tokens=8))
    [answer] = generator.generate([ASKED])
    [row], _ = (weighted := generator.strategy.prompts(ASKED)).prompts, weighted.log_prior_K
    assert answer.numbered and answer.usage.prompt_tokens == len(row)
    assert len(answer.weights) == 3 and sum(answer.weights) == pytest.approx(1)
    import torch

    written = model.model.generate(torch.tensor([row]), max_new_tokens=8, do_sample=False)[0][len(row) :].tolist()
    assert answer.text == generator.template.codec.decode(written).strip()


def test_only_passages_that_stood_in_the_prompt_have_a_share(tiny_decoder: Path) -> None:
    model = GeneratorModel.load(tiny_decoder, device="cpu")
    config = GenerateConfig(strategy="together", max_new_tokens=2, max_prompt_tokens=160)
    many = GenerationRequest("who?", tuple(Hit(Passage(str(n), "x" * 30), 1.0) for n in range(9)))
    [answer] = TransformerGenerator(model, config).generate([many])
    assert 0 < len(answer.weights) < 9


def written(text: str, num_passages: int, *, stop: tuple[str, ...] = ()) -> tuple[list[str], Generation]:
    """Let an answer be written character by character; return its pieces and the whole."""
    made = template()
    weighted = WeightedPrompts([[1]], [0.0], [-1.0] * num_passages)
    writing = Writing(Submission(ASKED, Sampling(stop=stop)), weighted, Together(made, temperature=1.0), made.codec)
    ids = made.codec.encode(text)
    pieces = [
        piece
        for length in range(1, len(ids) + 1)
        for piece in writing.pieces(ids[:length], [1.0], 0.0, "stop" if length == len(ids) else None)
    ]
    whole = pieces.pop()
    assert isinstance(whole, Generation)
    return [str(piece) for piece in pieces], whole


@pytest.mark.parametrize(
    ("text", "shown", "shares"),
    [
        ("Rome [1].", "Rome [1].", (1.0, 0.0)),
        ("Rome [3]. Nile [2]", "Rome. Nile [2]", (0.0, 1.0)),
        ("[2, 1] both [9", "[2, 1] both [9", (0.5, 0.5)),
    ],
)
def test_a_number_that_was_not_in_the_prompt_never_leaves(text: str, shown: str, shares: tuple[float, ...]) -> None:
    pieces, whole = written(text, 2)
    assert ("".join(pieces), whole.text, whole.weights) == (shown, shown, shares)


def test_a_number_behind_a_stop_text_cites_nothing() -> None:
    _, whole = written("Rome [1]\nNile [2]", 2, stop=("\n",))
    assert (whole.text, whole.weights) == ("Rome [1]", (1.0, 0.0))


def test_an_engine_without_probabilities_refuses_the_strategy_that_needs_them(tiny_decoder: Path) -> None:
    with pytest.raises(ConfigError, match=r"generate\.engine=openvino .* generate\.strategy=marginal .*together"):
        effective(GenerateConfig(engine="openvino"), None)
    assert engine_of(GenerateConfig(engine="auto", model=str(tiny_decoder)), None, "cpu") == "torch"
