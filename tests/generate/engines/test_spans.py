"""Decoding within spans against the mixture of the spans computed slowly; what is refused."""

from copy import copy
from pathlib import Path

import pytest
import torch

from ragray.config import GenerateConfig
from ragray.errors import ConfigError
from ragray.generate.engine import GenerationRequest
from ragray.generate.engines.model import GeneratorModel
from ragray.generate.engines.transformer import TransformerGenerator
from ragray.generate.load import effective, engine_of
from ragray.types import Hit, Passage
from tests.generate.engines.test_mixture import next_log_probs

QUESTION, TEXTS = "what is the capital?", ["rome is a capital.", "the nile is a river."]
HITS = tuple(Hit(Passage(str(n), text), 0.5, 0.5 - n / 50) for n, text in enumerate(TEXTS))
SETTINGS = {"max_new_tokens": 12, "spans": True, "max_prompt_tokens": 300}


@pytest.fixture(scope="module")
def model(tiny_decoder: Path) -> GeneratorModel:
    return GeneratorModel.load(tiny_decoder, device="cpu")


def spans(text: str) -> list[str]:
    """The spans of the texts above; all their letters are tokens, and only spaces and the last full stop part words."""
    cuts = [
        0,
        *(n for n, letter in enumerate(text) if letter in " ."),
        *(n + 1 for n, c in enumerate(text) if c in " ."),
    ]
    return [text[a:b] for a in cuts for b in cuts if a < b and text[a] != " " and text[b - 1] != " "]


def slow_answer(model: GeneratorModel, config: GenerateConfig) -> str:
    """Write the most probable letter of the mixture each time, where p(letter | passage) is 0 unless a span goes on with it."""
    generator = TransformerGenerator(model, config)
    weighted = generator.strategy.prompts(GenerationRequest(QUESTION, HITS))
    codec, stop = generator.template.codec, min(model.stop_ids())
    joint, ids = torch.tensor(weighted.log_prior_K), list[int]()
    while len(ids) < config.max_new_tokens:
        rows = []
        for prompt, text in zip(weighted.prompts, TEXTS, strict=True):
            begun = [each for each in map(codec.encode, spans(text)) if len(each) <= 12 and each[: len(ids)] == ids]
            allowed = {each[len(ids)] if len(each) > len(ids) else stop for each in begun}
            logp_V = next_log_probs(model, list(prompt), ids)
            kept_V = torch.full_like(logp_V, -torch.inf)
            kept_V[list(allowed)] = logp_V[list(allowed)]
            rows.append(kept_V)
        token = int((joint.log_softmax(-1)[:, None] + torch.stack(rows)).logsumexp(0).argmax())
        joint = joint + torch.stack(rows)[:, token]
        if token == stop:
            break
        ids.append(token)
    return str(codec.decode(ids))


def test_the_answer_is_that_of_the_mixture_of_spans(model: GeneratorModel) -> None:
    config = GenerateConfig.model_validate(SETTINGS)
    [answer] = TransformerGenerator(model, config).generate([GenerationRequest(QUESTION, HITS)])
    assert answer.text == slow_answer(model, config).strip()
    assert sum(answer.weights) == pytest.approx(1)


def test_an_answer_of_several_passages_stands_in_one_of_them_and_cites_it(model: GeneratorModel) -> None:
    config = GenerateConfig.model_validate({**SETTINGS, "strategy": "together"})
    [answer] = TransformerGenerator(model, config).generate([GenerationRequest(QUESTION, HITS)])
    said, _, cited = answer.text.partition(" [")
    assert any(said in text for text in TEXTS)
    assert not cited or said in TEXTS[int(cited[0]) - 1]


def test_a_fused_answer_stands_in_a_passage(tiny_encoder_decoder: Path) -> None:
    fused = GeneratorModel.load(tiny_encoder_decoder, device="cpu")
    config = GenerateConfig.model_validate({**SETTINGS, "strategy": "fid"})
    [answer] = TransformerGenerator(fused, config).generate([GenerationRequest(QUESTION, HITS)])
    assert answer.text
    assert any(answer.text in text for text in TEXTS)


@pytest.mark.parametrize("hits", [(), (Hit(Passage("0", ""), 0.5, 0.5),)])
def test_without_words_to_choose_from_any_answer_is_written(model: GeneratorModel, hits: tuple[Hit, ...]) -> None:
    free = GenerateConfig.model_validate({**SETTINGS, "spans": False})
    request = GenerationRequest(QUESTION, hits)
    [answer] = TransformerGenerator(model, GenerateConfig.model_validate(SETTINGS)).generate([request])
    assert answer == TransformerGenerator(model, free).generate([request])[0]


@pytest.mark.parametrize(
    "more", [{"num_beams": 2}, {"decoding": "fast"}, {"engine": "openvino", "strategy": "together"}]
)
def test_searches_and_engines_without_probabilities_are_refused(more: dict[str, object], tiny_decoder: Path) -> None:
    config = GenerateConfig.model_validate({"model": str(tiny_decoder), "spans": True, **more})
    with pytest.raises(ConfigError, match=r"generate\.spans=true .* generate\.num_beams=1"):
        effective(config, None)


def test_a_tokenizer_that_knows_no_places_is_refused(model: GeneratorModel) -> None:
    slow = copy(model.tokenizer)
    slow.__class__ = type("Slow", (type(slow),), {"is_fast": False})
    with pytest.raises(ConfigError, match=r"generate\.spans=true needs a tokenizer.*tokenizer\.json"):
        TransformerGenerator(GeneratorModel(model.model, slow), GenerateConfig(spans=True))


def test_openvino_is_not_chosen_for_spans(tiny_decoder: Path) -> None:
    config = GenerateConfig(model=str(tiny_decoder), spans=True, engine="auto", strategy="together")
    assert engine_of(config, tiny_decoder, "cpu") == "torch"
