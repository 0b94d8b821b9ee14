"""The one prompt of training, evaluation and serving. In: a question and a passage. Out: token ids for the generator.

A generator reads one passage at a time; what it makes of several is marginalised (`ragray.generate.decode`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ragray.types import Passage


class PromptEncoder:
    """Renders prompts with the tokenizer's chat template where it has one, else as plain text."""

    def __init__(self, tokenizer: Any, *, instruction: str, max_prompt_tokens: int, chat: bool) -> None:
        self.tokenizer = tokenizer
        self._instruction = instruction
        self._max_tokens = max_prompt_tokens
        self._chat = chat and bool(getattr(tokenizer, "chat_template", None))

    def ids(self, question: str, passage: Passage | None) -> list[int]:
        """Return the prompt's ids; a passage that does not fit loses its end, the question never does."""
        context = _context(passage)
        ids = self._encode(self._render(question, context))
        if len(ids) <= self._max_tokens or not context:
            return ids
        passage_ids = self.tokenizer(context, add_special_tokens=False)["input_ids"]
        keep = max(0, len(passage_ids) - (len(ids) - self._max_tokens))
        return self._encode(self._render(question, self.tokenizer.decode(passage_ids[:keep])))

    def answer_ids(self, answer: str, max_tokens: int) -> list[int]:
        """Return the ids that training wants the generator to write: the answer, then the end token."""
        text = answer if self._chat else f" {answer}"
        ids: list[int] = self.tokenizer(text, add_special_tokens=False)["input_ids"]
        return [*ids[: max_tokens - 1], self.tokenizer.eos_token_id]

    def _render(self, question: str, context: str) -> str:
        asked = f"{context}\n\nQuestion: {question}" if context else f"Question: {question}"
        if not self._chat:
            return f"{self._instruction}\n\n{asked}\nAnswer:"
        messages = [{"role": "system", "content": self._instruction}, {"role": "user", "content": asked}]
        text: str = self.tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
        return text

    def _encode(self, text: str) -> list[int]:
        """Tokenise; a chat template already wrote the special tokens."""
        ids: list[int] = self.tokenizer(text, add_special_tokens=not self._chat)["input_ids"]
        return ids


def _context(passage: Passage | None) -> str:
    if passage is None:
        return ""
    return f"{passage.title}: {passage.text}" if passage.title else passage.text


def left_pad(rows: Sequence[Sequence[int]], pad_id: int) -> tuple[list[list[int]], list[list[int]]]:
    """Pad token rows on the left to one length; return ids and mask, both (R, T)."""
    longest = max(len(row) for row in rows)
    ids = [[pad_id] * (longest - len(row)) + list(row) for row in rows]
    mask = [[0] * (longest - len(row)) + [1] * len(row) for row in rows]
    return ids, mask
