"""Marginal decoding. In: questions, each with K passages. Out: one answer each, token by token, and p(passage | question, answer).

All K rows of a question are decoded together and write the same token, chosen from the mixture

    p(y_i | x, y_<i) = sum_z w_z p(y_i | x, z, y_<i)

With RAG-Sequence (Lewis et al. 2020, section 2.1) p(y | x) = sum_z p(z | x) prod_i p(y_i | x, z, y_<i); by the chain rule the
weight of passage z at token i is its posterior w_z = p(z | x, y_<i), which each token updates: greedy decoding of the exact
mixture, one token at a time, so it can be streamed. With RAG-Token the weights stay p(z | x) throughout.

B questions, K passages, R = B K rows, T tokens, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from ragray.generate.model import GeneratorModel, positions
from ragray.generate.prompt import left_pad


@dataclass(slots=True)
class Decoding:
    """An answer while it is written."""

    token_ids: list[int] = field(default_factory=list)
    log_prob: float = 0.0
    weights: list[float] = field(default_factory=list)
    finished: bool = False


@torch.inference_mode()
def decode(
    model: GeneratorModel,
    prompts: Sequence[Sequence[Sequence[int]]],
    log_prior_BK: Tensor,
    *,
    max_new_tokens: int,
    update_posterior: bool,
) -> Iterator[list[Decoding]]:
    """Decode B questions of K prompts each; yield all answers after every token.

    ``log_prior_BK`` is log p(z | x). The answers hold no end token. Finished questions leave the batch.
    """
    answers = [Decoding() for _ in prompts]
    alive = list(range(len(prompts)))
    log_prior_BK = log_prior_BK.to(model.device)
    mixing_BK, posterior_BK = log_prior_BK, log_prior_BK
    stop = model.stop_ids()
    state = _State.start(model, [row for rows in prompts for row in rows])
    for _ in range(max_new_tokens):
        logp_BKV = state.log_probs().view(*mixing_BK.shape, -1)
        mixture_BV = (mixing_BK[:, :, None] + logp_BKV).logsumexp(1)
        best_B = mixture_BV.argmax(-1)
        of_best_BK = logp_BKV.gather(-1, best_B[:, None, None].expand(-1, logp_BKV.shape[1], 1)).squeeze(-1)
        posterior_BK = (posterior_BK + of_best_BK).log_softmax(-1)
        if update_posterior:
            mixing_BK = posterior_BK
        for row, number in enumerate(alive):
            answer, token = answers[number], int(best_B[row])
            answer.log_prob += float(mixture_BV[row, token])
            answer.weights = posterior_BK[row].exp().tolist()
            answer.finished = token in stop
            if not answer.finished:
                answer.token_ids.append(token)
        yield answers
        keep = [row for row, number in enumerate(alive) if not answers[number].finished]
        if not keep:
            return
        if len(keep) < len(alive):
            alive = [alive[row] for row in keep]
            kept = torch.tensor(keep, device=model.device)
            mixing_BK, posterior_BK, best_B = mixing_BK[kept], posterior_BK[kept], best_B[kept]
            state.select(kept, mixing_BK.shape[1])
        state.append(best_B.repeat_interleave(mixing_BK.shape[1]))


class _State:
    """The rows that are being decoded, with their key-value cache."""

    def __init__(self, model: GeneratorModel, mask_RT: Tensor, encoded: Any | None) -> None:
        self._model = model
        self._mask = mask_RT
        self._encoded = encoded
        self._cache: Any = None
        self._logits: Tensor = torch.empty(0)

    @classmethod
    def start(cls, model: GeneratorModel, rows: Sequence[Sequence[int]]) -> _State:
        ids, mask = (torch.tensor(part, device=model.device) for part in left_pad(rows, model.pad_id))
        if not model.is_encoder_decoder:
            state = cls(model, mask, None)
            state._step(ids, position_ids=positions(mask))
            return state
        encoded = model.model.get_encoder()(input_ids=ids, attention_mask=mask)
        state = cls(model, mask, encoded)
        state._step(torch.full((len(rows), 1), int(model.model.config.decoder_start_token_id), device=model.device))
        return state

    def log_probs(self) -> Tensor:
        """Return log p of the next token, (R, V) float32."""
        return self._logits.float().log_softmax(-1)

    def append(self, token_R: Tensor) -> None:
        """Let every row go on with a token."""
        if self._encoded is not None:
            self._step(token_R[:, None])
            return
        self._mask = torch.cat([self._mask, torch.ones_like(self._mask[:, :1])], dim=1)
        self._step(token_R[:, None], position_ids=positions(self._mask)[:, -1:])

    def select(self, kept: Tensor, rows_each: int) -> None:
        """Drop the rows of all questions but the ``kept`` ones."""
        rows = (kept[:, None] * rows_each + torch.arange(rows_each, device=kept.device)).flatten()
        self._mask = self._mask[rows]
        self._cache.batch_select_indices(rows)
        if self._encoded is not None:
            self._encoded.last_hidden_state = self._encoded.last_hidden_state[rows]

    def _step(self, ids_RT: Tensor, **more: Tensor) -> None:
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
