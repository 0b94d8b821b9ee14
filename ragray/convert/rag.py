"""The RAG layout of `transformers`. In: a folder whose weights are a question encoder's and a generator's. Out: a folder of each; and back.

The layout: `config.json` with the configurations of both, safetensors whose names begin with `rag.question_encoder.` or
`rag.generator.` (without `rag.` where no class for generation wrote it), and a folder with the tokenizer of each.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from ragray.artifact.files import write_json
from ragray.errors import ModelError

if TYPE_CHECKING:
    from torch import Tensor

Part = Literal["question_encoder", "generator"]
PARTS: tuple[Part, ...] = ("question_encoder", "generator")
CLASSES = {"sequence": "RagSequenceForGeneration", "token": "RagTokenForGeneration"}
WEIGHTS = "model.safetensors"
PROJECTION = "question_encoder.encode_proj"


def rag_config(folder: Path) -> dict[str, Any] | None:
    """Return the configuration of a RAG model, None where a folder holds another model."""
    config = read_model_config(folder)
    return config if config.get("model_type") == "rag" else None


def read_model_config(folder: Path) -> dict[str, Any]:
    """Return what a model's `config.json` holds; nothing where it cannot be read, as whoever loads the model says why."""
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return config if isinstance(config, dict) else {}


def marginalize_of(config: Mapping[str, Any]) -> str:
    """Return whether a RAG model is one of RAG-Sequence or RAG-Token, "" where its configuration names neither class."""
    names = config.get("architectures") or []
    return next((kind for kind, name in CLASSES.items() if name in names), "")


def split_rag(folder: Path, target: Path) -> None:
    """Write question encoder and generator of a RAG model as model folders below ``target``.

    Raises:
        ModelError: there are no safetensors, or a part has no weights, no configuration or no tokenizer.
    """
    config, weights = rag_config(folder) or {}, _weights_by_part(folder)
    for part in PARTS:
        tokenizer = folder / f"{part}_tokenizer"
        if not isinstance(config.get(part), dict) or not weights[part] or not tokenizer.is_dir():
            raise ModelError(
                f"{folder}: a RAG model needs weights named rag.{part}.*, '{part}' in config.json and the folder {tokenizer.name}; "
                "save model and tokenizer with save_pretrained"
            )
        shutil.copytree(tokenizer, target / part)
        write_json(target / part / "config.json", _config_of_part(config[part]))
        _save(weights[part], target / part)


def join_rag(
    question_encoder: Path, generator: Path, target: Path, settings: Mapping[str, Any], marginalize: str
) -> None:
    """Write a RAG model of the class that ``marginalize`` names; ``settings`` are further entries of its configuration."""
    folders = {"question_encoder": question_encoder, "generator": generator}
    weights: dict[str, Tensor] = {}
    config: dict[str, Any] = {"model_type": "rag", "architectures": [CLASSES[marginalize]], "is_encoder_decoder": True}
    for part, folder in folders.items():
        config[part] = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        weights |= {f"rag.{part}.{name}": tensor for name, tensor in _tensors(folder).items()}
        shutil.copytree(folder, target / f"{part}_tokenizer", ignore=_all_but_tokenizer)
    write_json(target / "config.json", {**config, **settings})
    _save(weights, target)


def as_dpr(folder: Path, target: Path, *, scale: float) -> None:
    """Write an encoder of BERT or DPR as a question encoder of DPR whose vectors are ``scale`` times as long.

    DPR takes the first token's state, and projects it where it has a projection.
    """
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    shutil.copytree(folder, target, ignore=_all_but_tokenizer)
    tensors = _tensors(folder)
    if config.get("model_type") != "dpr":
        named = {name: tensor for name, tensor in tensors.items() if not name.startswith("pooler.")}
        tensors = {f"question_encoder.bert_model.{name}": tensor for name, tensor in named.items()}
    if scale != 1:
        tensors |= _projection(tensors, int(config["hidden_size"]), scale)
    size = tensors[f"{PROJECTION}.bias"].shape[0] if f"{PROJECTION}.bias" in tensors else 0
    kind = {"model_type": "dpr", "architectures": ["DPRQuestionEncoder"], "projection_dim": size}
    write_json(target / "config.json", {**config, **kind})
    _save(tensors, target)


def _projection(tensors: dict[str, Tensor], size: int, scale: float) -> dict[str, Tensor]:
    """Return the projection of DPR times ``scale``; where there is none it is that of the identity."""
    import torch

    weight = tensors.get(f"{PROJECTION}.weight", torch.eye(size))
    bias = tensors.get(f"{PROJECTION}.bias", torch.zeros(size))
    return {f"{PROJECTION}.weight": weight * scale, f"{PROJECTION}.bias": bias * scale}


def _config_of_part(config: dict[str, Any]) -> dict[str, Any]:
    is_dpr = config.get("model_type") == "dpr"
    return {**config, "architectures": ["DPRQuestionEncoder"]} if is_dpr else config


def _weights_by_part(folder: Path) -> dict[str, dict[str, Tensor]]:
    weights: dict[str, dict[str, Tensor]] = {part: {} for part in PARTS}
    for name, tensor in _tensors(folder).items():
        part, _, rest = name.removeprefix("rag.").partition(".")
        if part in weights:
            weights[part][rest] = tensor
    return weights


def _tensors(folder: Path) -> dict[str, Tensor]:
    from safetensors.torch import load_file

    files = sorted(folder.glob("*.safetensors"))
    if not files:
        raise ModelError(f"{folder}: holds no *.safetensors; convert the weights with save_pretrained")
    return {name: tensor for path in files for name, tensor in load_file(path).items()}


def _save(weights: dict[str, Tensor], folder: Path) -> None:
    from safetensors.torch import save_file

    save_file(weights, folder / WEIGHTS, metadata={"format": "pt"})


def _all_but_tokenizer(folder: str, names: list[str]) -> list[str]:
    """Return the files and folders of a model folder that are no part of its tokenizer."""
    wanted = (
        "tokenizer",
        "vocab",
        "merges",
        "special_tokens",
        "added_tokens",
        "spiece",
        "sentencepiece",
        "chat_template",
    )
    return [name for name in names if not name.startswith(wanted) or (Path(folder) / name).is_dir()]
