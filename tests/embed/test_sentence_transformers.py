"""Models as sentence-transformers saves them: the same vectors, whatever the pooling, the padding, the prompts and the engine."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from ragray.config import EmbedConfig
from ragray.embed.load import load_passage_encoder
from ragray.embed.transformer import TransformerEncoder, last_token

TEXTS = ["the river flows through the town", "cats sleep", "a", "which river flows through the town? " * 3]
PROMPTS = {"query": "find: ", "document": "text: "}
MODULES = "sentence_transformers.models."


def saved(source: Path, folder: Path, *, pooling: str, normalize: bool, prompts: dict[str, str], padding: str) -> Path:
    """Copy a model and add what sentence-transformers writes beside it."""
    shutil.copytree(source, folder)
    kinds = ["Transformer", "Pooling", "Normalize"][: 2 + normalize]
    paths = ["", "1_Pooling", "2_Normalize"]
    modules = [{"idx": n, "name": str(n), "path": paths[n], "type": f"{MODULES}{kind}"} for n, kind in enumerate(kinds)]
    size = json.loads((folder / "config.json").read_text())["hidden_size"]
    files: dict[str, Any] = {
        "modules.json": modules,
        "1_Pooling/config.json": {"word_embedding_dimension": size, f"pooling_mode_{pooling}": True},
        "config_sentence_transformers.json": {"prompts": prompts},
        "sentence_bert_config.json": {"max_seq_length": 64},
    }
    (folder / "2_Normalize").mkdir()
    for name, content in files.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(json.dumps(content))
    settings = json.loads((folder / "tokenizer_config.json").read_text())
    (folder / "tokenizer_config.json").write_text(json.dumps(settings | {"padding_side": padding}))
    return folder


@pytest.mark.parametrize(
    ("kind", "pooling", "normalize", "prompts", "padding", "engine"),
    [
        ("encoder", "mean_tokens", True, {}, "right", "torch"),
        ("encoder", "mean_tokens", False, PROMPTS, "right", "torch"),
        ("encoder", "cls_token", True, {"query": "find: "}, "right", "torch"),
        ("encoder", "cls_token", True, PROMPTS, "right", "openvino"),
        ("encoder", "lasttoken", False, PROMPTS, "right", "torch"),
        ("encoder", "lasttoken", True, {}, "right", "openvino"),
        ("decoder", "lasttoken", True, PROMPTS, "left", "torch"),
        ("decoder", "lasttoken", False, {}, "right", "torch"),
        ("decoder", "mean_tokens", True, {}, "left", "torch"),
        ("decoder", "lasttoken", True, PROMPTS, "left", "openvino"),
    ],
)
def test_vectors_equal_those_of_sentence_transformers(
    tmp_path: Path,
    request: pytest.FixtureRequest,
    monkeypatch: pytest.MonkeyPatch,
    kind: str,
    pooling: str,
    normalize: bool,
    prompts: dict[str, str],
    padding: str,
    engine: str,
) -> None:
    from sentence_transformers import SentenceTransformer  # seconds, which collecting the tests need not take

    monkeypatch.setenv("RAGRAY_CACHE", str(tmp_path / "cache"))
    source = request.getfixturevalue(f"tiny_{kind}")
    folder = saved(source, tmp_path / "m", pooling=pooling, normalize=normalize, prompts=prompts, padding=padding)
    model = SentenceTransformer(str(folder), device="cpu")
    settings = {"model": str(folder), "engine": engine, "normalize": normalize, "max_length": 64}
    encoder = load_passage_encoder(EmbedConfig.model_validate(settings), device="cpu", threads=1)
    np.testing.assert_allclose(encoder.encode(TEXTS), model.encode_document(TEXTS), atol=2e-5)
    np.testing.assert_allclose(encoder.encode_questions(TEXTS), model.encode_query(TEXTS), atol=2e-5)


def test_the_last_token_is_the_last_of_the_mask_on_either_side() -> None:
    states_BTD = torch.arange(24.0).reshape(3, 4, 2)
    mask_BT = torch.tensor([[1, 1, 0, 0], [0, 0, 1, 1], [1, 1, 1, 1]])
    assert torch.equal(
        last_token(states_BTD, mask_BT), torch.stack([states_BTD[0, 1], states_BTD[1, 3], states_BTD[2, 3]])
    )


@pytest.mark.parametrize("padding", ["left", "right"])
def test_questions_in_training_are_pooled_as_passages_are(tmp_path: Path, tiny_decoder: Path, padding: str) -> None:
    """Training pads as the tokenizer says; embedding always pads on the right."""
    folder = saved(tiny_decoder, tmp_path / "m", pooling="lasttoken", normalize=True, prompts={}, padding=padding)
    encoder = TransformerEncoder.load(EmbedConfig(model=str(folder)), device="cpu")
    with torch.inference_mode():
        vectors = encoder.module(*encoder.question_tensors(TEXTS)).numpy()
    np.testing.assert_allclose(vectors, encoder.encode_questions(TEXTS), atol=1e-5)
