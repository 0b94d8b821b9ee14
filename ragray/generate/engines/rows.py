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
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer

from ragray.embed.batching import length_groups
from ragray.generate.engines.model import GROUP_TOKENS, GeneratorModel, positions
from ragray.generate.engines.prefixes import Layers, ReadPrompts, Shared, in_turn
from ragray.generate.template import left_pad

SPARE_TOKENS = 16
"""Room for tokens to come, at the end of a cache."""


class GrowingLayer(DynamicLayer):  # type: ignore[misc] # transformers is untyped
    """Keys and values of one layer with room for more tokens; a `DynamicLayer` copies all of them for each."""

    keys: Tensor
    values: Tensor

    @classmethod
    def of(cls, layer: DynamicLayer) -> GrowingLayer:
        """Return a layer with the same keys and values."""
        if isinstance(layer, cls):
            return layer
        grown = cls()
        grown.lazy_initialization(layer.keys, layer.values)
        grown.keys, grown.values = layer.keys, layer.values
        return grown

    def update(self, key_states: Tensor, value_states: Tensor, *_: Any, **__: Any) -> tuple[Tensor, Tensor]:
        """Put tokens behind those that are there, (R, heads, T, head size); return all of them."""
        self._room = [
            _with_room(present, states, room)
            for present, states, room in zip(
                (self.keys, self.values), (key_states, value_states), getattr(self, "_room", (None, None)), strict=True
            )
        ]
        length = self.keys.shape[2] + key_states.shape[2]
        self.keys, self.values = (room[:, :, :length] for room in self._room)
        return self.keys, self.values


def _with_room(present: Tensor, states: Tensor, room: Tensor | None) -> Tensor:
    """Write ``states`` behind what is ``present``: in the room that it is the beginning of, where that is so, else in a new one."""
    size, length = present.shape[2], present.shape[2] + states.shape[2]
    fits = room is not None and room.data_ptr() == present.data_ptr() and room.shape[2] >= length
    if room is None or not fits or room.shape[:2] != present.shape[:2]:
        room = present.new_empty((*present.shape[:2], length + SPARE_TOKENS, present.shape[3]))
        room[:, :, :size] = present
    room[:, :, size:length] = states
    return room


class Rows:
    """Rows with their cache; made by `read`."""

    def __init__(self, model: GeneratorModel, mask_RT: Tensor, encoded: Any | None) -> None:
        self._model = model
        self._mask = mask_RT
        self._encoded = encoded
        self._cache: Any = None
        self._logits: Tensor = torch.empty(0)

    @classmethod
    def read(
        cls,
        model: GeneratorModel,
        prompts: Sequence[Sequence[int]],
        *,
        fused: Sequence[int] = (),
        known: ReadPrompts | None = None,
    ) -> Rows:
        """Let the model read prompts, one row per prompt; with ``fused`` a row reads so many of them (see `fuse`).

        What they share with prompts that are ``known``, or with each other, is not read again.
        """
        if known is not None and not model.is_encoder_decoder and known.usable is None:
            first = cls.read(model, prompts[:1])
            known.usable = first.joinable
            first._keep(prompts[:1], [0], known)
        if known is not None and known.usable:
            return cls._read_new(model, prompts, known)
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

    @classmethod
    def _read_new(cls, model: GeneratorModel, prompts: Sequence[Sequence[int]], known: ReadPrompts) -> Rows:
        """Read what is not known of prompts, those of similar length together; first what others begin with, too."""
        found = [known.find(prompt) for prompt in prompts]
        first, later = in_turn(prompts, [each.num_tokens for each in found])
        lengths = [len(prompts[number]) - found[number].num_tokens for number in first]
        order, parts = list[int](), list[Rows]()
        for group in length_groups(lengths, GROUP_TOKENS["cpu"]):
            numbers = [first[place] for place in group]
            parts.append(cls._continue(model, [prompts[n] for n in numbers], [found[n] for n in numbers]))
            parts[-1]._keep([prompts[n] for n in numbers], [found[n].num_tokens for n in numbers], known)
            order += numbers
        if later:
            parts.append(cls._read_new(model, [prompts[number] for number in later], known))
        return _joined(parts, [*order, *later])

    @classmethod
    def _continue(cls, model: GeneratorModel, prompts: Sequence[Sequence[int]], found: Sequence[Shared]) -> Rows:
        """Read prompts from where they are known: all of them from so many tokens before their ends, so that nothing is padded."""
        num_new = max(len(prompt) - each.num_tokens for prompt, each in zip(prompts, found, strict=True))
        sizes = [max(0, len(prompt) - num_new) for prompt in prompts]
        ids, mask = (
            torch.tensor(part, device=model.device) for part in left_pad([p[-num_new:] for p in prompts], model.pad_id)
        )
        before = torch.tensor(left_pad([[0] * size for size in sizes], 0)[1], device=model.device)
        rows = cls(model, torch.cat([before.to(mask.dtype), mask], dim=1), None)
        rows._cache = _cache([each.layers for each in found], sizes) if max(sizes) else None
        rows._forward(ids, position_ids=positions(rows._mask)[:, -num_new:])
        return rows

    def _keep(self, prompts: Sequence[Sequence[int]], known_tokens: Sequence[int], known: ReadPrompts) -> None:
        """Keep the prompts of these rows of which most was not known."""
        for row, (prompt, num_known) in enumerate(zip(prompts, known_tokens, strict=True)):
            if self.joinable and 2 * num_known < len(prompt):
                part = (row, slice(None), slice(-len(prompt), None))
                known.keep(
                    prompt, [(each.keys[part].clone(), each.values[part].clone()) for each in self._cache.layers]
                )

    @property
    def joinable(self) -> bool:
        """Whether other rows can be put beside these.

        That is so where the cache keeps every key of every layer as it was made. The decoder of an encoder-decoder counts
        positions from the cache's beginning, and sliding windows drop keys: rows that began at another time do not fit.
        """
        layers = getattr(self._cache, "layers", ())
        kinds = {type(layer) for layer in layers}
        return self._encoded is None and bool(layers) and kinds <= {DynamicLayer, GrowingLayer}

    def log_probs(self) -> Tensor:
        """Return log p of the next token, (R, V) float32."""
        return self._logits.float().log_softmax(-1)

    def append(self, token_R: Tensor) -> None:
        """Let every row go on with a token."""
        if self._encoded is not None:
            self._forward(token_R[:, None])
            return
        self._mask = torch.cat([self._mask, torch.ones_like(self._mask[:, :1])], dim=1)
        if self.joinable:
            self._cache.layers = [GrowingLayer.of(layer) for layer in self._cache.layers]
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


def _joined(parts: Sequence[Rows], order: Sequence[int]) -> Rows:
    """Put rows behind each other, and then each where ``order`` says."""
    rows = parts[0]
    for others in parts[1:]:
        rows.join(others)
    if list(order) != sorted(order):
        rows.select(torch.tensor(order, device=rows._mask.device).argsort())
    return rows


def _cache(layers: Sequence[Layers], sizes: Sequence[int]) -> Any:
    """Make a cache of the first tokens of some prompts, ``sizes`` of each; they end together."""
    cache, longest = DynamicCache(), max(sizes)
    like = next(filter(None, layers))
    for number, (keys, values) in enumerate(like):
        shape = (len(sizes), keys.shape[0], longest, keys.shape[2])
        states = keys.new_zeros(shape), values.new_zeros((*shape[:3], values.shape[2]))
        for row, (each, size) in enumerate(zip(layers, sizes, strict=True)):
            for all_rows, known in zip(states, each[number] if size else (), strict=False):
                all_rows[row, :, longest - size :] = known[:, :size]
        cache.update(*states, number)
    return cache


def _padded(states_RHTD: Tensor, length: int) -> Tensor:
    """Pad keys or values of shape (R, heads, T, head size) on the left of T."""
    return F.pad(states_RHTD, (0, 0, length - states_RHTD.shape[2], 0))
