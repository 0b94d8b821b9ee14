"""Encoder on torch. In: texts. Out: pooled, normalised vectors of a `transformers` model; differentiable for training.

B texts, T tokens, D dim.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ragray.config import EncoderConfig
from ragray.embed.encoder import EncoderFingerprint, Vectors, encoder_fingerprint
from ragray.models import resolve_model


class PooledEncoder(nn.Module):
    """A `transformers` encoder with its pooling: tokens in, one vector a text out."""

    def __init__(self, model: nn.Module, *, pooling: str, normalize: bool) -> None:
        super().__init__()
        self.model = model
        self.pooling = pooling
        self.normalize = normalize

    def forward(self, input_ids_BT: Tensor, attention_mask_BT: Tensor) -> Tensor:
        """Return vectors (B, D): mean over the tokens, or the first token's state."""
        states_BTD: Tensor = self.model(input_ids=input_ids_BT, attention_mask=attention_mask_BT).last_hidden_state
        if self.pooling == "cls":
            vectors_BD = states_BTD[:, 0]
        else:
            mask_BT1 = attention_mask_BT[:, :, None].to(states_BTD.dtype)
            vectors_BD = (states_BTD * mask_BT1).sum(1) / mask_BT1.sum(1).clamp(min=1)
        return F.normalize(vectors_BD, dim=-1) if self.normalize else vectors_BD


class TransformerEncoder:
    """Encodes texts with a pretrained model; batches are sorted by length and bounded in padded tokens."""

    def __init__(
        self, module: PooledEncoder, tokenizer: Any, config: EncoderConfig, fingerprint: EncoderFingerprint
    ) -> None:
        self.module = module
        self.tokenizer = tokenizer
        self.config = config
        self._fingerprint = fingerprint
        self._batch_tokens = getattr(config, "batch_tokens", 1024)

    @classmethod
    def load(
        cls,
        config: EncoderConfig,
        *,
        device: str = "auto",
        weights: Path | None = None,
        fingerprint: EncoderFingerprint | None = None,
    ) -> TransformerEncoder:
        """Load the model that a configuration names.

        With ``weights`` and ``fingerprint`` it is a fine-tuned question encoder: other weights, but the vectors live in the
        space of the passage encoder with that fingerprint.

        Raises:
            ModelNotFoundError: the name resolves to nothing, or the folder holds no safetensors.
        """
        from transformers import AutoModel, AutoTokenizer

        folder = weights or resolve_model(config.model)
        fingerprint = fingerprint or encoder_fingerprint(config, folder)
        model = AutoModel.from_pretrained(folder, dtype=torch.float32)
        module = PooledEncoder(model, pooling=fingerprint.pooling, normalize=config.normalize)
        module = module.to(pick_device(device)).eval()
        return cls(module, AutoTokenizer.from_pretrained(folder), config, fingerprint)

    @property
    def fingerprint(self) -> EncoderFingerprint:
        """What decides the vectors."""
        return self._fingerprint

    def encode(self, texts: Sequence[str]) -> Vectors:
        """Encode passages, (N,) -> (N, D) float32."""
        return self._encode([self.config.passage_prefix + text for text in texts])

    def encode_questions(self, texts: Sequence[str]) -> Vectors:
        """Encode questions, (N,) -> (N, D) float32."""
        return self._encode([self.config.question_prefix + text for text in texts])

    def question_tensors(self, texts: Sequence[str]) -> tuple[Tensor, Tensor]:
        """Tokenise questions for `PooledEncoder`: ids and mask, both (B, T), on the module's device."""
        batch = self.tokenizer(
            [self.config.question_prefix + text for text in texts],
            padding=True,
            truncation=True,
            max_length=self.config.max_length,
            return_tensors="pt",
        )
        device = next(self.module.parameters()).device
        return batch["input_ids"].to(device), batch["attention_mask"].to(device)

    @torch.inference_mode()
    def _encode(self, texts: list[str]) -> Vectors:
        vectors_ND = np.empty((len(texts), self._fingerprint.dim), dtype=np.float32)
        if not texts:
            return vectors_ND
        tokens = self.tokenizer(texts, truncation=True, max_length=self.config.max_length)["input_ids"]
        device = next(self.module.parameters()).device
        training = self.module.training
        self.module.eval()
        for rows in plan_batches([len(ids) for ids in tokens], self._batch_tokens):
            padded = self.tokenizer.pad({"input_ids": [tokens[row] for row in rows]}, return_tensors="pt").to(device)
            vectors_ND[rows] = self.module(padded["input_ids"], padded["attention_mask"]).float().cpu().numpy()
        self.module.train(training)
        return vectors_ND


def plan_batches(lengths: Sequence[int], batch_tokens: int) -> list[list[int]]:
    """Group rows of similar length, longest first, so that rows x longest stays within ``batch_tokens`` (at least one row)."""
    batches: list[list[int]] = []
    longest = 0
    for row in sorted(range(len(lengths)), key=lambda row: (-lengths[row], row)):
        if not batches or (len(batches[-1]) + 1) * longest > batch_tokens:
            batches.append([])
            longest = max(lengths[row], 1)
        batches[-1].append(row)
    return batches


def pick_device(device: str) -> torch.device:
    """Resolve `auto` to the GPU if there is one."""
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    return torch.device(device)
