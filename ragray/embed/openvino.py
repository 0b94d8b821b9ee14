"""Encoder on OpenVINO. In: texts. Out: vectors of the torch model, computed by OpenVINO on the CPU.

The model is converted once, checked against torch, and kept in ragray's cache under the fingerprint of its weights.

B texts, T tokens, D dim.
"""

from __future__ import annotations

import threading
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from ragray.artifact.digest import fingerprint as digest
from ragray.artifact.files import atomic_path
from ragray.artifact.lock import exclusive
from ragray.config import EncoderConfig
from ragray.embed.batching import BatchedEncoder, Tokens, default_batch_tokens, load_text_tokenizer
from ragray.embed.encoder import EncoderFingerprint, Vectors, encoder_fingerprint, with_prefixes
from ragray.errors import ModelError, first_line
from ragray.models import cache_dir, resolve_model, weights_fingerprint
from ragray.openvino import import_openvino

if TYPE_CHECKING:
    from ragray.embed.transformer import PooledEncoder

SETTING = "embed.engine=openvino"
PRECISION = {"auto": "f32", "float32": "f32", "bfloat16": "bf16", "float16": "f16"}
"""OpenVINO chooses bfloat16 by itself where the CPU has it; ragray says what it wants."""

PADDING_TOKENS = 15
"""A call costs as much as so many tokens (MiniLM in float32 on two cores of AVX2: 4.5 ms, and 0.3 ms per token)."""

LEAST_COSINE = 0.9999
"""Between the vectors of a converted model and those of torch."""


class OpenVinoEncoder(BatchedEncoder):
    """Encodes texts with a model that OpenVINO compiled; may be used from several threads, one of which computes at a time."""

    padding_tokens = PADDING_TOKENS

    def __init__(
        self,
        compiled: Any,
        tokenizer: Any,
        config: EncoderConfig,
        fingerprint: EncoderFingerprint,
        *,
        batch_tokens: int = 0,
    ) -> None:
        super().__init__(tokenizer, config, fingerprint, batch_tokens=batch_tokens or default_batch_tokens("cpu"))
        self._compiled = compiled
        self._computing = threading.Lock()

    @classmethod
    def compile(
        cls,
        config: EncoderConfig,
        *,
        threads: int = 0,
        weights: Path | None = None,
        fingerprint: EncoderFingerprint | None = None,
        dtype: str = "float32",
        batch_tokens: int = 0,
    ) -> OpenVinoEncoder:
        """Compile the model that a configuration names for so many threads of this CPU (0: all).

        ``weights`` and ``fingerprint`` are those of a fine-tuned question encoder, as `TransformerEncoder.load` takes them.

        Raises:
            MissingPackageError: OpenVINO is not installed.
            ModelNotFoundError: the name resolves to nothing, or the folder holds no safetensors.
            ModelError: OpenVINO cannot convert the model, or computes other vectors than torch.
        """
        openvino = import_openvino(SETTING)
        folder = weights or resolve_model(config.model)
        config = with_prefixes(config)
        fingerprint = fingerprint or encoder_fingerprint(config, folder)
        hints: dict[str, str | bool] = {
            "PERFORMANCE_HINT": "LATENCY",
            "INFERENCE_PRECISION_HINT": PRECISION[dtype],
            "ENABLE_CPU_PINNING": False,  # every actor of a machine would pin its threads to the same first cores
        }
        if threads:
            hints["INFERENCE_NUM_THREADS"] = str(threads)
        compiled = openvino.Core().compile_model(str(_converted(folder, fingerprint)), "CPU", hints)
        return cls(compiled, load_text_tokenizer(folder), config, fingerprint, batch_tokens=batch_tokens)

    def _vectors(self, input_ids_BT: Tokens, attention_mask_BT: Tokens) -> Vectors:
        with self._computing:
            result = self._compiled([input_ids_BT, attention_mask_BT])
        return np.asarray(result[0], dtype=np.float32)


def _converted(folder: Path, identity: EncoderFingerprint) -> Path:
    """Return the converted model. Of processes that start together, one converts and the others wait."""
    version = import_openvino(SETTING).__version__
    key = digest([weights_fingerprint(folder), identity.pooling, identity.normalize, version])
    target = cache_dir() / "openvino" / key
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
    module, mask_BT = load_module(folder, identity), torch.tensor([[1] * 8, [1] * 5 + [0] * 3])
    try:
        with torch.inference_mode(), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the tracer warns of every shape that it takes for a constant
            model = openvino.convert_model(module, example_input=(torch.ones_like(mask_BT), mask_BT))
        for tensor in model.inputs:
            tensor.get_node().set_partial_shape(openvino.PartialShape([-1, -1]))
        model.validate_nodes_and_infer_types()
        _require_equal(openvino.Core().compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"}), module)
    except RuntimeError as err:
        raise ModelError(f"{folder}: OpenVINO cannot convert this encoder ({first_line(err)}); use torch") from err
    target.mkdir(parents=True)
    openvino.save_model(model, str(target / "model.xml"), compress_to_fp16=False)


def _require_equal(compiled: Any, module: PooledEncoder) -> None:
    """Raise `RuntimeError` where a converted model computes other vectors than torch for shapes that it was not traced with."""
    import torch

    vocabulary: int = cast(Any, module.model).config.vocab_size
    for lengths in ((1,), (17, 12, 3)):
        mask_BT = (torch.arange(max(lengths)) < torch.tensor(lengths)[:, None]).long()
        ids_BT = torch.arange(mask_BT.numel()).reshape(mask_BT.shape) % vocabulary
        with torch.inference_mode():
            expected_BD = module(ids_BT, mask_BT).numpy()
        found_BD = np.asarray(compiled([ids_BT.numpy(), mask_BT.numpy()])[0])
        norms_B = np.linalg.norm(found_BD, axis=1) * np.linalg.norm(expected_BD, axis=1)
        products_B = (found_BD * expected_BD).sum(axis=1)
        same_B = (norms_B == 0) & (found_BD == expected_BD).all(axis=1)  # nothing but padding has no direction
        least = float(np.divide(products_B, norms_B, out=same_B.astype(np.float32), where=norms_B > 0).min())
        if not least >= LEAST_COSINE:
            raise RuntimeError(f"its vectors have a cosine of {least:.5f} with those of torch")
