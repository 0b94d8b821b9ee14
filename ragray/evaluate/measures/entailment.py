"""Whether a text supports a statement. In: a premise, a statement, the question. Out: yes or no, by a model or by shared words."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from ragray.errors import ModelNotFoundError
from ragray.evaluate.metrics import metric as metric_named
from ragray.evaluate.metrics import metric_for
from ragray.models import load_model_config, load_weights, resolve_model

LEXICAL = "lexical"
"""Value of `evaluate.entailment` that needs no model."""

SHARE = 0.8
"""Share of a statement's tokens that a premise must hold to support it by shared words."""

SHORT_WORDS = 5
"""A statement of at most so many words is no sentence: a model reads it behind its question, as ALCE does with lists of answers."""

BATCH = 16
MAX_LENGTH = 512


@dataclass(frozen=True, slots=True)
class Claim:
    """A statement of an answer, the question that it answers, and the passages that are to support it, as one text."""

    premise: str
    question: str
    statement: str


class Entailment(Protocol):
    """Decides which claims hold."""

    how: str
    """What decides, in a few words, for the report."""

    def holds(self, claims: Sequence[Claim]) -> list[bool]:
        """Return for each claim whether its premise supports its statement."""


class LexicalEntailment:
    """A premise supports a statement where it holds at least `SHARE` of its different tokens: no more than a hint."""

    how = f"lexical: {SHARE:.0%} of the statement's words stand in the passages"

    def holds(self, claims: Sequence[Claim]) -> list[bool]:
        """See `Entailment.holds`."""
        return [self._holds(claim) for claim in claims]

    def _holds(self, claim: Claim) -> bool:
        tokens = metric_named(metric_for(claim.statement, "auto")).tokens
        said = set(tokens(claim.statement))
        return bool(said) and len(said & set(tokens(claim.premise))) >= SHARE * len(said)


class NliModel:
    """A sequence-classification model of `transformers` with a label for entailment, which must be the most probable one."""

    def __init__(self, model: Any, tokenizer: Any, label: int, *, name: str) -> None:
        self.how = f"model {name}"
        self._max_length = min(MAX_LENGTH, getattr(model.config, "max_position_embeddings", MAX_LENGTH))
        self._model = model.eval()
        self._tokenizer = tokenizer
        self._label = label

    @classmethod
    def load(cls, name: str, *, device: str = "auto") -> NliModel:
        """Load a model by local folder or hub id.

        Raises:
            ModelNotFoundError: the name resolves to nothing, or to a model without a label for entailment.
        """
        import torch
        from transformers import AutoModelForSequenceClassification

        from ragray.device import pick_device
        from ragray.embed.batching import load_text_tokenizer

        folder = resolve_model(name)
        label = _entailment_label(name, load_model_config(folder))
        model = load_weights(AutoModelForSequenceClassification, folder, dtype=torch.float32)
        return cls(model.to(pick_device(device)), load_text_tokenizer(folder), label, name=name)

    def holds(self, claims: Sequence[Claim]) -> list[bool]:
        """See `Entailment.holds`; of premise and statement the longer one loses its end where they do not fit the model."""
        import torch

        found: list[bool] = []
        for start in range(0, len(claims), BATCH):
            batch = claims[start : start + BATCH]
            tokens = self._tokenizer(
                [claim.premise for claim in batch],
                [_sentence(claim) for claim in batch],
                padding=True,
                truncation="longest_first",
                max_length=self._max_length,
                return_tensors="pt",
            ).to(self._model.device)
            with torch.inference_mode():
                found += (self._model(**tokens).logits.argmax(dim=-1) == self._label).tolist()
        return found


def _sentence(claim: Claim) -> str:
    is_short = len(claim.statement.split()) <= SHORT_WORDS
    return f"{claim.question} {claim.statement}" if is_short else claim.statement


def _entailment_label(name: str, config: Any) -> int:
    """Return the number of the label that says entailment."""
    labels = {number: str(label).lower() for number, label in (config.id2label or {}).items()}
    found = [int(number) for number, label in labels.items() if label in ("entailment", "entail", "supported")]
    if len(found) != 1:
        listed = ", ".join(labels.values())
        raise ModelNotFoundError(
            f"evaluate.entailment={name}: its labels are {listed}, expected one that is called entailment; name a model for natural "
            f"language inference, or {LEXICAL}"
        )
    return found[0]


def load_entailment(name: str) -> Entailment:
    """Return what `evaluate.entailment` names; raises as `NliModel.load` does."""
    return LexicalEntailment() if name == LEXICAL else NliModel.load(name)
