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
from ragray.embed.encoder import Encoder
from ragray.errors import TrainingError
from ragray.index.search.result import SearchResult
from ragray.train.components import Components
from ragray.train.objectives.losses import doc_log_probs, rag_sequence_loss, rag_token_loss
from ragray.train.objectives.objective import Loss, Searcher, SearchFuture
from ragray.types import Example, Passage

RagLoss = Callable[[Tensor, Tensor], Tensor]
"""Of the log-probabilities of passages (B, K) and of answer tokens (B, K, L)."""


@dataclass(frozen=True, slots=True)
class RagBatch:
    """A micro-batch: tokenised questions, their passages' vectors (B, K, D), and prompts with answers (R rows)."""

    question_ids: Tensor
    question_mask: Tensor
    passages_BKD: Tensor
    rows: dict[str, Tensor]


class RagObjective:
    """Trains generator and question encoder together, through the probabilities of the passages.

    ``generate.marginalize`` chooses RAG-Sequence or RAG-Token. Where there is no question encoder to train (the index was
    made with an encoder that has no weights), every passage of a question is equally probable.
    """

    def __init__(
        self,
        components: Components,
        encoder: Encoder,
        searcher: Searcher,
        *,
        k: int,
        generate: GenerateConfig,
        loss: RagLoss | None = None,
    ) -> None:
        """Take ``k`` passages per example. ``loss`` stands in for that of ``generate.marginalize``.

        ``encoder`` makes the question vectors that are searched with; where it has weights, they are those of ``components``.

        Raises:
            TrainingError: the components lack a generator.
            ModelError, ConfigError: prompts cannot be made for the generator.
        """
        if components.generator is None:
            raise TrainingError("RAG trains a generator; the components have none")
        self._generator = components.generator
        self._components = components
        self._encoder = encoder
        self._searcher = searcher
        self._k, self._temperature, self._max_new_tokens = k, generate.passage_temperature, generate.max_new_tokens
        self._loss = loss or (rag_sequence_loss if generate.marginalize == "sequence" else rag_token_loss)
        self._prompts = self._generator.prompt_template(generate)

    def retrieve(self, examples: Sequence[Example]) -> SearchFuture:
        """Begin the search for the K nearest passages of every question."""
        questions = [example.question for example in examples]
        return self._searcher.submit(self._encoder.encode_questions(questions), self._k)

    def collate(self, examples: Sequence[Example], found: SearchResult) -> RagBatch:
        """Make a micro-batch; the first accepted answer is the target."""
        prompts, answers = [], []
        for number, example in enumerate(examples):
            answer = self._prompts.answer_ids(example.answers[0], self._max_new_tokens)
            for passage in _passages(found, number):
                prompts.append(self._prompts.ids(example.question, passage))
                answers.append(answer)
        ids, mask = self._question_tensors(examples)
        vectors_BKD = torch.from_numpy(np.array(found.vectors_NKD)).to(self._generator.device)
        return RagBatch(ids, mask, vectors_BKD, self._generator.answer_batch(prompts, answers))

    def loss(self, batch: RagBatch) -> Loss:
        """Return the loss of a micro-batch, a mean over its questions."""
        passages_BKD = batch.passages_BKD.float()
        question_encoder = self._components.question_encoder
        if question_encoder is None:
            doc_logp_BK = torch.zeros(passages_BKD.shape[:2], device=passages_BKD.device).log_softmax(-1)
        else:
            question_BD = question_encoder(batch.question_ids, batch.question_mask)
            doc_logp_BK = doc_log_probs(question_BD.float(), passages_BKD, self._temperature)
        token_logp_RL: Tensor = self._generator(batch.rows)
        return Loss(self._loss(doc_logp_BK, token_logp_RL.view(*doc_logp_BK.shape, -1)))

    def not_finite(self, batch: RagBatch) -> str:
        """Return which component's output for a micro-batch is not finite, or ""."""
        if not bool(batch.passages_BKD.isfinite().all()):
            return "the index's vectors are not finite"
        if self._components.question_encoder is not None:
            vectors_BD = self._components.question_encoder(batch.question_ids, batch.question_mask)
            if not bool(vectors_BD.isfinite().all()):
                return "the question encoder's vectors are not finite"
        return (
            ""
            if bool(self._generator(batch.rows).isfinite().all())
            else "the generator's log-probabilities are not finite"
        )

    def _question_tensors(self, examples: Sequence[Example]) -> tuple[Tensor, Tensor]:
        encoder = self._components.encoders.get("question_encoder")
        if encoder is not None:
            return encoder.question_tensors([example.question for example in examples])
        empty = torch.zeros((len(examples), 0), dtype=torch.long, device=self._generator.device)
        return empty, empty


def _passages(found: SearchResult, number: int) -> list[Passage | None]:
    """Return exactly K passages of a question; where fewer were found, the others are None: prompts without a passage."""
    passages: list[Passage | None] = [hit.passage for hit in found.hits[number]]
    return passages + [None] * (found.rows_NK.shape[1] - len(passages))
