"""Passages scored by the encoders as they are now. In: candidates of an index that may be old. Out: the best K, their tokens.

B questions, C candidates of each, K passages of each that are kept, M passages in all, R = B K rows, T tokens, D dim.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from torch import Tensor

from ragray.embed.passage_text import passage_text
from ragray.embed.transformer import TransformerEncoder
from ragray.index.search.result import SearchResult
from ragray.train.components import Components
from ragray.types import Example, Hit


@dataclass(frozen=True, slots=True)
class LivePassages:
    """The two encoders of a run that trains both, in the objective's hands; they may be one object.

    The index holds vectors of earlier weights: it decides which passages are candidates, and nothing else.
    """

    questions: TransformerEncoder
    passages: TransformerEncoder

    @classmethod
    def of(cls, components: Components) -> LivePassages | None:
        """Return the encoders of a run whose passage encoder trains, None for any other."""
        encoders = components.encoders
        return cls(encoders["question_encoder"], encoders["passage_encoder"]) if "passage_encoder" in encoders else None

    def best(self, examples: Sequence[Example], found: SearchResult, k: int) -> SearchResult:
        """Return the ``k`` candidates of each question with the largest inner products of current vectors, best first.

        The vectors are computed without dropout and without gradients; of equal scores the earlier candidate comes first.
        """
        question_BD = self.questions.encode_questions([example.question for example in examples])
        scores_BC, vectors_BCD = self._scored(question_BD, found)
        order_BK = np.argsort(-scores_BC, axis=1, kind="stable")[:, :k]
        take = np.arange(len(order_BK))[:, None]
        hits = [
            [
                Hit(found.hits[row][place].passage, float(scores_BC[row, place]), float(scores_BC[row, place]))
                for place in places
                if place < len(found.hits[row])
            ]
            for row, places in enumerate(order_BK)
        ]
        return SearchResult(found.rows_NK[take, order_BK], scores_BC[take, order_BK], vectors_BCD[take, order_BK], hits)

    def tensors(self, found: SearchResult) -> tuple[Tensor, Tensor]:
        """Tokenise the passages found, (R, T) ids and mask; where one is missing, an empty text stands for it."""
        k = found.rows_NK.shape[1]
        texts = [
            passage_text(hits[place].passage) if place < len(hits) else "" for hits in found.hits for place in range(k)
        ]
        return self.passages.passage_tensors(texts)

    def _scored(self, question_BD: np.ndarray, found: SearchResult) -> tuple[np.ndarray, np.ndarray]:
        """Return current scores (B, C), -inf where nothing was found, and vectors (B, C, D) float32; each passage is encoded once."""
        texts = {
            int(row): passage_text(hit.passage)
            for rows_C, hits in zip(found.rows_NK, found.hits, strict=True)
            for row, hit in zip(rows_C, hits, strict=False)  # fewer hits than rows where some are missing
        }
        rows_M, place_BC = np.unique(found.rows_NK, return_inverse=True)
        vectors_BCD = self.passages.encode([texts.get(int(row), "") for row in rows_M])[
            place_BC.reshape(found.rows_NK.shape)
        ]
        scores_BC = np.einsum("bd,bcd->bc", question_BD, vectors_BCD)
        absent_BC = found.rows_NK < 0
        scores_BC[absent_BC], vectors_BCD[absent_BC] = -np.inf, 0
        return scores_BC, vectors_BCD
