"""Marginal decoding. In: questions, each with K passages. Out: one answer each, token by token, and p(passage | question, answer).

All K rows of a question are decoded together and write the same token, chosen from the mixture

    p(y_i | x, y_<i) = sum_z w_z p(y_i | x, z, y_<i)

With RAG-Sequence (Lewis et al. 2020, section 2.1) p(y | x) = sum_z p(z | x) prod_i p(y_i | x, z, y_<i); by the chain rule the
weight of passage z at token i is its posterior w_z = p(z | x, y_<i), which each token updates: greedy decoding of the exact
mixture, one token at a time, so it can be streamed. With RAG-Token the weights stay p(z | x) throughout.

Questions join and leave the batch between two tokens (iteration-level scheduling: Yu et al. 2022, Orca, OSDI, section 3.1).

B questions, K passages (each question may have another number), R rows (all K of all B), T tokens, V vocabulary.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from ragray.errors import ModelError
from ragray.generate.model import GeneratorModel
from ragray.generate.rows import Rows
from ragray.types import FinishReason


@dataclass(frozen=True, slots=True)
class DecodingRequest:
    """A question to be decoded: the token ids of its K prompts, and log p(z | x) of the K passages."""

    prompts: Sequence[Sequence[int]]
    log_prior_K: Tensor


@dataclass(slots=True)
class Decoding:
    """An answer while it is written; ``token_ids`` never hold the end token."""

    token_ids: list[int] = field(default_factory=list)
    log_prob: float = 0.0
    weights: list[float] = field(default_factory=list)
    finish_reason: FinishReason | None = None


@dataclass(slots=True)
class _Question:
    """A question in the batch: log weights of its passages, (K,), and the token that its rows go on with."""

    mixing_K: Tensor
    posterior_K: Tensor
    answer: Decoding
    next_token: int = -1


class DecodingBatch:
    """Decodes questions side by side, each exactly as it would be alone."""

    def __init__(self, model: GeneratorModel, *, max_new_tokens: int, update_posterior: bool) -> None:
        self._model = model
        self._max_new_tokens = max_new_tokens
        self._update_posterior = update_posterior
        self._stop = model.stop_ids()
        self._questions: dict[int, _Question] = {}
        self._rows: Rows | None = None
        self._behind = False

    def __len__(self) -> int:
        return len(self._questions)

    @property
    def joinable(self) -> bool:
        """Whether questions may join now: any time, unless the model's cache cannot be joined with another."""
        return self._rows is None or self._rows.joinable

    @torch.inference_mode()
    def add(self, requests: Mapping[int, DecodingRequest]) -> None:
        """Read the prompts of some questions, each under a key of the caller's; they take part from the next step on."""
        if not requests:
            return
        self._catch_up()
        rows = Rows.read(self._model, [row for request in requests.values() for row in request.prompts])
        if self._rows is None:
            self._rows = rows
        else:
            self._rows.join(rows)
        for key, request in requests.items():
            prior = request.log_prior_K.to(self._model.device)
            self._questions[key] = _Question(prior, prior, Decoding())

    @torch.inference_mode()
    def remove(self, key: int) -> None:
        """Drop a question; nothing happens where it has left already."""
        self._keep([other for other in self._questions if other != key])

    @torch.inference_mode()
    def step(self) -> dict[int, Decoding]:
        """Write a token of every answer and return all of them; those that are finished leave the batch.

        Raises:
            ModelError: the model's output is not finite.
        """
        self._catch_up()
        if self._rows is None:
            return {}
        sizes = [len(question.mixing_K) for question in self._questions.values()]
        for question, logp_KV in zip(self._questions.values(), torch.split(self._rows.log_probs(), sizes), strict=True):
            self._write(question, logp_KV)
        answers = {key: question.answer for key, question in self._questions.items()}
        self._behind = True
        self._keep([key for key, answer in answers.items() if answer.finish_reason is None])
        return answers

    def _write(self, question: _Question, logp_KV: Tensor) -> None:
        """Choose the next token of a question from the mixture of its rows."""
        mixture_V = (question.mixing_K[:, None] + logp_KV).logsumexp(0)
        token = int(mixture_V.argmax())
        log_prob = float(mixture_V[token])
        if not math.isfinite(log_prob):
            raise ModelError(self._model.explain_not_finite("the probability of the next token is not a number"))
        question.posterior_K = (question.posterior_K + logp_KV[:, token]).log_softmax(-1)
        if self._update_posterior:
            question.mixing_K = question.posterior_K
        answer = question.answer
        answer.log_prob += log_prob
        answer.weights = question.posterior_K.exp().tolist()
        question.next_token = token
        if token in self._stop:
            answer.finish_reason = "stop"
            return
        answer.token_ids.append(token)
        if len(answer.token_ids) == self._max_new_tokens:
            answer.finish_reason = "length"

    def _catch_up(self) -> None:
        """Let all rows read the tokens that were chosen last, if they have not yet."""
        if self._behind and self._rows is not None:
            tokens = [q.next_token for q in self._questions.values() for _ in range(len(q.mixing_K))]
            self._rows.append(torch.tensor(tokens, device=self._model.device))
        self._behind = False

    def _keep(self, keys: Sequence[int]) -> None:
        """Drop all questions but some."""
        if len(keys) == len(self._questions):
            return
        kept, row, rows = set(keys), 0, list[int]()
        for key, question in self._questions.items():
            rows += range(row, row + len(question.mixing_K)) if key in kept else ()
            row += len(question.mixing_K)
        self._questions = {key: question for key, question in self._questions.items() if key in kept}
        if not rows:
            self._rows = None
        elif self._rows is not None:
            self._rows.select(torch.tensor(rows, device=self._model.device))
