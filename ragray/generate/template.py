"""The one prompt of training, evaluation and serving. In: a question and a passage. Out: token ids for the generator.

How an answer is made from several passages is up to the strategy (`ragray.generate.strategy`).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ragray.config import GenerateConfig
from ragray.errors import ConfigError, InputError, ModelError, first_line
from ragray.generate.answer.markers import MARKER
from ragray.generate.engine import Turn
from ragray.generate.textcodec import Piece, TextCodec
from ragray.types import Passage

PASSAGE_ROOM = 16
"""Tokens of a prompt that a question must leave to the passage; otherwise an answer would cite passages that were cut away."""

HISTORY_SHARE = 0.5
"""Share of a prompt that earlier turns may take of what instruction and question leave; the rest is for the passage."""

MAX_CHARS_PER_TOKEN = 16
"""A turn with more characters for each token that it may have is taken as too long without being encoded."""

CITE = "Cite the passages that you use by their numbers, such as [1]."
"""What is added to the instruction where the passages of a prompt are numbered."""

INSTRUCTION, ASKED = "\ue001ragray-instruction\ue001", "\ue001ragray-question\ue001"
"""Placeholders in a rendered chat template, made of private-use characters, which no template changes."""


@dataclass(frozen=True, slots=True)
class PromptLimit:
    """How many tokens a prompt may have, and which setting or property of the model says so."""

    num_tokens: int
    reason: str


def prompt_limit(model: Any, config: GenerateConfig) -> PromptLimit:
    """Return how long a prompt may be for a model, given its configuration as `transformers` has it.

    Prompt and answer stand in one window; the two halves of an encoder-decoder have a window each. ``generate.max_new_tokens``
    tokens of it are for the answer.

    Raises:
        ConfigError: answers of that length leave no room for a prompt.
    """
    answer = config.max_new_tokens
    window = getattr(model.get_text_config(), "max_position_embeddings", None)
    if window is None:  # relative positions: the model has no longest text
        return PromptLimit(config.max_prompt_tokens, "generate.max_prompt_tokens")
    room = window - answer
    if model.is_encoder_decoder and answer <= window:
        room = window
    if room < 2 * PASSAGE_ROOM:
        raise ConfigError(
            f"generate.max_new_tokens={answer} leaves no room for a prompt: the model's window has {window} tokens; lower it"
        )
    if config.max_prompt_tokens <= room:
        return PromptLimit(config.max_prompt_tokens, "generate.max_prompt_tokens")
    return PromptLimit(room, f"the model's window of {window} tokens, less generate.max_new_tokens={answer}")


def make_template(tokenizer: Any, model: Any, config: GenerateConfig) -> PromptTemplate:
    """Make the prompt template for a tokenizer and a model's configuration; chat templates are for decoder-only models.

    Raises:
        ConfigError: as `prompt_limit` does, or the form of the prompt does not fit the strategy.
        ModelError: as `PromptTemplate` does.
    """
    if config.prompt == "rag" and config.strategy == "together":
        raise ConfigError(
            "generate.prompt=rag has a prompt for each passage; set generate.prompt=instruct, or generate.strategy=marginal"
        )
    limit = prompt_limit(model, config)
    return PromptTemplate(
        tokenizer,
        instruction=config.instruction,
        limit=limit,
        chat=not model.is_encoder_decoder,
        cite=CITE if config.strategy == "together" else "",
        rag=config.prompt == "rag",
    )


class PromptTemplate:
    """Renders prompts with the tokenizer's chat template where it has one, else as plain text."""

    def __init__(
        self, tokenizer: Any, *, instruction: str, limit: PromptLimit, chat: bool, cite: str = "", rag: bool = False
    ) -> None:
        """Read the chat template; ``cite`` is added to the instruction where passages are numbered.

        With ``rag`` prompts are those of the RAG classes of `transformers`.

        Raises:
            ModelError: the template cannot be rendered, or leaves the question out; the tokenizer has no end token.
        """
        self.tokenizer = tokenizer
        self.limit = limit
        self._chat = chat and not rag and bool(getattr(tokenizer, "chat_template", None))
        self._rag = rag
        self._layout = _chat_layout(tokenizer) if self._chat else RAG_LAYOUT if rag else PLAIN_LAYOUT
        self._instruction = instruction
        self._cite = cite
        trusted = "".join(part for part in self._layout if part not in (INSTRUCTION, ASKED))
        self.codec = TextCodec(tokenizer, template=trusted if self._chat else "")
        if tokenizer.eos_token_id is None:
            raise ModelError(
                f"{tokenizer.name_or_path}: the tokenizer names no end token (eos_token); answers would never end"
            )

    def check(self, question: str, instruction: str = "") -> None:
        """Raise `InputError` where a question is too long to be asked with a passage; ``instruction`` "" is the template's."""
        self._require_room(len(self._encode(self._asked(question), "", self.citing(instruction))))

    def ids(self, question: str, passage: Passage | None, *, history: str = "", instruction: str = "") -> list[int]:
        """Return the prompt's ids; a passage that does not fit loses its end, the question never does.

        ``history`` is what `condensed` returned for this question; ``instruction`` "" is the template's own.

        Raises:
            InputError: the question is too long, as `check` says.
        """
        return self._fitted(f"{history}{self._asked(question)}", self._context(passage), instruction)

    def numbered_ids(
        self, question: str, passages: Sequence[Passage], *, history: str = "", instruction: str = ""
    ) -> tuple[list[int], int]:
        """Return the ids of the prompt with passages numbered from 1, and how many of them, from the first, stand in it.

        The first that does not fit loses its end, or is left out where less than `PASSAGE_ROOM` tokens of its text would stay;
        those behind it are left out. Numbers in brackets in their texts are, too: an answer that copied one would cite.

        Raises:
            InputError: the question is too long, as `check` says.
        """
        asked = f"{history}Question: {question}"
        if not passages:
            return self._fitted(asked, "", instruction), 0
        citing = self.citing(instruction)
        room = self.limit.num_tokens - len(self._encode(asked, "", citing))
        parts = self._fitting([_numbered(*each) for each in enumerate(passages, start=1)], room)
        return self._fitted(asked, "\n\n".join(parts), citing), len(parts)

    def fits(self, question: str, passages: Sequence[Passage]) -> bool:
        """Return whether some passages stand whole in the prompt that `numbered_ids` makes of them."""
        room = self.limit.num_tokens - len(self._encode(f"Question: {question}", "", self.citing("")))
        parts = [_numbered(*each) for each in enumerate(passages, start=1)]
        return sum(len(self.codec.encode(f"{part}\n\n")) for part in parts) <= room

    def _fitting(self, parts: Sequence[str], room: int) -> list[str]:
        """Return the parts of a context, from the first, that have room; of the last of them perhaps its beginning."""
        kept = list[str]()
        for part in parts:
            least = len(self.codec.encode(f"{part.partition(': ')[0]}: ")) + PASSAGE_ROOM
            size = len(self.codec.encode(f"{part}\n\n"))
            if size > room and least > room and kept:
                break
            kept.append(part if size <= room else self.codec.cut(part, room))
            room -= size
            if room <= 0:
                break
        return kept

    def citing(self, instruction: str) -> str:
        """Return the instruction of a prompt with numbered passages; ``instruction`` "" is the template's own."""
        return f"{instruction or self._instruction} {self._cite}".strip()

    def _fitted(self, asked: str, context: str, instruction: str) -> list[int]:
        """Encode a prompt; a context that does not fit loses its end."""
        ids = self._encode(asked, context, instruction)
        if len(ids) <= self.limit.num_tokens - (0 if context else PASSAGE_ROOM):
            return ids
        self._require_room(len(self._encode(asked, "", instruction)))
        room = len(self.codec.encode(context))
        while len(ids) > self.limit.num_tokens:
            room -= len(ids) - self.limit.num_tokens
            ids = self._encode(asked, self.codec.cut(context, room), instruction)
        return ids

    def condensed(self, history: Sequence[Turn], question: str, instruction: str = "") -> str:
        """Return what was said before a question as the text that stands before it in the prompt, "" if nothing of it fits.

        Turns are kept whole, the newest first, while they have at most `HISTORY_SHARE` of the tokens that the question leaves.
        """
        kept = ""
        if not history:
            return kept
        left = self.limit.num_tokens - PASSAGE_ROOM - len(self._encode(self._asked(question), "", instruction))
        budget = int(left * HISTORY_SHARE)
        for turn in reversed(history):
            longer = f"{turn.role.capitalize()}: {turn.text}\n{kept}"
            if len(longer) > MAX_CHARS_PER_TOKEN * budget or len(self.codec.encode(_said(longer))) > budget:
                break
            kept = longer
        return _said(kept) if kept else ""

    def answer_ids(self, answer: str, max_tokens: int) -> list[int]:
        """Return the target ids of training: the answer, then the end token.

        Of a longer answer they are its first tokens without the end token, so that the generator does not learn to end there.
        """
        ids = [*self.codec.encode(f"{self.answer_lead}{answer}"), self.tokenizer.eos_token_id]
        return ids if len(ids) <= max_tokens else self.codec.whole(ids[:max_tokens])

    @property
    def answer_lead(self) -> str:
        """What stands before an answer in `answer_ids`."""
        return "" if self._chat else " "

    def answer_length(self, answer: str) -> int:
        """Return the number of tokens of an answer, its end token included."""
        return len(self.codec.encode(f"{self.answer_lead}{answer}")) + 1

    def _asked(self, question: str) -> str:
        return question if self._rag else f"Question: {question}"

    def _context(self, passage: Passage | None) -> str:
        if passage is None:
            return ""
        if self._rag:
            title = passage.title.removeprefix('"').removesuffix('"')
            return f"{title}{RAG_TITLE_SEP}{passage.text}".replace("  ", " ")
        return f"{passage.title}: {passage.text}" if passage.title else passage.text

    def _require_room(self, num_tokens: int) -> None:
        if num_tokens + PASSAGE_ROOM > self.limit.num_tokens:
            raise InputError(
                f"the question is too long: with the instruction it has {num_tokens} tokens of this model, and a prompt may have "
                f"{self.limit.num_tokens} ({self.limit.reason}), {PASSAGE_ROOM} of them for a passage; shorten it"
            )

    def _encode(self, asked: str, context: str, instruction: str) -> list[int]:
        """Encode a prompt; a chat template already wrote the tokens that stand around it."""
        user = f"{context}{RAG_DOC_SEP if self._rag else PARAGRAPH}{asked}" if context else asked
        filled = {INSTRUCTION: instruction or self._instruction, ASKED: user}
        pieces = [Piece(filled.get(part, part), trusted=part not in filled) for part in self._layout]
        return self.codec.encode_pieces(pieces, frame=not self._chat)


PARAGRAPH = "\n\n"
PLAIN_LAYOUT = (INSTRUCTION, PARAGRAPH, ASKED, "\nAnswer:")
RAG_LAYOUT = (INSTRUCTION, ASKED)
RAG_TITLE_SEP, RAG_DOC_SEP = " / ", " // "
"""Of `RagConfig`; every published RAG model has them."""


def _chat_layout(tokenizer: Any) -> tuple[str, ...]:
    """Return the parts of a chat template with the places of instruction and question among them.

    A template that knows no system message, whether it says so or leaves it out, gets the instruction in the user's turn.
    """
    user = {"role": "user", "content": ASKED}
    try:
        text = _rendered(tokenizer, [{"role": "system", "content": INSTRUCTION}, user])
    except Exception:  # whatever the template raises of its own
        text = ""
    if INSTRUCTION not in text:
        try:
            text = _rendered(tokenizer, [{"role": "user", "content": f"{INSTRUCTION}\n\n{ASKED}"}])
        except Exception as err:
            raise ModelError(
                f"{tokenizer.name_or_path}: the chat template of the tokenizer cannot be rendered ({first_line(err)}); "
                "mend tokenizer.chat_template, or remove it for a plain prompt"
            ) from err
    if ASKED not in text or INSTRUCTION not in text:
        raise ModelError(
            f"{tokenizer.name_or_path}: the chat template of the tokenizer leaves the user's message out; "
            "mend tokenizer.chat_template, or remove it for a plain prompt"
        )
    return tuple(part for part in re.split(f"({INSTRUCTION}|{ASKED})", text) if part)


def _rendered(tokenizer: Any, messages: list[dict[str, str]]) -> str:
    text: str = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    return text


def _numbered(number: int, passage: Passage) -> str:
    return f"[{number}] {MARKER.sub('', passage.title)}: {MARKER.sub('', passage.text)}"


def _said(turns: str) -> str:
    return f"Conversation so far:\n{turns}\n"


def left_pad(rows: Sequence[Sequence[int]], pad_id: int) -> tuple[list[list[int]], list[list[int]]]:
    """Pad token rows on the left to one length; return ids and mask, both (R, T)."""
    longest = max(len(row) for row in rows)
    ids = [[pad_id] * (longest - len(row)) + list(row) for row in rows]
    mask = [[0] * (longest - len(row)) + [1] * len(row) for row in rows]
    return ids, mask


def right_pad(rows: Sequence[Sequence[int]], pad_id: int) -> tuple[list[list[int]], list[list[int]]]:
    """Pad token rows on the right to one length; return ids and mask, both (R, T)."""
    longest = max(len(row) for row in rows)
    ids = [list(row) + [pad_id] * (longest - len(row)) for row in rows]
    mask = [[1] * len(row) + [0] * (longest - len(row)) for row in rows]
    return ids, mask
