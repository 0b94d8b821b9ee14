"""Encoder on OpenVINO. In: texts. Out: vectors of the torch model, computed by OpenVINO on the CPU.

The model is converted once and kept in ragray's cache; the name of the file is the fingerprint of its source.
"""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np

from ragray.artifact.digest import fingerprint
from ragray.artifact.files import atomic_path
from ragray.artifact.lock import exclusive
from ragray.config import EmbedConfig
from ragray.embed.batching import BatchedEncoder, Tokens, default_batch_tokens, load_text_tokenizer
from ragray.embed.encoder import EncoderFingerprint, Vectors, encoder_fingerprint, with_prefixes
from ragray.models import cache_dir, resolve_model
from ragray.openvino import import_openvino

SETTING = "embed.engine=openvino"
PRECISION = {"auto": "f32", "float32": "f32", "bfloat16": "bf16", "float16": "f16"}
"""OpenVINO chooses bfloat16 by itself where the CPU has it; ragray says what it wants."""


class OpenVinoEncoder(BatchedEncoder):
    """Encodes texts with a model that OpenVINO compiled."""

    def __init__(self, compiled: Any, tokenizer: Any, config: EmbedConfig, fingerprint: EncoderFingerprint) -> None:
        super().__init__(
            tokenizer, config, fingerprint, batch_tokens=config.batch_tokens or default_batch_tokens("cpu")
        )
        self._compiled = compiled

    @classmethod
    def compile(cls, config: EmbedConfig, *, threads: int = 0) -> OpenVinoEncoder:
        """Compile the model that a configuration names for so many threads of this CPU (0: all).

        Raises:
            MissingPackageError: OpenVINO is not installed.
            ModelNotFoundError: the name resolves to nothing, or the folder holds no safetensors.
        """
        openvino = import_openvino(SETTING)

        folder = resolve_model(config.model)
        config = with_prefixes(config)
        identity = encoder_fingerprint(config, folder)
        hints: dict[str, str | bool] = {
            "PERFORMANCE_HINT": "LATENCY",
            "INFERENCE_PRECISION_HINT": PRECISION[config.dtype],
            "ENABLE_CPU_PINNING": False,  # every actor of a machine would pin its threads to the same first cores
        }
        if threads:
            hints["INFERENCE_NUM_THREADS"] = str(threads)
        compiled = openvino.Core().compile_model(str(_converted(folder, identity)), "CPU", hints)
        return cls(compiled, load_text_tokenizer(folder), config, identity)

    def _vectors(self, input_ids_BT: Tokens, attention_mask_BT: Tokens) -> Vectors:
        result = self._compiled([input_ids_BT, attention_mask_BT])
        return np.asarray(result[0], dtype=np.float32)


def _converted(folder: Path, identity: EncoderFingerprint) -> Path:
    """Return the converted model. Of processes that start together, one converts and the others wait."""
    version = import_openvino(SETTING).__version__
    target = cache_dir() / "openvino" / fingerprint([identity.weights, identity.pooling, identity.normalize, version])
    if not target.is_dir():
        with exclusive(target.parent, wait=True):
            if not target.is_dir():
                with atomic_path(target) as temporary:
                    _convert(folder, identity, temporary)
    return target / "model.xml"


def _convert(folder: Path, identity: EncoderFingerprint, target: Path) -> None:
    """Trace the torch module with two texts, one of them padded, and save it in float32 with dynamic shapes."""
    import torch

    from ragray.embed.transformer import load_module

    openvino = import_openvino(SETTING)
    mask = torch.tensor([[1] * 8, [1] * 5 + [0] * 3])
    with torch.inference_mode(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the tracer warns of every shape that it takes for a constant
        model = openvino.convert_model(load_module(folder, identity), example_input=(torch.ones_like(mask), mask))
    for tensor in model.inputs:
        tensor.get_node().set_partial_shape(openvino.PartialShape([-1, -1]))
    model.validate_nodes_and_infer_types()
    target.mkdir(parents=True)
    openvino.save_model(model, str(target / "model.xml"), compress_to_fp16=False)
