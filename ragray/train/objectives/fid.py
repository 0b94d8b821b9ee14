"""Fusion-in-Decoder. In: questions, the passages retrieved for them, answers. Out: the loss of a decoder that reads all passages.

Izacard and Grave 2021, arXiv:2007.01282, section 3. B questions, K passages, L answer tokens, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from ragray.config import GenerateConfig
from ragray.embed.encoder import Encoder
from ragray.errors import TrainingError
from ragray.generate.load import require_encoder_decoder
from ragray.index.search.result import SearchResult
from ragray.train.components import Components
from ragray.train.objectives.losses import AnswerLoss
from ragray.train.objectives.objective import TOKENS, Loss, Searcher, SearchFuture
from ragray.types import Example, Passage


@dataclass(frozen=True, slots=True)
class FidBatch:
    """A micro-batch: how many prompts each question has, all prompts, and an answer for each question."""

    sizes: tuple[int, ...]
    rows: dict[str, Tensor]


class FidObjective:
    """Trains a generator whose encoder reads each passage alone and whose decoder reads all of them at once.

    The loss is the mean over the questions of -log p(answer | question, passages), a sum over the answer's tokens as in the
    losses of RAG. No passage has a probability here, so that the question encoder gets no gradient.
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
    ) -> None:
        """Take ``k`` passages per example; ``encoder`` makes the question vectors that are searched with.

        Raises:
            TrainingError: the components lack a generator.
            ModelError, ConfigError: prompts cannot be made for the generator, or it is no encoder-decoder.
        """
        if components.generator is None:
            raise TrainingError("Fusion-in-Decoder trains a generator; the components have none")
        require_encoder_decoder(components.generator.model.config, generate)
        self._generator = components.generator
        self._encoder = encoder
        self._searcher = searcher
        self._k, self._max_new_tokens = k, generate.max_new_tokens
        self._loss = AnswerLoss("sequence", label_smoothing)
        self._prompts = self._generator.prompt_template(generate)

    def retrieve(self, examples: Sequence[Example]) -> SearchFuture:
        """Begin the search for the K nearest passages of every question."""
        questions = [example.question for example in examples]
        return self._searcher.submit(self._encoder.encode_questions(questions), self._k)

    def collate(self, examples: Sequence[Example], found: SearchResult, *, epoch: int = 0) -> FidBatch:
        """Make a micro-batch; the first accepted answer is the target. Passages that were not found are left out."""
        prompts = [
            [self._prompts.ids(example.question, passage) for passage in _passages(found, number)]
            for number, example in enumerate(examples)
        ]
        answers = [self._prompts.answer_ids(example.answers[0], self._max_new_tokens) for example in examples]
        rows = self._generator.answer_batch([row for rows in prompts for row in rows], answers)
        return FidBatch(tuple(map(len, prompts)), rows)

    def loss(self, batch: FidBatch) -> Loss:
        """Return the loss of a micro-batch, a mean over its questions."""
        logp_BLV = self._generator.log_probs(batch.rows, fused=batch.sizes)
        certain_B1 = logp_BLV.new_zeros(len(batch.sizes), 1)
        loss = self._loss(certain_B1, logp_BLV[:, None], batch.rows["labels"][:, None])
        return Loss(loss, {TOKENS: self._generator.num_tokens(batch.rows)})

    def not_finite(self, batch: FidBatch) -> str:
        """Return which component's output for a micro-batch is not finite, or ""."""
        found = self._generator.log_probs(batch.rows, fused=batch.sizes)
        return "" if bool(found.isfinite().all()) else "the generator's log-probabilities are not finite"


def _passages(found: SearchResult, number: int) -> list[Passage | None]:
    """Return the passages of a question; None, a prompt without a passage, where none was found."""
    return [hit.passage for hit in found.hits[number]] or [None]
