"""What weights are worth. In: the components of a run, dev examples. Out: exact match, F1, recall and loss, or a retriever's recall."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import isfinite
from pathlib import Path
from time import monotonic
from typing import Any

from ragray.config import FROM_MINED, Config
from ragray.errors import TrainingError
from ragray.evaluate.answers import score
from ragray.evaluate.dev_recall import ranks_in_index, ranks_in_pool
from ragray.evaluate.ranking import first_gold_rank
from ragray.generate.answer.markers import with_known_numbers
from ragray.generate.engine import Generation, GenerationRequest
from ragray.index.search.reader import IndexReader
from ragray.index.search.result import SearchResult
from ragray.stages.validation.dev import DevSet
from ragray.train.components import Components
from ragray.train.objectives.objective import Objective
from ragray.train.objectives.rag import RagObjective
from ragray.train.validation.weights import with_weights
from ragray.types import Example

BATCH = 64
"""Questions that are searched for together."""


@dataclass(frozen=True, slots=True)
class Ended:
    """A validation that has ended: its figures, or what went wrong."""

    figures: Mapping[str, float]
    error: Exception | None = None

    def done(self) -> bool:
        """Return true."""
        return True

    def result(self) -> Mapping[str, float]:
        """Return the figures, or raise what went wrong."""
        if self.error is not None:
            raise self.error
        return self.figures


class LocalValidator:
    """Measures weights in this process, with the components of a run and its objective; the caller waits."""

    def __init__(self, components: Components, objective: Objective[Any], dev: DevSet, config: Config) -> None:
        self._components = components
        self._objective = objective
        self._dev = dev
        self._config = config

    def submit(self, weights: Path) -> Ended:
        """Measure the weights of a file."""
        try:
            return Ended(self.measure(weights))
        except Exception as err:
            return Ended({}, err)

    def measure(self, weights: Path) -> dict[str, float]:
        """Return the figures of the weights of a file; all but loss and seconds are in percent.

        Raises:
            TrainingError: a figure is not finite.
        """
        started = monotonic()
        with with_weights(weights, self._components), self._components.autocast():
            of_retriever = self._config.train.objective in FROM_MINED
            figures = self._retriever() if of_retriever else self._reader()
        for name, value in figures.items():
            if not isfinite(value):
                raise TrainingError(f"its {name} is {value:g}")
        return {**figures, "seconds": monotonic() - started}

    def _reader(self) -> dict[str, float]:
        """Return what answers with these weights are worth, and the loss of the accepted ones."""
        examples, k = self._dev.examples, self._config.retrieve.k
        requests: list[GenerationRequest] = []
        ranks: list[int | None] = []
        losses = 0.0
        for batch, found in self._found(BATCH):
            hits = [tuple(one[:k]) for one in self._kept(batch, found).hits]
            requests += [GenerationRequest(one.question, own) for one, own in zip(batch, hits, strict=True)]
            ranks += [first_gold_rank(own, one.gold_ids) for one, own in zip(batch, hits, strict=True) if one.gold_ids]
            losses += self._sum_of_losses(batch, found)
        texts = [_prediction(answer) for answer in self._generate(requests)]
        scores = score({one.id: text for one, text in zip(examples, texts, strict=True)}, examples)
        figures = {"exact_match": scores.exact_match, "f1": scores.f1, "loss": losses / len(examples)}
        return {**figures, **_recall(ranks)}

    def _found(self, size: int) -> Iterator[tuple[Sequence[Example], SearchResult]]:
        examples = self._dev.examples
        for start in range(0, len(examples), size):
            batch = examples[start : start + size]
            yield batch, self._objective.retrieve(batch).result()

    def _kept(self, examples: Sequence[Example], found: SearchResult) -> SearchResult:
        """Return the passages that are read: where training ranks candidates by the weights of now, the best of those."""
        return self._objective.kept(examples, found) if isinstance(self._objective, RagObjective) else found

    def _sum_of_losses(self, examples: Sequence[Example], found: SearchResult) -> float:
        """Return the loss of some examples times their number, in micro-batches of training's size."""
        size, total = self._config.train.batch_size, 0.0
        for start in range(0, len(examples), size):
            part = slice(start, start + size)
            batch = self._objective.collate(examples[part], found.part(part), epoch=0)
            total += float(self._objective.loss(batch).value) * len(examples[part])
        return total

    def _generate(self, requests: Sequence[GenerationRequest]) -> list[Generation]:
        from ragray.generate.engines.transformer import TransformerGenerator

        generator = self._components.generator
        assert generator is not None
        return TransformerGenerator(generator, self._config.generate).generate(requests)

    def _retriever(self) -> dict[str, float]:
        """Return the share of questions of which a gold passage is found, in the index or among the passages of all questions."""
        dev, encoders, k = self._dev, self._components.encoders, self._config.retrieve.k
        questions = encoders["question_encoder"]
        if dev.pool is not None:
            texts = [example.question for example in dev.examples]
            pair = (questions, encoders["passage_encoder"])
            return _recall(ranks_in_pool(pair, texts, dev.pool.texts, dev.pool.gold, k))
        reader = IndexReader.open(Path(dev.index), snapshot=dev.snapshot, threads=self._config.retrieve.threads)
        return _recall(ranks_in_index(reader, questions, [one for one in dev.examples if one.gold_ids], k))


def _recall(ranks: Sequence[int | None]) -> dict[str, float]:
    """Return the share of questions with gold ids of which a gold passage was found, in percent; nothing where no question has any."""
    return {"recall": 100 * sum(rank is not None for rank in ranks) / len(ranks)} if ranks else {}


def _prediction(answer: Generation) -> str:
    return with_known_numbers(answer.text, 0) if answer.numbered else answer.text
