"""The engine openvino: the answers of torch, written side by side, and left between two tokens."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from transformers import AutoModelForCausalLM

from ragray.config import GenerateConfig
from ragray.errors import InputError, ModelError
from ragray.generate.engine import Generation, GenerationRequest, Sampling, Submission
from ragray.generate.engines.openvino import load_stop_ids, open_pipeline
from ragray.generate.generator import Generator
from ragray.generate.load import load_generator
from ragray.models import load_tokenizer
from ragray.types import Hit, Passage

pytest.importorskip("openvino_genai", reason="pip install openvino-genai")

CONFIG = GenerateConfig(strategy="together", max_new_tokens=8, batch_size=4)
TEXTS = ("rome is the capital of italy.", "the nile is a river.", "paris")
REQUESTS = [
    GenerationRequest(question, tuple(Hit(Passage(text, text), 1.0) for text in TEXTS[:number]))
    for number, question in enumerate(("who?", "what is the capital?", "where?", "why is it so?", "how long is it?"))
]


@pytest.fixture(scope="module")
def decoder(tiny_decoder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny decoder with weights that are float16, so that writing them rounds nothing."""
    folder = tmp_path_factory.mktemp("half")
    AutoModelForCausalLM.from_pretrained(tiny_decoder).half().float().save_pretrained(folder)
    load_tokenizer(tiny_decoder).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def openvino(decoder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Generator]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAGRAY_CACHE", str(tmp_path_factory.mktemp("cache")))
        config = CONFIG.model_copy(update={"model": str(decoder), "engine": "openvino"})
        yield load_generator(config, threads=1)


def test_greedy_answers_are_those_of_torch(openvino: Generator, decoder: Path) -> None:
    torch = load_generator(CONFIG.model_copy(update={"model": str(decoder)}), device="cpu")
    for found, expected in zip(openvino.generate(REQUESTS), torch.generate(REQUESTS), strict=True):
        assert (found.text, found.finish_reason, found.usage) == (expected.text, expected.finish_reason, expected.usage)
        assert found.log_prob == pytest.approx(expected.log_prob, abs=0.05)
        assert found.weights == pytest.approx(expected.weights)


def test_an_answer_streams_joins_and_leaves_between_two_tokens(openvino: Generator) -> None:
    expected = openvino.generate(REQUESTS[:2])
    batch = openvino.open_runner()
    batch.add({0: Submission(REQUESTS[0]), 1: Submission(REQUESTS[1])})
    batch.step()
    batch.add({2: Submission(REQUESTS[1])})
    batch.remove(1)
    pieces = [piece for _ in range(12) for piece in batch.step()]
    done = {key: piece for key, piece in pieces if isinstance(piece, Generation)}
    assert {key: whole.text for key, whole in done.items()} == {0: expected[0].text, 2: expected[1].text}
    assert "".join(str(piece) for key, piece in pieces if key == 2 and isinstance(piece, str)) == expected[1].text
    assert batch.step() == []


def test_an_unfinished_batch_is_not_gone_on_with(openvino: Generator) -> None:
    openvino.open_runner().add({0: Submission(REQUESTS[0])})
    [whole] = openvino.generate(REQUESTS[1:2])
    assert whole == openvino.generate(REQUESTS[1:2])[0]


def test_a_seed_is_refused_where_tokens_are_drawn(openvino: Generator) -> None:
    with pytest.raises(InputError, match="seed"):
        raise openvino.open_runner().add({0: Submission(REQUESTS[0], Sampling(temperature=1.0, seed=1))})[0]
    [drawn] = openvino.generate(REQUESTS[:1], [Sampling(temperature=1.0)])
    assert drawn.usage.new_tokens <= 8


def test_a_file_that_is_no_model_is_named(tmp_path: Path) -> None:
    (tmp_path / "x.gguf").write_bytes(b"GGUF")
    with pytest.raises(ModelError, match=r"x\.gguf: openvino-genai cannot load it"):
        open_pipeline(tmp_path / "x.gguf", 2, 1)


def test_answers_end_where_the_model_says(tiny_decoder: Path) -> None:
    assert load_stop_ids(tiny_decoder, load_tokenizer(tiny_decoder)) == {2}
