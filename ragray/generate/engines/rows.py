"""The rows that a generator decodes. In: prompts, then one token per row at a time. Out: log-probabilities of each row's next token.

Rows are right-aligned in one key-value cache, and a mask says where each begins, so that rows of other lengths can join them.

R rows, T tokens, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from ragray.generate.engines.model import GeneratorModel, positions


class Rows:
    """Rows with their cache; made by `read`."""

    def __init__(self, model: GeneratorModel, mask_RT: Tensor, encoded: Any | None) -> None:
        self._model = model
        self._mask = mask_RT
        self._encoded = encoded
        self._cache: Any = None
        self._logits: Tensor = torch.empty(0)

    @classmethod
    def read(cls, model: GeneratorModel, prompts: Sequence[Sequence[int]], *, fused: Sequence[int] = ()) -> Rows:
        """Let the model read prompts, one row per prompt; with ``fused`` a row reads so many of them (see `fuse`)."""
        ids, mask = (torch.tensor(part, device=model.device) for part in model.pad_prompts(prompts))
        if not model.is_encoder_decoder:
            rows = cls(model, mask, None)
            rows._forward(ids, position_ids=positions(mask))
            return rows
        encoded, mask = model.encode(ids, mask, fused=fused)
        rows = cls(model, mask, encoded)
        start = int(model.model.config.decoder_start_token_id)
        rows._forward(torch.full((len(mask), 1), start, device=model.device))
        return rows

    @property
    def joinable(self) -> bool:
        """Whether other rows can be put beside these.

        That is so where the cache keeps every key of every layer as it was made. The decoder of an encoder-decoder counts
        positions from the cache's beginning, and sliding windows drop keys: rows that began at another time do not fit.
        """
        from transformers.cache_utils import DynamicLayer

        layers = getattr(self._cache, "layers", ())
        return self._encoded is None and bool(layers) and all(type(layer) is DynamicLayer for layer in layers)

    def log_probs(self) -> Tensor:
        """Return log p of the next token, (R, V) float32."""
        return self._logits.float().log_softmax(-1)

    def append(self, token_R: Tensor) -> None:
        """Let every row go on with a token."""
        if self._encoded is not None:
            self._forward(token_R[:, None])
            return
        self._mask = torch.cat([self._mask, torch.ones_like(self._mask[:, :1])], dim=1)
        self._forward(token_R[:, None], position_ids=positions(self._mask)[:, -1:])

    def join(self, others: Rows) -> None:
        """Put other rows behind these; the shorter ones are padded on the left."""
        length = max(self._mask.shape[1], others._mask.shape[1])
        for mine, theirs in zip(self._cache.layers, others._cache.layers, strict=True):
            mine.keys = torch.cat([_padded(mine.keys, length), _padded(theirs.keys, length)])
            mine.values = torch.cat([_padded(mine.values, length), _padded(theirs.values, length)])
        masks = (F.pad(rows._mask, (length - rows._mask.shape[1], 0)) for rows in (self, others))
        self._mask = torch.cat([*masks])
        self._logits = torch.cat([self._logits, others._logits])

    def select(self, kept: Tensor) -> None:
        """Drop all rows but some, and the padding that no row needs any longer."""
        self._mask, self._logits = self._mask[kept], self._logits[kept]
        self._cache.batch_select_indices(kept)
        if self._encoded is not None:
            self._encoded.last_hidden_state = self._encoded.last_hidden_state[kept]
        elif self.joinable and (spare := int(self._mask.any(0).int().argmax())):
            self._mask = self._mask[:, spare:]
            for layer in self._cache.layers:
                layer.keys, layer.values = layer.keys[..., spare:, :], layer.values[..., spare:, :]

    def _forward(self, ids_RT: Tensor, **more: Tensor) -> None:
        if self._encoded is not None:
            output = self._model.model(
                encoder_outputs=self._encoded,
                attention_mask=self._mask,
                decoder_input_ids=ids_RT,
                past_key_values=self._cache,
                use_cache=True,
            )
        else:
            output = self._model.model(
                input_ids=ids_RT,
                attention_mask=self._mask,
                past_key_values=self._cache,
                use_cache=True,
                logits_to_keep=1,
                **more,
            )
        self._cache = output.past_key_values
        self._logits = output.logits[:, -1]


def _padded(states_RHTD: Tensor, length: int) -> Tensor:
    """Pad keys or values of shape (R, heads, T, head size) on the left of T."""
    return F.pad(states_RHTD, (0, 0, length - states_RHTD.shape[2], 0))
