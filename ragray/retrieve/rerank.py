"""Re-ranking. In: questions with candidates. Out: the candidates, ordered by a model that reads question and passage together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Protocol

import numpy as np

from ragray.embed.batching import load_text_tokenizer
from ragray.embed.passage_text import passage_text
from ragray.errors import ModelNotFoundError
from ragray.models import load_model_config, load_weights, resolve_model
from ragray.types import Hit


class Reranker(Protocol):
    """Re-ranks the candidates of questions."""

    def rerank(self, queries: Sequence[str], hits: Sequence[Sequence[Hit]], k: int) -> list[list[Hit]]:
        """Return for every query the k best of its candidates, best first, with the reranker's own scores."""


class CrossEncoder:
    """Any sequence-classification model of `transformers` with one label, or with two of which the second means relevant.

    A score is the logit of that label: unbounded, and to be compared within one question only.
    """

    def __init__(self, model: Any, tokenizer: Any, *, batch_size: int = 32, max_length: int = 512) -> None:
        self._model = model.eval()
        self._tokenizer = tokenizer
        self._batch_size = batch_size
        self._max_length = max_length

    @classmethod
    def load(cls, name: str, *, device: str = "auto", batch_size: int = 32, max_length: int = 512) -> CrossEncoder:
        """Load a model by local folder or hub id.

        Raises:
            ModelNotFoundError: the name resolves to nothing, or to a model that does not score pairs.
        """
        import torch
        from transformers import AutoModelForSequenceClassification

        from ragray.device import pick_device

        folder = resolve_model(name)
        config = load_model_config(folder)
        kinds = config.architectures or []
        if config.num_labels not in (1, 2) or not any("SequenceClassification" in kind for kind in kinds):
            raise ModelNotFoundError(
                f"retrieve.rerank_model={name}: is {', '.join(kinds) or 'a model'} with {config.num_labels} labels, expected a "
                "sequence-classification model with one label or two; name a cross-encoder"
            )
        model = load_weights(AutoModelForSequenceClassification, folder, dtype=torch.float32)
        longest = min(max_length, getattr(config, "max_position_embeddings", max_length))
        tokenizer = load_text_tokenizer(folder)
        return cls(model.to(pick_device(device)), tokenizer, batch_size=batch_size, max_length=longest)

    def rerank(self, queries: Sequence[str], hits: Sequence[Sequence[Hit]], k: int) -> list[list[Hit]]:
        """Return for every query the k best of its candidates, best first; ties keep the order that they came in."""
        pairs = [
            (query, passage_text(hit.passage)) for query, found in zip(queries, hits, strict=True) for hit in found
        ]
        scores = iter(self.scores(pairs).tolist())
        ranked = []
        for found in hits:
            scored = [replace(hit, score=next(scores)) for hit in found]
            ranked.append(sorted(scored, key=lambda hit: -hit.score)[:k])
        return ranked

    def scores(self, pairs: Sequence[tuple[str, str]]) -> np.ndarray:
        """Return the scores of (query, passage) pairs, float32; pairs of like length are scored together."""
        order = sorted(range(len(pairs)), key=lambda number: sum(map(len, pairs[number])))
        scores = np.empty(len(pairs), dtype=np.float32)
        for start in range(0, len(order), self._batch_size):
            batch = order[start : start + self._batch_size]
            scores[batch] = self._logits([pairs[number] for number in batch])
        return scores

    def _logits(self, pairs: Sequence[tuple[str, str]]) -> np.ndarray:
        import torch

        tokens = self._tokenizer(
            [query for query, _ in pairs],
            [text for _, text in pairs],
            padding=True,
            truncation="longest_first",
            max_length=self._max_length,
            return_tensors="pt",
        ).to(self._model.device)
        with torch.inference_mode():
            logits: np.ndarray = self._model(**tokens).logits[:, -1].float().cpu().numpy()
        return logits
