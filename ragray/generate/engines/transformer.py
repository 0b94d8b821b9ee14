"""Generator on torch. In: questions with their passages. Out: answers of a `transformers` model, marginalised over the passages."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path

from ragray.config import GenerateConfig
from ragray.errors import ConfigError, InputError
from ragray.generate.answer.spans import Spans, Window, windows
from ragray.generate.answer.writing import Writing
from ragray.generate.engine import Generation, GenerationRequest, Piece, Submission
from ragray.generate.engines.mixture import MixtureBatch, MixtureRequest
from ragray.generate.engines.model import GeneratorModel
from ragray.generate.engines.prefixes import ReadPrompts
from ragray.generate.engines.sampling import TokenChooser
from ragray.generate.engines.searching import SearchBatch
from ragray.generate.generator import Generator, by_length
from ragray.generate.strategy import AnswerStrategy, WeightedPrompts, make_strategy
from ragray.generate.template import PromptTemplate
from ragray.models import resolve_part

CACHED_PASSAGES = 256
"""Passages whose windows are kept for the next question: neighbouring questions often find the same."""


class TransformerGenerator(Generator):
    """Writes answers with a pretrained or fine-tuned model."""

    def __init__(self, model: GeneratorModel, config: GenerateConfig) -> None:
        """Prepare the prompts; raises as `GeneratorModel.prompt_template` does, and `ConfigError` where spans cannot be found."""
        self.model = model
        self.config = config
        self.template = model.prompt_template(config)
        if config.spans and not model.tokenizer.is_fast:
            raise ConfigError(
                f"generate.spans=true needs a tokenizer that knows the places of its tokens, and that of {config.model} does not; "
                "set generate.spans=false, or name a model with tokenizer.json"
            )
        self.strategy = make_strategy(self.template, config)
        # A GPU reads all prompts of a batch in the time of one.
        self._known = ReadPrompts() if model.device.type == "cpu" else None

    @classmethod
    def load(cls, config: GenerateConfig, *, weights: Path | None = None, device: str = "auto") -> TransformerGenerator:
        """Load the configured model, or fine-tuned ``weights`` of it.

        Raises:
            ModelNotFoundError: the model's name resolves to nothing.
            ModelError, ConfigError: its prompts cannot be made.
        """
        return cls(GeneratorModel.load(weights or resolve_part(config.model, "generator"), device=device), config)

    def check(self, question: str, instruction: str = "") -> None:
        """Raise `InputError`, which names the limit, where a question with its instruction is too long for the model."""
        self.template.check(question, instruction)

    def order(self, request: GenerationRequest) -> tuple[object, ...]:
        """Return what requests are sorted by: their passages, or their length where nothing that was read is kept."""
        return by_length(request) if self._known is None or self.model.is_encoder_decoder else super().order(request)

    def open_runner(self) -> TransformerRunner:
        """Begin an empty batch."""
        return TransformerRunner(self.model, self.template, self.strategy, self.config, self._known)


class TransformerRunner:
    """The batch of answers that a model is writing: prompts to rows, tokens to text."""

    gives_logits = True

    def __init__(
        self,
        model: GeneratorModel,
        template: PromptTemplate,
        strategy: AnswerStrategy,
        config: GenerateConfig,
        known: ReadPrompts | None,
    ) -> None:
        self.max_running = config.batch_size
        self._template = template
        self._codec = template.codec
        self._spans = config.spans
        self._windows = lru_cache(CACHED_PASSAGES)(self._passage_windows)
        self._strategy = strategy
        self._max_new_tokens = config.max_new_tokens
        self._searches = config.num_beams > 1 or config.decoding != "joint"
        self._batch = _open_batch(model, config, known, searches=self._searches)
        self._writing: dict[int, Writing] = {}

    def __len__(self) -> int:
        """Return the number of answers that are being written."""
        return len(self._batch)

    @property
    def joinable(self) -> bool:
        """Whether requests can join those that are being answered (see `MixtureBatch.joinable`)."""
        return self._batch.joinable

    def add(self, requests: Mapping[int, Submission]) -> Mapping[int, InputError]:
        """Let requests join, all in one forward pass; return why those were refused whose question is too long."""
        joining: dict[int, MixtureRequest] = {}
        refused: dict[int, InputError] = {}
        for key, submission in requests.items():
            try:
                joining[key] = self._prepare(submission)
            except InputError as err:
                refused[key] = err
        self._batch.add(joining)
        for key, request in joining.items():
            self._writing[key] = Writing(requests[key], request.weighted, self._strategy, self._codec)
        return refused

    def remove(self, key: int) -> None:
        """Let a request leave before its answer is finished."""
        self._batch.remove(key)
        self._writing.pop(key, None)

    def step(self) -> list[tuple[int, Piece]]:
        """Write a token of every answer."""
        written: list[tuple[int, Piece]] = []
        for key, state in self._batch.step().items():
            pieces = self._writing[key].pieces(state.token_ids, state.weights, state.log_prob, state.finish_reason)
            written += [(key, piece) for piece in pieces]
        for key in [key for key, piece in written if isinstance(piece, Generation)]:
            self.remove(key)
        return written

    def _prepare(self, submission: Submission) -> MixtureRequest:
        sampling = submission.sampling
        if sampling.temperature and self._searches:
            raise InputError(
                "temperature draws tokens, and this service searches for the best answer (generate.num_beams, generate.decoding); "
                "leave temperature out"
            )
        most = min(sampling.max_new_tokens or self._max_new_tokens, self._max_new_tokens)
        weighted = self._strategy.prompts(submission.request)
        spans_K = self._request_spans(submission.request, weighted) if self._spans else ()
        return MixtureRequest(weighted, most, TokenChooser(sampling), spans_K)

    def _request_spans(self, request: GenerationRequest, weighted: WeightedPrompts) -> list[Spans]:
        """Return of each prompt the spans of its passages; [] where there are none, and any answer may be written."""
        read = [hit.passage for hit in request.hits[: len(weighted.log_prior_N)]]
        numbers = range(1, len(read) + 1) if self._strategy.numbered else [0] * len(read)
        found = [self._windows(each.title, each.text, number) for each, number in zip(read, numbers, strict=True)]
        if self._strategy.numbered or weighted.fused:
            found = [[window for each in found for window in each]]
        return [Spans.of(each) for each in found] if any(found) else []

    def _passage_windows(self, title: str, text: str, number: int) -> list[Window]:
        """Return the windows of a passage; its citation may follow where it has a number."""
        tail = f" [{number}]" if number else ""
        lead, most = self._template.answer_lead, self._max_new_tokens
        return windows([title, text], self._codec, most_tokens=most, lead=lead, tail=tail)


def _open_batch(
    model: GeneratorModel, config: GenerateConfig, known: ReadPrompts | None, *, searches: bool
) -> MixtureBatch | SearchBatch:
    update_posterior = config.marginalize == "sequence"
    if not searches:
        return MixtureBatch(model, update_posterior=update_posterior, known=known)
    beams, decoding = config.num_beams, config.decoding
    return SearchBatch(model, num_beams=beams, decoding=decoding, update_posterior=update_posterior, known=known)
