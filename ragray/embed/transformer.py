"""Encoder on torch. In: texts. Out: pooled, normalised vectors of a `transformers` model; differentiable for training.

B texts, T tokens, D dim.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ragray.config import EncoderConfig
from ragray.device import at_least_float32, pick_device, pick_dtype
from ragray.embed.batching import BatchedEncoder, Tokens, default_batch_tokens, load_text_tokenizer
from ragray.embed.encoder import EncoderFingerprint, Vectors, encoder_fingerprint, with_prefixes
from ragray.models import load_model_config, load_weights, resolve_model


class PooledEncoder(nn.Module):
    """A `transformers` encoder with its pooling: tokens in, one vector per text out."""

    def __init__(self, model: nn.Module, *, pooling: str, normalize: bool) -> None:
        super().__init__()
        self.model = model
        self.pooling = pooling
        self.normalize = normalize

    def forward(self, input_ids_BT: Tensor, attention_mask_BT: Tensor) -> Tensor:
        """Return vectors (B, D): the mean over the tokens, the first token's state, the last one's; those of DPR are its own."""
        output = self.model(input_ids=input_ids_BT, attention_mask=attention_mask_BT)
        if "last_hidden_state" in output:
            vectors_BD = self._pooled(at_least_float32(output.last_hidden_state), attention_mask_BT)
        else:
            vectors_BD = at_least_float32(output.pooler_output)  # of DPR: the first token's state, projected
        return F.normalize(vectors_BD, dim=-1) if self.normalize else vectors_BD

    def _pooled(self, states_BTD: Tensor, attention_mask_BT: Tensor) -> Tensor:
        if self.pooling == "cls":
            return states_BTD[:, 0]
        if self.pooling == "lasttoken":
            return last_token(states_BTD, attention_mask_BT)
        mask_BT1 = attention_mask_BT[:, :, None].to(states_BTD.dtype)
        return (states_BTD * mask_BT1).sum(1) / mask_BT1.sum(1).clamp(min=1)


def last_token(states_BTD: Tensor, attention_mask_BT: Tensor) -> Tensor:
    """Return the states at the last position of each text where the mask is 1, on whichever side it is padded, -> (B, D)."""
    positions_T = torch.arange(states_BTD.shape[1], device=states_BTD.device)
    last_B = (attention_mask_BT * positions_T).max(1).values
    return states_BTD.gather(1, last_B[:, None, None].expand(-1, 1, states_BTD.shape[2])).squeeze(1)


class TransformerEncoder(BatchedEncoder):
    """Encodes texts with a pretrained model on torch."""

    def __init__(
        self,
        module: PooledEncoder,
        tokenizer: Any,
        config: EncoderConfig,
        fingerprint: EncoderFingerprint,
        *,
        dtype: str = "float32",
        batch_tokens: int = 0,
    ) -> None:
        self.module = module
        super().__init__(
            tokenizer, config, fingerprint, batch_tokens=batch_tokens or default_batch_tokens(self.device.type)
        )
        # The weights themselves: autocast would convert them anew for each batch.
        module.to(pick_dtype(dtype, self.device))

    @classmethod
    def load(
        cls,
        config: EncoderConfig,
        *,
        device: str = "auto",
        threads: int = 0,
        weights: Path | None = None,
        fingerprint: EncoderFingerprint | None = None,
        dtype: str = "float32",
        batch_tokens: int = 0,
    ) -> TransformerEncoder:
        """Load the model that a configuration names; ``threads`` other than 0 sets those of torch in this process.

        With ``weights`` and ``fingerprint`` it is a fine-tuned question encoder: its weights differ, and its vectors are
        compared with those of the passage encoder that has the fingerprint.

        Raises:
            ModelNotFoundError: the name resolves to nothing, or the folder holds no safetensors.
        """
        if threads:
            torch.set_num_threads(threads)
        folder = weights or resolve_model(config.model)
        config = with_prefixes(config)
        fingerprint = fingerprint or encoder_fingerprint(config, folder)
        module = load_module(folder, fingerprint).to(pick_device(device))
        tokenizer = load_text_tokenizer(folder)
        return cls(module, tokenizer, config, fingerprint, dtype=dtype, batch_tokens=batch_tokens)

    @property
    def device(self) -> torch.device:
        """The device of the module."""
        return next(self.module.parameters()).device

    def question_tensors(self, texts: Sequence[str]) -> tuple[Tensor, Tensor]:
        """Tokenise questions for `PooledEncoder`: ids and mask, both (B, T), on the module's device."""
        return self._tensors(texts, self.config.question_prefix)

    def passage_tensors(self, texts: Sequence[str]) -> tuple[Tensor, Tensor]:
        """Tokenise passages as `question_tensors` does questions."""
        return self._tensors(texts, self.config.passage_prefix)

    def _tensors(self, texts: Sequence[str], prefix: str) -> tuple[Tensor, Tensor]:
        batch = self.tokenizer(
            [prefix + text for text in texts],
            padding=True,
            truncation=True,
            max_length=self.config.max_length,
            return_tensors="pt",
        )
        return batch["input_ids"].to(self.device), batch["attention_mask"].to(self.device)

    def _encode(self, tokens: list[list[int]]) -> Vectors:
        training = self.module.training
        self.module.eval()
        try:
            return super()._encode(tokens)
        finally:
            self.module.train(training)

    @torch.inference_mode()
    def _vectors(self, input_ids_BT: Tokens, attention_mask_BT: Tokens) -> Vectors:
        device = self.device
        vectors_BD = self.module(
            torch.from_numpy(input_ids_BT).to(device), torch.from_numpy(attention_mask_BT).to(device)
        )
        vectors: Vectors = vectors_BD.float().cpu().numpy()
        return vectors


def load_module(folder: Path, fingerprint: EncoderFingerprint) -> PooledEncoder:
    """Load weights in float32, with the pooling that the fingerprint names; raises `ModelError` as `load_weights` does."""
    from transformers import AutoModel, DPRContextEncoder

    # AutoModel takes every model of DPR for a question encoder, and would find none of a passage encoder's weights.
    of_passages = (load_model_config(folder).architectures or [""])[0] == "DPRContextEncoder"
    model = load_weights(DPRContextEncoder if of_passages else AutoModel, folder, unused="pooler.", dtype=torch.float32)
    model.config.use_cache = False  # a decoder would keep keys and values that no further token reads
    return PooledEncoder(model, pooling=fingerprint.pooling, normalize=fingerprint.normalize).eval()
