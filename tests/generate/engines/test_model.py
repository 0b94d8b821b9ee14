"""A generator's weights and tokenizer: which token pads, which tokens end an answer."""

import shutil
from pathlib import Path

import pytest
import torch
from transformers import AutoTokenizer

from ragray.config import GenerateConfig
from ragray.errors import ModelError
from ragray.generate.engine import GenerationRequest
from ragray.generate.engines.model import IGNORE, GeneratorModel, fuse
from ragray.generate.engines.transformer import TransformerGenerator
from ragray.types import Hit, Passage


def without(folder: Path, source: Path, *tokens: str) -> GeneratorModel:
    """Load a generator whose tokenizer lacks some control tokens."""
    shutil.copytree(source, folder)
    tokenizer = AutoTokenizer.from_pretrained(source)
    for token in tokens:
        setattr(tokenizer, token, None)
    tokenizer.save_pretrained(folder)
    return GeneratorModel.load(folder, device="cpu")


def test_a_tokenizer_without_a_padding_token_pads_with_the_end_token_and_answers_alike(
    tiny_decoder: Path, tmp_path: Path
) -> None:
    model = without(tmp_path / "model", tiny_decoder, "pad_token")
    assert model.pad_id == model.tokenizer.eos_token_id
    asked = [
        GenerationRequest(question, tuple(Hit(Passage(text, text), 1.0) for text in ("rome", "the nile is long")))
        for question in ("who?", "what is it then?")
    ]
    settings = GenerateConfig(max_new_tokens=6)
    plain = TransformerGenerator(GeneratorModel.load(tiny_decoder, device="cpu"), settings)
    assert TransformerGenerator(model, settings).generate(asked) == plain.generate(asked)


def test_a_tokenizer_without_padding_and_end_token_is_refused(tiny_decoder: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="neither a padding nor an end token; set eos_token"):
        without(tmp_path / "model", tiny_decoder, "pad_token", "eos_token")


def test_encoded_prompts_are_laid_end_to_end_for_each_question() -> None:
    states = torch.arange(3 * 2, dtype=torch.float32).view(3, 2, 1)
    mask = torch.tensor([[1, 1], [1, 0], [1, 1]])
    fused, fused_mask = fuse(states, mask, [1, 2])
    assert fused[:, :, 0].tolist() == [[0, 1, 0, 0], [2, 3, 4, 5]]
    assert fused_mask.tolist() == [[1, 1, 0, 0], [1, 0, 1, 1]]


@pytest.mark.parametrize("kind", ["decoder", "encoder_decoder", "bart"])
def test_rows_of_a_batch_have_the_log_probabilities_that_each_has_alone(
    kind: str, request: pytest.FixtureRequest
) -> None:
    model = GeneratorModel.load(request.getfixturevalue(f"tiny_{kind}"), device="cpu").double()
    prompts = [list(range(4, 4 + size)) for size in (70, 3, 60, 5, 1)]
    answers = [[9, 8], [7], [6, 5, 4, 9, 8, 7], [5], [9, 9, 2]]
    batch = model.answer_batch(prompts, answers)
    found = model(batch)
    assert found.shape == batch["labels"].shape
    for row, (prompt, answer) in enumerate(zip(prompts, answers, strict=True)):
        alone = model(model.answer_batch([prompt], [answer]))
        torch.testing.assert_close(found[row][batch["labels"][row] != IGNORE], alone[0])
