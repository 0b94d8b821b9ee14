"""Drawn tokens: their distribution is that of the mixture, tempered and cut as asked; greedy stays greedy."""

from collections import Counter
from pathlib import Path

import torch

from ragray.config import GenerateConfig
from ragray.generate.engine import GREEDY, Generation, GenerationRequest, Sampling
from ragray.generate.engines.mixture import MixtureBatch, MixtureRequest
from ragray.generate.engines.model import GeneratorModel
from ragray.generate.engines.sampling import TokenChooser, nucleus
from ragray.generate.engines.transformer import TransformerGenerator
from ragray.generate.strategy import WeightedPrompts
from ragray.types import Hit, Passage
from tests.generate.engines.test_mixture import next_log_probs

DRAWS = 3000


def test_the_nucleus_is_the_smallest_set_that_has_the_probability() -> None:
    p = torch.tensor([0.1, 0.5, 0.15, 0.25])
    for top_p, kept in ((1.0, {0, 1, 2, 3}), (0.91, {0, 1, 2, 3}), (0.8, {1, 2, 3}), (0.75, {1, 3}), (0.01, {1})):
        assert set(nucleus(p, top_p).nonzero().flatten().tolist()) == kept


def test_tokens_come_as_often_as_the_tempered_distribution_says() -> None:
    logp = torch.log_softmax(torch.tensor([0.5, 2.0, 1.0, -1.0]), -1)
    for temperature in (0.5, 1.0, 1.7):
        choose = TokenChooser(Sampling(temperature=temperature, seed=3))
        drawn = Counter(choose(logp) for _ in range(DRAWS))
        for token, p in enumerate((logp / temperature).softmax(-1).tolist()):
            assert abs(drawn[token] / DRAWS - p) < 4 * (p * (1 - p) / DRAWS) ** 0.5 + 1e-3
    assert {TokenChooser(GREEDY)(logp) for _ in range(5)} == {1}


def test_the_first_token_is_drawn_from_the_mixture_of_the_passages(tiny_decoder: Path) -> None:
    """Compared with the mixture from its formula, one full forward pass a passage."""
    model = GeneratorModel.load(tiny_decoder, device="cpu")
    template = model.prompt_template(GenerateConfig(instruction="Answer."))
    prompts = [template.ids("who?", Passage(text, text)) for text in ("rome", "the nile")]
    prior = torch.log_softmax(torch.tensor([0.4, 0.0]), -1)
    each_KV = torch.stack([next_log_probs(model, prompt, []) for prompt in prompts])
    mixture_V = (prior.exp()[:, None] * each_KV.exp()).sum(0)
    batch, drawn = MixtureBatch(model, update_posterior=True), Counter[int]()
    choose = TokenChooser(Sampling(temperature=1.0, seed=5))
    weighted = WeightedPrompts(prompts, prior.tolist())
    for _ in range(10):
        batch.add({number: MixtureRequest(weighted, 1, choose) for number in range(64)})
        for answer in batch.step().values():
            drawn[answer.token_ids[0] if answer.token_ids else min(model.stop_ids())] += 1
    for token in mixture_V.topk(5).indices.tolist():
        p = float(mixture_V[token])
        assert abs(drawn[token] / 640 - p) < 4 * (p * (1 - p) / 640) ** 0.5 + 1e-2


def test_a_seed_repeats_an_answer_whoever_else_is_answered(tiny_decoder: Path) -> None:
    generator = TransformerGenerator(GeneratorModel.load(tiny_decoder, device="cpu"), GenerateConfig(max_new_tokens=8))
    asked = GenerationRequest("who?", (Hit(Passage("1", "rome"), 1.0), Hit(Passage("2", "nile"), 0.9)))
    how = Sampling(temperature=1.5, seed=1)
    [alone] = generator.generate([asked], [how])
    beside = generator.generate([asked, asked, asked], [Sampling(temperature=1.5, seed=2), how, GREEDY])
    assert beside[1].text == alone.text
    assert beside[2].text == generator.generate([asked])[0].text
    assert len({generator.generate([asked], [Sampling(temperature=1.5, seed=n)])[0].text for n in range(4)}) > 1
    assert isinstance(alone, Generation) and alone.log_prob < beside[2].log_prob


def test_a_nucleus_of_one_token_is_greedy(tiny_decoder: Path) -> None:
    generator = TransformerGenerator(GeneratorModel.load(tiny_decoder, device="cpu"), GenerateConfig(max_new_tokens=8))
    asked = GenerationRequest("who?")
    [narrow] = generator.generate([asked], [Sampling(temperature=1.0, top_p=1e-6, seed=0)])
    assert narrow.text == generator.generate([asked])[0].text
