"""A GGUF that ragray writes: `transformers` reads the same weights from it, rounded to float16."""

from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, GPT2Config, LlamaConfig
from transformers.modeling_gguf_pytorch_utils import load_gguf_checkpoint

from ragray.convert.to_gguf import interleaved, why_not_gguf, write_gguf
from ragray.errors import ModelError


def test_the_weights_and_the_shape_survive(tiny_decoder: Path, tmp_path: Path) -> None:
    model = AutoModelForCausalLM.from_pretrained(tiny_decoder, dtype=torch.float32)
    path = tmp_path / "tiny.gguf"
    write_gguf(tiny_decoder, path, model=model.config, tokenizer=AutoTokenizer.from_pretrained(tiny_decoder))
    found = load_gguf_checkpoint(path, return_tensors=True, model_to_load=model)
    expected = model.state_dict()
    assert found["tensors"].keys() == expected.keys()
    for name, tensor in found["tensors"].items():
        assert torch.allclose(tensor, expected[name], rtol=1e-3, atol=1e-6), name
    assert found["config"]["num_hidden_layers"] == model.config.num_hidden_layers


def test_the_two_rows_of_a_rotation_become_neighbours() -> None:
    rows = np.arange(8)[:, None]  # two heads of four rows
    assert interleaved(rows, 2)[:, 0].tolist() == [0, 2, 1, 3, 4, 6, 5, 7]


@pytest.mark.parametrize(
    ("model", "reason"),
    [
        (GPT2Config(), "it is a gpt2"),
        (LlamaConfig(attention_bias=True), "biases"),
        (LlamaConfig(rope_scaling={"rope_type": "linear", "factor": 2.0, "rope_theta": 1e4}), "scaled"),
    ],
)
def test_a_model_that_cannot_be_written_is_refused_with_the_reason(
    model: AutoConfig, reason: str, tmp_path: Path
) -> None:
    assert reason in why_not_gguf(model.to_dict())
    with pytest.raises(ModelError, match="cannot be written as a GGUF"):
        write_gguf(tmp_path, tmp_path / "x.gguf", model=model, tokenizer=None)


def test_scaled_positions_are_seen_under_their_earlier_name() -> None:
    assert "scaled (linear)" in why_not_gguf({"model_type": "llama", "rope_scaling": {"type": "linear", "factor": 2.0}})
    assert not why_not_gguf({"model_type": "llama", "rope_scaling": None})


def test_weights_that_float16_cannot_hold_are_refused_and_named(tiny_decoder: Path, tmp_path: Path) -> None:
    model = AutoModelForCausalLM.from_pretrained(tiny_decoder, dtype=torch.float32)
    with torch.no_grad():
        model.model.layers[0].mlp.up_proj.weight[0, 0] = 70_000
    model.save_pretrained(tmp_path / "large")
    tokenizer = AutoTokenizer.from_pretrained(tiny_decoder)
    with pytest.raises(ModelError, match=r"'model.layers.0.mlp.up_proj.weight' holds values that float16 has no room"):
        write_gguf(tmp_path / "large", tmp_path / "x.gguf", model=model.config, tokenizer=tokenizer)
