"""Generator on torch. In: questions with their passages. Out: answers of a `transformers` model, marginalised over the passages."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import torch

from ragray.config import GenerateConfig
from ragray.generate.decode import Decoding, decode
from ragray.generate.generator import Generation, Prompt
from ragray.generate.model import GeneratorModel
from ragray.models import resolve_model
from ragray.types import Passage


class TransformerGenerator:
    """Writes answers with a pretrained or fine-tuned model."""

    def __init__(self, model: GeneratorModel, config: GenerateConfig) -> None:
        self.model = model
        self._config = config
        self._prompts = model.prompt_encoder(instruction=config.instruction, max_prompt_tokens=config.max_prompt_tokens)

    @classmethod
    def load(cls, config: GenerateConfig, *, weights: Path | None = None, device: str = "auto") -> TransformerGenerator:
        """Load the configured model, or fine-tuned ``weights`` of it.

        Raises:
            ModelNotFoundError: the model's name resolves to nothing.
        """
        return cls(GeneratorModel.load(weights or resolve_model(config.model), device=device), config)

    def generate(self, prompts: Sequence[Prompt]) -> list[Generation]:
        """Answer several prompts, ``batch_size`` together; those with equally many passages share a batch."""
        done: dict[int, Generation] = {}
        for numbers in _batches(prompts, self._config.batch_size):
            *_, answers = self._decode([prompts[number] for number in numbers])
            done.update({n: self._finish(prompts[n], answer) for n, answer in zip(numbers, answers, strict=True)})
        return [done[number] for number in range(len(prompts))]

    def stream(self, prompt: Prompt) -> Iterator[str | Generation]:
        """Yield the answer piece by piece, then the whole."""
        written = ""
        answer = Decoding()
        for [answer] in self._decode([prompt]):
            text = self._text(answer)
            if text.startswith(written) and not text.endswith("\ufffd") and text != written:
                yield text[len(written) :]
                written = text
        generation = self._finish(prompt, answer)
        if len(generation.text) > len(written):
            yield generation.text[len(written) :]
        yield generation

    def _decode(self, prompts: Sequence[Prompt]) -> Iterator[list[Decoding]]:
        rows = [self._rows(prompt) for prompt in prompts]
        scores = [[hit.score for hit in prompt.hits] or [0.0] for prompt in prompts]
        log_prior_BK = torch.log_softmax(torch.tensor(scores) / self._config.temperature, dim=-1)
        return decode(
            self.model,
            rows,
            log_prior_BK,
            max_new_tokens=self._config.max_new_tokens,
            update_posterior=self._config.marginalize == "sequence",
        )

    def _rows(self, prompt: Prompt) -> list[list[int]]:
        passages: list[Passage | None] = [hit.passage for hit in prompt.hits]
        return [self._prompts.ids(prompt.question, passage) for passage in passages or [None]]

    def _text(self, answer: Decoding) -> str:
        text: str = self.model.tokenizer.decode(answer.token_ids, skip_special_tokens=True)
        return text.lstrip()

    def _finish(self, prompt: Prompt, answer: Decoding) -> Generation:
        weights = tuple(answer.weights) if prompt.hits else ()
        return Generation(self._text(answer).strip(), weights, answer.log_prob)


def _batches(prompts: Sequence[Prompt], batch_size: int) -> Iterator[list[int]]:
    """Group prompts by their number of passages and by length, so that little is padded."""
    order = sorted(range(len(prompts)), key=lambda number: (len(prompts[number].hits), _length(prompts[number])))
    batch: list[int] = []
    for number in order:
        if batch and (len(batch) == batch_size or len(prompts[number].hits) != len(prompts[batch[0]].hits)):
            yield batch
            batch = []
        batch.append(number)
    if batch:
        yield batch


def _length(prompt: Prompt) -> int:
    return max((len(hit.passage.text) for hit in prompt.hits), default=0) + len(prompt.question)
