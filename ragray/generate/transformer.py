"""Generator on torch. In: questions with their passages. Out: answers of a `transformers` model, marginalised over the passages."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import torch

from ragray.config import GenerateConfig
from ragray.generate.decode import Decoding, DecodingBatch, DecodingRequest
from ragray.generate.generator import Generation, Prompt, generate_together, stream_alone
from ragray.generate.model import GeneratorModel
from ragray.generate.prior import log_prior
from ragray.models import resolve_model
from ragray.types import Passage


class TransformerGenerator:
    """Writes answers with a pretrained or fine-tuned model."""

    def __init__(self, model: GeneratorModel, config: GenerateConfig) -> None:
        """Prepare the prompts; raises as `GeneratorModel.prompt_encoder` does."""
        self.model = model
        self.config = config
        self.prompts = model.prompt_encoder(config)

    @classmethod
    def load(cls, config: GenerateConfig, *, weights: Path | None = None, device: str = "auto") -> TransformerGenerator:
        """Load the configured model, or fine-tuned ``weights`` of it.

        Raises:
            ModelNotFoundError: the model's name resolves to nothing.
            ModelError, ConfigError: its prompts cannot be made.
        """
        return cls(GeneratorModel.load(weights or resolve_model(config.model), device=device), config)

    def check(self, question: str) -> None:
        """Raise `InputError`, which names the limit, where a question is too long for the model."""
        self.prompts.check(question)

    def open_batch(self) -> TransformerBatch:
        """Begin a batch that questions may join."""
        return TransformerBatch(self)

    def generate(self, prompts: Sequence[Prompt]) -> list[Generation]:
        """Answer several prompts, ``batch_size`` together."""
        done: dict[int, Generation] = {}
        for numbers in _batches(prompts, self.config.batch_size):
            answers = generate_together(self, [prompts[number] for number in numbers])
            done.update(zip(numbers, answers, strict=True))
        return [done[number] for number in range(len(prompts))]

    def stream(self, prompt: Prompt) -> Iterator[str | Generation]:
        """Yield the answer piece by piece, then the whole."""
        return stream_alone(self, prompt)

    def request(self, prompt: Prompt) -> DecodingRequest:
        """Make the prompts of a question's passages, and their prior from the passages' scores."""
        passages: list[Passage | None] = [hit.passage for hit in prompt.hits]
        rows = [self.prompts.ids(prompt.question, passage) for passage in passages or [None]]
        return DecodingRequest(rows, torch.tensor(log_prior(prompt.hits, self.config.passage_temperature)))


class TransformerBatch:
    """Answers of one generator that are written side by side."""

    def __init__(self, generator: TransformerGenerator) -> None:
        config = generator.config
        self._generator = generator
        self._size = config.batch_size
        self._decoding = DecodingBatch(
            generator.model,
            max_new_tokens=config.max_new_tokens,
            update_posterior=config.marginalize == "sequence",
        )
        self._prompts: dict[int, Prompt] = {}
        self._written: dict[int, str] = {}

    @property
    def room(self) -> int:
        """How many further questions may join now."""
        return max(0, self._size - len(self)) if self._decoding.joinable else 0

    def __len__(self) -> int:
        return len(self._decoding)

    def add(self, prompts: Mapping[int, Prompt]) -> None:
        """Let questions join; raises as `GenerationBatch.add` does."""
        self._decoding.add({key: self._generator.request(prompt) for key, prompt in prompts.items()})
        self._prompts.update(prompts)
        self._written.update(dict.fromkeys(prompts, ""))

    def remove(self, key: int) -> None:
        """Let a question leave before its answer is finished."""
        self._decoding.remove(key)
        self._prompts.pop(key, None)
        self._written.pop(key, None)

    def step(self) -> list[tuple[int, str | Generation]]:
        """Write a token of every answer."""
        return [(key, piece) for key, answer in self._decoding.step().items() for piece in self._pieces(key, answer)]

    def _pieces(self, key: int, answer: Decoding) -> Iterator[str | Generation]:
        """Yield what is new of an answer's text, then, where it is finished, the whole."""
        text, written = self._text(answer), self._written[key]
        if answer.finish_reason is not None:
            text = text.strip()
        if len(text) > len(written) and (text.startswith(written) or answer.finish_reason is not None):
            yield text[len(written) :]
            self._written[key] = text
        if answer.finish_reason is not None:
            weights = tuple(answer.weights) if self._prompts[key].hits else ()
            self.remove(key)
            yield Generation(text, weights, answer.log_prob, answer.finish_reason)

    def _text(self, answer: Decoding) -> str:
        return self._generator.prompts.codec.decode(answer.token_ids).lstrip()


def _batches(prompts: Sequence[Prompt], batch_size: int) -> Iterator[list[int]]:
    """Group prompts by their number of passages and by length, so that little is padded."""
    order = sorted(range(len(prompts)), key=lambda number: (len(prompts[number].hits), _length(prompts[number])))
    for start in range(0, len(order), batch_size):
        yield order[start : start + batch_size]


def _length(prompt: Prompt) -> int:
    return max((len(hit.passage.text) for hit in prompt.hits), default=0) + len(prompt.question)
