"""A generator's weights and tokenizer: which token pads, which tokens end an answer."""

import shutil
from pathlib import Path

import pytest
import torch
from transformers import AutoTokenizer

from ragray.config import GenerateConfig
from ragray.errors import ModelError
from ragray.generate.engine import GenerationRequest
from ragray.generate.engines.model import GeneratorModel, fuse
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
