"""Searched answers: those of the RAG classes of `transformers`, and of slow searches written from the formulas."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import BertConfig, BertModel, RagSequenceForGeneration, RagTokenForGeneration

from ragray.config import GenerateConfig
from ragray.errors import InputError
from ragray.generate.engine import GREEDY, GenerationRequest, Sampling
from ragray.generate.engines.mixture import MixtureBatch, MixtureRequest, SequenceState
from ragray.generate.engines.model import GeneratorModel
from ragray.generate.engines.searching import SearchBatch
from ragray.generate.engines.transformer import TransformerGenerator
from ragray.generate.strategy import WeightedPrompts
from ragray.types import Hit, Passage
from tests.generate.engines.test_mixture import QUESTIONS, next_log_probs, rows

PRIORS = torch.log_softmax(torch.tensor([[0.3, 0.9, 0.1], [1.5, 0.2, 0.4]]), -1)
LENGTH = 5
SAME_LENGTH = ("rome is the capital.", "the nile is a river.", "paris is in the west")


def never_pads(model: Any) -> None:
    """Let a model write no padding: `transformers` takes it for the end of an answer when it scores it."""
    model.lm_head.register_forward_hook(lambda _, __, logits: logits.index_fill(-1, torch.tensor([0]), -1e4))


def load(folder: Path) -> GeneratorModel:
    """Load a generator, with a second end token, so that answers end early."""
    model = GeneratorModel.load(folder, device="cpu")
    never_pads(model.model)
    with torch.no_grad():
        likely = next_log_probs(model, rows(model, QUESTIONS[0])[0], []).topk(5).indices
    model.model.generation_config.eos_token_id = [2, int(likely[3])]
    return model


@pytest.fixture(scope="module", params=["encoder_decoder", "bart"])
def model(request: pytest.FixtureRequest) -> GeneratorModel:
    return load(request.getfixturevalue(f"tiny_{request.param}"))


def search(model: GeneratorModel, num_beams: int, decoding: str, *, sequence: bool = True) -> list[SequenceState]:
    """Answer both questions side by side."""
    kind = {"num_beams": num_beams, "decoding": decoding, "update_posterior": sequence}
    return run(SearchBatch(model, **kind), model)  # type: ignore[arg-type] # keywords of several types


def run(batch: SearchBatch | MixtureBatch, model: GeneratorModel) -> list[SequenceState]:
    weighted = [
        WeightedPrompts(rows(model, q, SAME_LENGTH), prior) for q, prior in zip(QUESTIONS, PRIORS.tolist(), strict=True)
    ]
    batch.add({number: MixtureRequest(each, LENGTH) for number, each in enumerate(weighted)})
    done: dict[int, SequenceState] = {}
    while len(batch):
        done |= {key: state for key, state in batch.step().items() if state.finish_reason}
    return [done[number] for number in range(len(weighted))]


def of_transformers(model: GeneratorModel, kind: type, num_beams: int) -> list[list[int]]:
    """Return the tokens that a RAG class of `transformers` answers with, without start, end and padding.

    It is asked one question at a time, about passages of one length: where RAG-Sequence is decoded, transformers 5.23 lets the
    generator read padding.
    """
    copy = type(model.model)(model.model.config)
    copy.load_state_dict(model.model.state_dict())
    never_pads(copy)
    encoder = BertModel(BertConfig(hidden_size=8, num_hidden_layers=1, num_attention_heads=1, intermediate_size=8))
    rag: Any = kind(question_encoder=encoder, generator=copy, n_docs=len(PRIORS[0])).eval()
    if not hasattr(rag.config.generator, "bos_token_id"):
        rag.config.generator.bos_token_id = None  # transformers 5.23 asks T5 for it, which has none
    stop, found = sorted(model.stop_ids()), list[list[int]]()
    for question, scores in zip(QUESTIONS, PRIORS, strict=True):
        ids = torch.tensor(rows(model, question, SAME_LENGTH))
        answer = rag.generate(
            context_input_ids=ids, context_attention_mask=torch.ones_like(ids), doc_scores=scores[None], num_beams=num_beams,
            max_length=LENGTH + 1, eos_token_id=stop, pad_token_id=0, decoder_start_token_id=copy.config.decoder_start_token_id,
        )  # fmt: skip
        found.append(written(answer[0].tolist()[1:], stop))
    return found


def written(tokens: list[int], stop: list[int]) -> list[int]:
    ends = [place for place, token in enumerate(tokens) if token in stop]
    return tokens[: ends[0]] if ends else tokens


@pytest.mark.parametrize("num_beams", [1, 2, 4])
def test_rag_token_is_searched_as_by_transformers(model: GeneratorModel, num_beams: int) -> None:
    expected = of_transformers(model, RagTokenForGeneration, num_beams)
    assert [state.token_ids for state in search(model, num_beams, "joint", sequence=False)] == expected
    if num_beams == 1:
        greedy = run(MixtureBatch(model, update_posterior=False), model)
        assert [state.token_ids for state in greedy] == expected


@pytest.mark.parametrize("num_beams", [1, 3])
def test_thorough_decoding_of_rag_sequence_is_that_of_transformers(model: GeneratorModel, num_beams: int) -> None:
    expected = of_transformers(model, RagSequenceForGeneration, num_beams)
    assert [state.token_ids for state in search(model, num_beams, "thorough")] == expected


def sequence_logp(model: GeneratorModel, prompt: list[int], tokens: list[int]) -> float:
    """Return log p(tokens | prompt) of an encoder-decoder, in one pass."""
    start = model.model.config.decoder_start_token_id
    with torch.no_grad():
        logits = model.model(
            input_ids=torch.tensor([prompt]), decoder_input_ids=torch.tensor([[start, *tokens[:-1]]])
        ).logits
    return float(logits[0].log_softmax(-1)[range(len(tokens)), tokens].sum())


def test_fast_decoding_leaves_out_passages_that_did_not_find_the_answer(model: GeneratorModel) -> None:
    """Compared with the beam searches of `transformers`, one passage at a time, each answer scored from its formula."""
    stop = sorted(model.stop_ids())
    for number, state in enumerate(search(model, 3, "fast")):
        scores: dict[tuple[int, ...], list[float]] = {}
        for prompt, prior in zip(rows(model, QUESTIONS[number], SAME_LENGTH), PRIORS[number].tolist(), strict=True):
            beams = model.model.generate(
                torch.tensor([prompt]), attention_mask=torch.ones(1, len(prompt), dtype=torch.long), num_beams=3, num_return_sequences=3,
                max_length=LENGTH + 1, eos_token_id=stop, pad_token_id=0,
            )  # fmt: skip
            for row in beams.tolist():
                answer = tuple(row[1 : 2 + len(written(row[1:], stop))])
                scores.setdefault(answer, []).append(prior + sequence_logp(model, prompt, list(answer)))
        best = max(scores, key=lambda answer: float(torch.tensor(scores[answer]).logsumexp(0)))
        assert state.token_ids == written(list(best), stop)
        assert state.log_prob == pytest.approx(float(torch.tensor(scores[best]).logsumexp(0)), abs=1e-3)
        assert sum(state.weights) == pytest.approx(1, abs=1e-5)


def slow_search(
    model: GeneratorModel, prompts: list[list[int]], prior: Tensor, num_beams: int, sequence: bool
) -> list[int]:
    """Beam search over whole answers: every beginning is scored anew, one full forward pass a passage."""

    def grown(tokens: list[int]) -> Tensor:
        """Return log p(tokens, v | question) for every token v, (V,)."""
        before = [
            torch.stack([next_log_probs(model, prompt, tokens[:n])[token] for n, token in enumerate(tokens)])
            if tokens
            else torch.zeros(1)
            for prompt in prompts
        ]
        each_KV = torch.stack([next_log_probs(model, prompt, tokens) for prompt in prompts])
        if sequence:
            said_K = torch.stack([logp.sum() for logp in before])
            return ((prior + said_K)[:, None] + each_KV).logsumexp(0)
        said = (prior[:, None] + torch.stack(before)).logsumexp(0).sum() if tokens else torch.tensor(0.0)
        return said + (prior[:, None] + each_KV).logsumexp(0)

    stop, running, finished = model.stop_ids(), [([], 0.0)], list[tuple[float, list[int]]]()
    while running:
        options = sorted(
            ((float(logp), [*tokens, token]) for tokens, _ in running for token, logp in enumerate(grown(tokens))),
            key=lambda option: -option[0],
        )
        ends = [option for option in options[:num_beams] if option[1][-1] in stop or len(option[1]) == LENGTH]
        finished = sorted([*finished, *((logp / len(t), t) for logp, t in ends)], key=lambda one: -one[0])[:num_beams]
        running = [(t, logp) for logp, t in options if t[-1] not in stop and len(t) < LENGTH][:num_beams]
        if len(finished) == num_beams and running and running[0][1] / len(running[0][0]) <= finished[-1][0]:
            break
    return written(finished[0][1], sorted(stop))


@pytest.mark.parametrize("sequence", [True, False])
def test_a_decoder_only_model_is_searched_as_slowly_from_the_formula(tiny_decoder: Path, sequence: bool) -> None:
    model = load(tiny_decoder)
    for number, state in enumerate(search(model, 2, "joint", sequence=sequence)):
        assert state.token_ids == slow_search(
            model, rows(model, QUESTIONS[number], SAME_LENGTH), PRIORS[number], 2, sequence
        )


def test_one_beam_is_the_greedy_answer_with_its_probability_and_posterior(model: GeneratorModel) -> None:
    for beam, greedy in zip(
        search(model, 1, "joint"), run(MixtureBatch(model, update_posterior=True), model), strict=True
    ):
        assert (beam.token_ids, beam.finish_reason) == (greedy.token_ids, greedy.finish_reason)
        assert beam.log_prob == pytest.approx(greedy.log_prob, abs=1e-4)
        assert beam.weights == pytest.approx(greedy.weights, abs=1e-4)


def asked(text: str) -> GenerationRequest:
    return GenerationRequest(
        text, tuple(Hit(Passage(t, t), 1.0, dense=0.1 * n) for n, t in enumerate(("rome", "the nile")))
    )


@pytest.mark.parametrize("kind", ["decoder", "encoder_decoder"])
@pytest.mark.parametrize("decoding", ["joint", "thorough", "fast"])
def test_a_searched_answer_is_the_same_beside_others(kind: str, decoding: str, request: pytest.FixtureRequest) -> None:
    config = GenerateConfig(num_beams=2, decoding=decoding, max_new_tokens=6)
    generator = TransformerGenerator(load(request.getfixturevalue(f"tiny_{kind}")), config)
    together = generator.generate([asked("who?"), asked("where is it, then?"), GenerationRequest("what?")])
    [alone] = generator.generate([asked("where is it, then?")])
    assert (alone.text, len(alone.weights)) == (together[1].text, 2)
    assert alone.log_prob == pytest.approx(together[1].log_prob, abs=1e-3)


def test_a_search_is_cancelled_and_refuses_to_draw(tiny_decoder: Path) -> None:
    generator = TransformerGenerator(load(tiny_decoder), GenerateConfig(num_beams=2, max_new_tokens=6))
    with pytest.raises(InputError, match=r"temperature .*generate\.num_beams"):
        generator.generate([asked("who?")], [Sampling(temperature=0.7)])
    [alone] = generator.generate([asked("who?")], [GREEDY])
    batch = SearchBatch(generator.model, num_beams=2, decoding="thorough", update_posterior=True)
    weighted = generator.strategy.prompts(asked("who?"))
    batch.add({1: MixtureRequest(weighted, 6), 2: MixtureRequest(weighted, 6)})
    batch.step()
    batch.remove(1)
    batch.remove(1)
    assert len(batch) == 1 and alone.finish_reason in ("stop", "length")
    while len(batch):
        assert 1 not in batch.step()
