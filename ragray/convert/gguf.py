"""A GGUF. In: its file. Out: a model folder in float32."""

from __future__ import annotations

from pathlib import Path


def convert_gguf(source: Path, folder: Path) -> None:
    """Dequantise to float32 and save. The model is built anew because transformers refuses to save one that it loaded as quantised."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    quantized = AutoModelForCausalLM.from_pretrained(source.parent, gguf_file=source.name, dtype=torch.float32)
    config = quantized.config
    if hasattr(config, "quantization_config"):
        del config.quantization_config
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    model.load_state_dict(quantized.state_dict())
    model.save_pretrained(folder)
    AutoTokenizer.from_pretrained(source.parent, gguf_file=source.name).save_pretrained(folder)
