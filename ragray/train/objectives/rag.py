"""RAG-Sequence and RAG-Token. In: questions, the passages retrieved for them, answers. Out: the loss of Lewis et al. 2020.

arXiv:2005.11401, section 2.1. B questions, K passages, R = B K rows, L answer tokens, D dim.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ragray.config import GenerateConfig
from ragray.device import at_least_float32
from ragray.embed.encoder import Encoder
from ragray.errors import TrainingError
from ragray.index.search.result import SearchResult
from ragray.train.components import Components
from ragray.train.objectives.live import LivePassages
from ragray.train.objectives.losses import AnswerLoss, doc_log_probs, normalised
from ragray.train.objectives.objective import TOKENS, Loss, Searcher, SearchFuture
from ragray.types import Example, Passage

RagLoss = Callable[[Tensor, Tensor, Tensor], Tensor]
"""Of log-probabilities of passages (B, K) and of tokens (B, K, L, V), and the labels (B, K, L); a mean over the questions."""


@dataclass(frozen=True, slots=True)
class RagBatch:
    """A micro-batch: tokenised questions, their passages' vectors (B, K, D), and prompts with answers (R rows).

    ``absent_BK`` is where no passage was found: an index may hold fewer than K. Where a passage encoder trains, ``passages`` are the
    passages' tokens and mask (R rows each), of which the loss computes the vectors anew.
    """

    question_ids: Tensor
    question_mask: Tensor
    passages_BKD: Tensor
    absent_BK: Tensor
    rows: dict[str, Tensor]
    passages: tuple[Tensor, Tensor] | None = None


class RagObjective:
    """Trains generator and question encoder together, through the probabilities of the passages.

    ``generate.marginalize`` chooses RAG-Sequence or RAG-Token. Where there is no question encoder to train (the index was
    made with an encoder that has no weights), every passage of a question is equally probable.

    Where the components have a passage encoder, it trains too: of the candidates that the index proposes, those with the largest
    inner products of current vectors are kept, and the probabilities are those of the current weights, with gradients on both sides.
    """

    def __init__(
        self,
        components: Components,
        encoder: Encoder,
        searcher: Searcher,
        *,
        k: int,
        generate: GenerateConfig,
        label_smoothing: float = 0.0,
        loss: RagLoss | None = None,
        candidates: int = 0,
    ) -> None:
        """Take ``k`` passages per example. ``loss`` stands in for that of ``generate.marginalize``.

        ``candidates`` are looked up for each example where a passage encoder trains (0: twice ``k``).
        ``encoder`` makes the question vectors that are searched with; where it has weights, they are those of ``components``.

        Raises:
            TrainingError: the components lack a generator, or there are fewer candidates than ``k``.
            ModelError, ConfigError: prompts cannot be made for the generator.
        """
        if components.generator is None:
            raise TrainingError("RAG trains a generator; the components have none")
        if 0 < candidates < k:
            raise TrainingError(
                f"train.refresh_candidates={candidates} is below retrieve.k={k}; raise it, or set it to 0"
            )
        self._generator = components.generator
        self._components = components
        self._encoder = encoder
        self._searcher = searcher
        self._k, self._temperature, self._max_new_tokens = k, generate.passage_temperature, generate.max_new_tokens
        self._loss = loss or AnswerLoss(generate.marginalize, label_smoothing)
        self._prompts = self._generator.prompt_template(generate)
        self._live = LivePassages.of(components)
        self._depth = (candidates or 2 * k) if self._live else k

    def retrieve(self, examples: Sequence[Example]) -> SearchFuture:
        """Begin the search for the K nearest passages of every question, or for the candidates of them."""
        questions = [example.question for example in examples]
        return self._searcher.submit(self._encoder.encode_questions(questions), self._depth)

    def collate(self, examples: Sequence[Example], found: SearchResult, *, epoch: int) -> RagBatch:
        """Make a micro-batch, the same in every epoch; the first accepted answer is the target."""
        found = self.kept(examples, found)
        prompts, answers = [], []
        for number, example in enumerate(examples):
            answer = self._prompts.answer_ids(example.answers[0], self._max_new_tokens)
            for passage in _passages(found, number):
                prompts.append(self._prompts.ids(example.question, passage))
                answers.append(answer)
        ids, mask = self._question_tensors(examples)
        device = self._generator.device
        vectors_BKD = torch.from_numpy(np.array(found.vectors_NKD)).to(device)
        absent_BK = torch.from_numpy(found.rows_NK < 0).to(device)
        rows = self._generator.answer_batch(prompts, answers)
        return RagBatch(ids, mask, vectors_BKD, absent_BK, rows, self._live.tensors(found) if self._live else None)

    def kept(self, examples: Sequence[Example], found: SearchResult) -> SearchResult:
        """Return the K passages of each example that are read: all that were found, or the best candidates by current weights."""
        return self._live.best(examples, found, self._k) if self._live else found

    def loss(self, batch: RagBatch) -> Loss:
        """Return the loss of a micro-batch, a mean over its questions."""
        passages_BKD = at_least_float32(self._passage_vectors(batch))
        question_encoder = self._components.question_encoder
        if question_encoder is None:
            doc_logp_BK = normalised(passages_BKD.new_zeros(passages_BKD.shape[:2]), batch.absent_BK)
        else:
            question_BD = question_encoder(batch.question_ids, batch.question_mask)
            doc_logp_BK = doc_log_probs(at_least_float32(question_BD), passages_BKD, self._temperature, batch.absent_BK)
        logp_RLV = self._generator.log_probs(batch.rows)
        shape = (*doc_logp_BK.shape, -1)
        logp_BKLV = logp_RLV.view(*shape, logp_RLV.shape[-1])
        loss = self._loss(doc_logp_BK, logp_BKLV, batch.rows["labels"].view(shape))
        return Loss(loss, {TOKENS: self._generator.num_tokens(batch.rows)})

    def not_finite(self, batch: RagBatch) -> str:
        """Return which component's output for a micro-batch is not finite, or ""."""
        if not bool(self._passage_vectors(batch).isfinite().all()):
            return f"the {'passage encoder' if self._live else 'index'}'s vectors are not finite"
        if self._components.question_encoder is not None:
            vectors_BD = self._components.question_encoder(batch.question_ids, batch.question_mask)
            if not bool(vectors_BD.isfinite().all()):
                return "the question encoder's vectors are not finite"
        return (
            ""
            if bool(self._generator(batch.rows).isfinite().all())
            else "the generator's log-probabilities are not finite"
        )

    def _passage_vectors(self, batch: RagBatch) -> Tensor:
        """Return the passages' vectors (B, K, D): those of the index, or current ones with gradients."""
        encoder = self._components.passage_encoder
        if encoder is None or batch.passages is None:
            return batch.passages_BKD
        vectors: Tensor = encoder(*batch.passages)
        return vectors.view(batch.passages_BKD.shape)

    def _question_tensors(self, examples: Sequence[Example]) -> tuple[Tensor, Tensor]:
        encoder = self._components.encoders.get("question_encoder")
        if encoder is not None:
            return encoder.question_tensors([example.question for example in examples])
        empty = torch.zeros((len(examples), 0), dtype=torch.long, device=self._generator.device)
        return empty, empty


def _passages(found: SearchResult, number: int) -> list[Passage | None]:
    """Return exactly K passages of a question; where fewer were found, the others are None, whose prompts count for nothing."""
    passages: list[Passage | None] = [hit.passage for hit in found.hits[number]]
    return passages + [None] * (found.rows_NK.shape[1] - len(passages))
