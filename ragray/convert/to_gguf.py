"""A model folder as a GGUF. In: safetensors of the Llama family with their tokenizer. Out: one file, weights in float16.

Tensors have llama.cpp's names, and the rows of the query and key projections its order (pairs of a rotation side by side).
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ragray.errors import ModelError

ARCHITECTURE = "llama"
ROTATED = (".q_proj.weight", ".k_proj.weight")


def why_not_gguf(config: Mapping[str, Any]) -> str:
    """Return why a model cannot be written, given what its `config.json` holds; "" where it can."""
    if config.get("model_type") != ARCHITECTURE:
        return f"it is a {config.get('model_type')}, and only models of the Llama family can be"
    rope = config.get("rope_parameters") or config.get("rope_scaling") or {}  # its name before transformers 5
    kind = rope.get("rope_type", rope.get("type", "default"))
    if kind != "default":
        return f"its rotary positions are scaled ({kind})"
    if config.get("attention_bias") or config.get("mlp_bias"):
        return "its projections have biases"
    return ""


def write_gguf(folder: Path, target: Path, *, model: Any, tokenizer: Any) -> None:
    """Write the weights of a model folder to a file, given its configuration and tokenizer as `transformers` has them.

    Raises:
        ModelError: the model is of another family, or has tensors that the format has no name for, or values too large for float16.
    """
    import gguf

    if reason := why_not_gguf(model.to_dict()):
        raise ModelError(f"{folder}: cannot be written as a GGUF: {reason}")
    writer = gguf.GGUFWriter(target, ARCHITECTURE)
    _write_shape(writer, model)
    _write_vocabulary(writer, tokenizer)
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.LLAMA, model.num_hidden_layers)
    for name, tensor in _tensors(folder):
        known = names.get_name(name, try_suffixes=(".weight",))
        if known is None:
            raise ModelError(f"{folder}: cannot be written as a GGUF: the format has no name for its tensor '{name}'")
        stored = _stored(name, tensor, model)
        if not np.isfinite(stored).all():
            raise ModelError(
                f"{folder}: cannot be written as a GGUF: its tensor '{name}' holds values that float16 has no room for"
            )
        writer.add_tensor(known, stored)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _write_shape(writer: Any, model: Any) -> None:
    import gguf

    heads = model.num_attention_heads
    writer.add_name(str(model.model_type))
    writer.add_file_type(gguf.LlamaFileType.MOSTLY_F16)
    writer.add_context_length(model.max_position_embeddings)
    writer.add_embedding_length(model.hidden_size)
    writer.add_block_count(model.num_hidden_layers)
    writer.add_feed_forward_length(model.intermediate_size)
    writer.add_head_count(heads)
    writer.add_head_count_kv(model.num_key_value_heads)
    writer.add_rope_dimension_count(model.hidden_size // heads)
    writer.add_rope_freq_base(float(model.rope_parameters["rope_theta"]))
    writer.add_layer_norm_rms_eps(model.rms_norm_eps)
    writer.add_vocab_size(model.vocab_size)


def _write_vocabulary(writer: Any, tokenizer: Any) -> None:
    """Write the tokens, which readers of a GGUF expect; ragray encodes and decodes with the tokenizer itself."""
    import gguf

    special = set(tokenizer.all_special_ids)
    tokens = tokenizer.convert_ids_to_tokens(range(len(tokenizer)))
    kinds = [gguf.TokenType.CONTROL if number in special else gguf.TokenType.NORMAL for number in range(len(tokens))]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("default")
    writer.add_token_list(tokens)
    writer.add_token_types(kinds)
    writer.add_token_merges(_merges(tokenizer))
    writer.add_eos_token_id(tokenizer.eos_token_id)
    writer.add_bos_token_id(tokenizer.bos_token_id if tokenizer.bos_token_id is not None else tokenizer.eos_token_id)


def _merges(tokenizer: Any) -> list[str]:
    merges = json.loads(tokenizer.backend_tokenizer.to_str())["model"].get("merges", [])
    written = [merge if isinstance(merge, str) else " ".join(merge) for merge in merges]
    return written or ["a b"]  # an empty list has no type in the format, and openvino-genai 2026.4 asks for one


def _tensors(folder: Path) -> Iterator[tuple[str, npt.NDArray[Any]]]:
    import torch
    from safetensors import safe_open

    for path in sorted(folder.glob("*.safetensors")):
        with safe_open(path, framework="pt") as file:
            for name in file.keys():  # noqa: SIM118 # it is no mapping
                yield name, file.get_tensor(name).to(torch.float32).numpy()


def _stored(name: str, tensor: npt.NDArray[Any], model: Any) -> npt.NDArray[Any]:
    """Return a tensor as the format stores it: norms in float32, all else in float16."""
    if tensor.ndim == 1:
        return tensor
    if name.endswith(ROTATED):
        heads = model.num_attention_heads if name.endswith(ROTATED[0]) else model.num_key_value_heads
        tensor = interleaved(tensor, heads)
    with np.errstate(over="ignore"):  # the caller refuses what became infinite
        return tensor.astype(np.float16)


def interleaved(rows: npt.NDArray[Any], num_heads: int) -> npt.NDArray[Any]:
    """Order the rows of a projection so that the two of each rotation are neighbours; the first half of a head holds their first."""
    size, width = rows.shape
    halves = rows.reshape(num_heads, 2, size // num_heads // 2, width)
    return np.ascontiguousarray(halves.swapaxes(1, 2).reshape(size, width))
