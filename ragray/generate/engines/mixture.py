"""Decoding of mixtures. In: questions, each with K weighted prompts. Out: an answer to each, token by token, and the prompts' posterior.

All K rows of a question are decoded together. They write the same token, the most probable one of the mixture or one drawn from it

    p(y_i | x, y_<i) = sum_z w_z p(y_i | x, z, y_<i)

With RAG-Sequence (Lewis et al. 2020, section 2.1) p(y | x) = sum_z p(z | x) prod_i p(y_i | x, z, y_<i); by the chain rule the
weight of passage z at token i is its posterior w_z = p(z | x, y_<i), which each token updates. This is greedy decoding of the
exact mixture, or sampling from it, one token at a time, so that it can be streamed. With RAG-Token the weights stay p(z | x) throughout.

B questions, K passages (each question may have another number), R rows (all K of all B), T tokens, V vocabulary.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from ragray.errors import ModelError
from ragray.generate.answer.spans import END, Spans
from ragray.generate.engines.model import GeneratorModel
from ragray.generate.engines.prefixes import ReadPrompts
from ragray.generate.engines.rows import Rows
from ragray.generate.engines.sampling import GREEDILY, TokenChooser
from ragray.generate.strategy import WeightedPrompts
from ragray.types import FinishReason


@dataclass(frozen=True, slots=True)
class MixtureRequest:
    """A question to be answered: its prompts, the most tokens that its answer may have, and how each of them is chosen.

    ``spans_K``: of each prompt the spans that the answer may be; p(y | x, z) is 0 for all others. Empty: any answer.
    """

    weighted: WeightedPrompts
    max_new_tokens: int
    choose: TokenChooser = GREEDILY
    spans_K: Sequence[Spans] = ()


@dataclass(slots=True)
class SequenceState:
    """An answer while it is written. ``token_ids`` never hold the end token; ``weights`` is p(prompt | question, token_ids), (K,)."""

    token_ids: list[int] = field(default_factory=list)
    log_prob: float = 0.0
    weights: list[float] = field(default_factory=list)
    finish_reason: FinishReason | None = None


@dataclass(slots=True)
class _RowGroup:
    """The K rows of a question in the batch: log weights, (K,), the answer, and the token that the rows go on with."""

    mixing_K: Tensor
    posterior_K: Tensor
    max_new_tokens: int
    choose: TokenChooser
    spans_K: Sequence[Spans] = ()
    answer: SequenceState = field(default_factory=SequenceState)
    next_token: int = -1


def read_beside(
    rows: Rows | None, model: GeneratorModel, requests: Iterable[MixtureRequest], known: ReadPrompts | None
) -> Rows:
    """Let the model read the prompts of some requests; return their rows, behind those that are in the batch already."""
    weighted = [request.weighted for request in requests]
    fused = [len(each.prompts) for each in weighted if each.fused]
    read = Rows.read(model, [row for each in weighted for row in each.prompts], fused=fused, known=known)
    if rows is None:
        return read
    rows.join(read)
    return rows


class MixtureBatch:
    """Decodes questions side by side, each exactly as it would be alone."""

    def __init__(self, model: GeneratorModel, *, update_posterior: bool, known: ReadPrompts | None = None) -> None:
        """Take whether the weights follow the answer (RAG-Sequence) or stay the prior (RAG-Token), and prompts read before."""
        self._model = model
        self._known = known
        self._update_posterior = update_posterior
        self._stop = model.stop_ids()
        self._questions: dict[int, _RowGroup] = {}
        self._rows: Rows | None = None
        self._behind = False

    def __len__(self) -> int:
        return len(self._questions)

    @property
    def joinable(self) -> bool:
        """Whether questions may join now: at any time, unless the cache of the rows in the batch cannot be joined with another."""
        return self._rows is None or self._rows.joinable

    @torch.inference_mode()
    def add(self, requests: Mapping[int, MixtureRequest]) -> None:
        """Read the prompts of some questions, each under a key of the caller's; their answers begin with the next step."""
        if not requests:
            return
        self._catch_up()
        self._rows = read_beside(self._rows, self._model, requests.values(), self._known)
        for key, request in requests.items():
            prior = torch.tensor(request.weighted.log_prior_K, device=self._model.device)
            self._questions[key] = _RowGroup(prior, prior, request.max_new_tokens, request.choose, request.spans_K)

    @torch.inference_mode()
    def remove(self, key: int) -> None:
        """Drop a question; nothing happens where it has left already."""
        self._keep([other for other in self._questions if other != key])

    @torch.inference_mode()
    def step(self) -> dict[int, SequenceState]:
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

    def _write(self, question: _RowGroup, logp_KV: Tensor) -> None:
        """Choose the next token of a question from the mixture of its rows."""
        if question.spans_K:
            logp_KV = self._within(question.spans_K, logp_KV)
        mixture_V = (question.mixing_K[:, None] + logp_KV).logsumexp(0)
        if not math.isfinite(float(mixture_V.max())):
            raise ModelError(self._model.explain_not_finite("the probability of the next token is not a number"))
        token = question.choose(mixture_V)
        question.posterior_K = (question.posterior_K + logp_KV[:, token]).log_softmax(-1)
        if self._update_posterior:
            question.mixing_K = question.posterior_K
        answer = question.answer
        answer.log_prob += float(mixture_V[token])
        answer.weights = question.posterior_K.exp().tolist()
        question.next_token = token
        if token in self._stop:
            answer.finish_reason = "stop"
            return
        answer.token_ids.append(token)
        question.spans_K = [spans.after(token) for spans in question.spans_K]
        if len(answer.token_ids) == question.max_new_tokens:
            answer.finish_reason = "length"

    def _within(self, spans_K: Sequence[Spans], logp_KV: Tensor) -> Tensor:
        """Return the log-probabilities of the tokens that go on with a span of each prompt, -inf for all others."""
        stop = [token for token in self._stop if token < logp_KV.shape[1]]
        rows, tokens = list[int](), list[int]()
        for row, spans in enumerate(spans_K):
            for token in spans.allowed:
                following = stop if token == END else [token]
                rows += [row] * len(following)
                tokens += following
        places = torch.tensor([rows, tokens], device=logp_KV.device)
        kept_KV = torch.full_like(logp_KV, -math.inf)
        kept_KV[places[0], places[1]] = logp_KV[places[0], places[1]]
        return kept_KV

    def _catch_up(self) -> None:
        """Let all rows read the tokens that were chosen last, if they have not yet; rows that left need not read theirs."""
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
