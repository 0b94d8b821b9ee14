"""Where tensors live, and in which type. In: `auto`, or what a configuration names. Out: a torch device, a torch type."""

from __future__ import annotations

import torch

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def pick_device(device: str) -> torch.device:
    """Resolve `auto` to the GPU if there is one; attention is not computed by cuDNN from then on."""
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    # cuDNN's attention gave gradients of NaN, and another loss, for rows of very different lengths (torch 2.11 on an H100: 960 tokens
    # beside 177, padded on the left); the other kernels agree with each other.
    torch.backends.cuda.enable_cudnn_sdp(False)
    return torch.device(device)


def pick_dtype(dtype: str, device: torch.device) -> torch.dtype:
    """Resolve `auto` to bfloat16 on a GPU that computes in it, else to float32."""
    if dtype == "auto":
        dtype = "bfloat16" if device.type == "cuda" and torch.cuda.is_bf16_supported() else "float32"
    return DTYPES[dtype]


def at_least_float32(values: torch.Tensor) -> torch.Tensor:
    """Return values in float32 where they are of a smaller type."""
    return values.to(torch.promote_types(values.dtype, torch.float32))
