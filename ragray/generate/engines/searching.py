"""Beam search over passages. In: questions, each with K weighted prompts. Out: the best answer found to each, and the prompts' posterior.

- *joint*: the beams of a question are answers that all its passages write together, scored by the mixture that
  `ragray.generate.engines.mixture` decodes: RAG-Sequence, or RAG-Token (Lewis et al. 2020, section 2.5).
- *thorough*: each passage has a beam search of its own; every answer that one of them finds is scored with all passages,
  p(y | x) = sum_z p(z | x) p(y | x, z) ("Thorough Decoding", section 2.5).
- *fast*: the same, with p(y | x, z) = 0 where the search of passage z did not find y ("Fast Decoding").

B questions, K passages, N beams, V vocabulary; a search has M passages: K, or 1.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from ragray.errors import ModelError
from ragray.generate.engines.beams import Beam, BeamSearch
from ragray.generate.engines.mixture import MixtureRequest, SequenceState, read_beside
from ragray.generate.engines.model import GeneratorModel
from ragray.generate.engines.prefixes import ReadPrompts
from ragray.generate.engines.rows import Rows

Tokens = tuple[int, ...]


@dataclass(slots=True)
class _Search:
    """A beam search whose beams are written by M prompts: their weights for the next token, and their posterior, both (N, M)."""

    beams: BeamSearch
    mixing_NM: Tensor
    posterior_NM: Tensor
    found: dict[Tokens, list[float]] = field(default_factory=dict)
    """The posterior of the M prompts for each finished answer."""

    def step(self, logp_RV: Tensor, *, update_posterior: bool) -> list[int]:
        """Take a token; return the rows, of those of the search, that go on, in their new order."""
        num_prompts = self.mixing_NM.shape[1]
        logp_NMV = logp_RV.view(-1, num_prompts, logp_RV.shape[-1])
        step = self.beams.step((self.mixing_NM[:, :, None] + logp_NMV).logsumexp(1))
        for parent, beam in step.finished:
            self.found[beam.token_ids] = self._posterior(logp_NMV, [parent], [beam])[0].exp().tolist()
        if not self.beams.running:
            return []
        self.posterior_NM = self._posterior(logp_NMV, step.parents, self.beams.running)
        self.mixing_NM = self.posterior_NM if update_posterior else self.mixing_NM[step.parents]
        return [parent * num_prompts + number for parent in step.parents for number in range(num_prompts)]

    def _posterior(self, logp_NMV: Tensor, parents: list[int], beams: list[Beam]) -> Tensor:
        """Return the log posterior of the prompts after the last token of some beams, (number of beams, M)."""
        tokens = [beam.token_ids[-1] for beam in beams]
        return (self.posterior_NM[parents] + logp_NMV[parents, :, tokens]).log_softmax(-1)

    def next_tokens(self) -> list[int]:
        return [beam.token_ids[-1] for beam in self.beams.running for _ in range(self.mixing_NM.shape[1])]


class SearchBatch:
    """Searches for the answers to questions side by side, each exactly as it would be searched alone."""

    def __init__(
        self,
        model: GeneratorModel,
        *,
        num_beams: int,
        decoding: str,
        update_posterior: bool,
        known: ReadPrompts | None = None,
    ) -> None:
        """Take how to search (`generate.decoding`), whether the weights of a joint search follow the answer, and prompts read before."""
        self._model = model
        self._known = known
        self._num_beams = num_beams
        self._decoding = decoding
        self._update_posterior = update_posterior
        self._stop = frozenset(model.stop_ids())
        self._asked: dict[int, MixtureRequest] = {}
        self._searches: dict[int, list[_Search]] = {}
        self._rows: Rows | None = None

    def __len__(self) -> int:
        return len(self._asked)

    @property
    def joinable(self) -> bool:
        """Whether questions may join now (see `Rows.joinable`)."""
        return self._rows is None or self._rows.joinable

    @torch.inference_mode()
    def add(self, requests: Mapping[int, MixtureRequest]) -> None:
        """Read the prompts of some questions, each under a key of the caller's."""
        if not requests:
            return
        self._rows = read_beside(self._rows, self._model, requests.values(), self._known)
        self._asked |= requests
        self._searches |= {key: self._begin(request) for key, request in requests.items()}

    def _begin(self, request: MixtureRequest) -> list[_Search]:
        prior_1K = torch.tensor([request.weighted.log_prior_K], device=self._model.device)
        parts = (
            [prior_1K]
            if self._decoding == "joint"
            else [torch.zeros_like(each) for each in torch.split(prior_1K, 1, dim=1)]
        )
        return [
            _Search(BeamSearch(self._num_beams, request.max_new_tokens, self._stop), prior, prior) for prior in parts
        ]

    @torch.inference_mode()
    def remove(self, key: int) -> None:
        """Drop a question; nothing happens where it has left already."""
        if key not in self._asked or self._rows is None:
            return
        kept, row = list[int](), 0
        for other, searches in self._searches.items():
            size = sum(_num_rows(search) for search in searches)
            kept += [] if other == key else range(row, row + size)
            row += size
        self._select(kept)
        del self._asked[key], self._searches[key]

    @torch.inference_mode()
    def step(self) -> dict[int, SequenceState]:
        """Take a token in every search; return the answers of the questions whose searches are over, which leave the batch.

        Raises:
            ModelError: the model's output is not finite.
        """
        if self._rows is None:
            return {}
        logp_RV, row, kept = self._rows.log_probs(), 0, list[int]()
        if not bool(logp_RV.amax(-1).isfinite().all()):
            raise ModelError(self._model.explain_not_finite("the probability of the next token is not a number"))
        for search in self._all_running():
            size = _num_rows(search)
            going_on = search.step(logp_RV[row : row + size], update_posterior=self._update_posterior)
            kept += [row + number for number in going_on]
            row += size
        done = [key for key, searches in self._searches.items() if not any(each.beams.running for each in searches)]
        answers = {key: self._answer(self._asked.pop(key), self._searches.pop(key)) for key in done}
        self._select(kept)
        if self._rows is not None:
            tokens = [token for search in self._all_running() for token in search.next_tokens()]
            self._rows.append(torch.tensor(tokens, device=self._model.device))
        return answers

    def _all_running(self) -> list[_Search]:
        return [each for searches in self._searches.values() for each in searches if each.beams.running]

    def _select(self, kept: list[int]) -> None:
        if not kept:
            self._rows = None
        elif self._rows is not None:
            self._rows.select(torch.tensor(kept, device=self._model.device))

    def _answer(self, request: MixtureRequest, searches: list[_Search]) -> SequenceState:
        if self._decoding == "joint":
            best, found = searches[0].beams.finished[0], searches[0].found
            return self._state(best.token_ids, best.log_prob, found[best.token_ids])
        return self._best_of_all(request, searches)

    def _best_of_all(self, request: MixtureRequest, searches: list[_Search]) -> SequenceState:
        """Score every answer that a passage's search ended with; return the best."""
        found_by = [{beam.token_ids for beam in search.beams.finished} for search in searches]
        candidates = list(dict.fromkeys(beam.token_ids for search in searches for beam in search.beams.finished))
        best, best_logp_K = candidates[0], [-math.inf]
        best_score = -math.inf
        for candidate in candidates:
            logp_K = self._joint_logp(request, candidate)
            if self._decoding == "fast":
                left_out = [candidate not in found for found in found_by]
                logp_K = logp_K.masked_fill(torch.tensor(left_out, device=logp_K.device), -math.inf)
            score = float(logp_K.logsumexp(-1))
            if score > best_score:
                best, best_score, best_logp_K = candidate, score, logp_K.softmax(-1).tolist()
        return self._state(best, best_score, best_logp_K)

    def _joint_logp(self, request: MixtureRequest, answer: Tokens) -> Tensor:
        """Return log p(z | x) p(y | x, z), (K,)."""
        prompts = request.weighted.prompts
        logp_KL: Tensor = self._model(self._model.answer_batch(prompts, [answer] * len(prompts)))
        return torch.tensor(request.weighted.log_prior_K, device=logp_KL.device) + logp_KL.sum(-1)

    def _state(self, tokens: Tokens, log_prob: float, weights: list[float]) -> SequenceState:
        ended = tokens[-1] in self._stop
        return SequenceState(list(tokens[:-1] if ended else tokens), log_prob, weights, "stop" if ended else "length")


def _num_rows(search: _Search) -> int:
    return len(search.beams.running) * search.mixing_NM.shape[1]
