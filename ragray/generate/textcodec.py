"""Text and tokens of a generator. In: untrusted text. Out: its tokens, no control token among them; and tokens as whole characters.

A tokenizer takes the spelling of a control token (``<|im_end|>``, ``</s>``, ``[INST]``) for the token itself. In text that was
not written by the prompt's template that is an injection: a document could end the user's turn. Here such a spelling is
encoded as its single characters.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

MARKUP = re.compile(r"<\S.*>|\[/?[A-Z_ ]+\]")
"""The look of a control token. Added tokens of another look are words that a fine-tuning added to the vocabulary."""

REPLACEMENT = "\ufffd"
"""What a tokenizer decodes incomplete UTF-8 to."""


@dataclass(frozen=True, slots=True)
class Piece:
    """A part of a prompt: written by the template (``trusted``: control tokens in it are meant), or by anyone else."""

    text: str
    trusted: bool = False


class TextCodec:
    """Encodes text as text and decodes whole characters, for one tokenizer of `transformers`."""

    def __init__(self, tokenizer: Any, *, template: str = "") -> None:
        """Take ``template`` as text whose added tokens count as control tokens however they look."""
        self.tokenizer = tokenizer
        added = {int(number): str(token) for number, token in tokenizer.added_tokens_decoder.items()}
        special = set(tokenizer.all_special_ids) - {tokenizer.unk_token_id}
        control = {
            number: text
            for number, text in added.items()
            if number in special or MARKUP.fullmatch(text) or (text.strip() and text in template)
        }
        control.pop(tokenizer.unk_token_id, None)
        self._control_ids = frozenset(control)
        spelled = "|".join(re.escape(text) for text in sorted(control.values(), key=len, reverse=True) if len(text) > 1)
        self._spelled = re.compile(f"(?=(?:{spelled}))") if spelled else None
        self._before, self._after = _frame(tokenizer)
        self._meant: dict[str, int] = {}

    def encode(self, text: str) -> list[int]:
        """Encode text that anyone wrote; no id of a control token is among the result."""
        return self.encode_pieces([Piece(text)])

    def encode_pieces(self, pieces: Sequence[Piece], *, frame: bool = False) -> list[int]:
        """Encode a prompt; ``frame`` puts the tokenizer's own tokens around it, such as a first or an end token.

        Where no spelling of a control token stands in it, this is the tokenizer's encoding of the joined text.
        """
        ids = self._ids("".join(piece.text for piece in pieces))
        meant = sum(self._num_meant(piece.text) for piece in pieces if piece.trusted)
        if self._num_controls(ids) != meant:
            ids = self._apart(pieces, meant)
        return [*self._before, *ids, *self._after] if frame else ids

    def with_stops(self, texts: Sequence[str]) -> list[tuple[list[int], list[int | None]]]:
        """Return of each text its ids, and where each of them stops, in characters; None within a character.

        A text stops before the first spelling of a control token. Only fast tokenizers know the places (`is_fast`).
        """
        if not texts:
            return []
        found = self.tokenizer(list(texts), add_special_tokens=False, return_offsets_mapping=True)
        return [self._stops(*each) for each in zip(found["input_ids"], found["offset_mapping"], strict=True)]

    def _stops(self, ids: list[int], offsets: list[tuple[int, int]]) -> tuple[list[int], list[int | None]]:
        size = next((number for number, token in enumerate(ids) if token in self._control_ids), len(ids))
        starts = [*(start for start, _ in offsets[1:]), offsets[-1][1]] if offsets else []
        stops = [stop if stop <= start else None for (_, stop), start in zip(offsets, starts, strict=True)]
        return ids[:size], stops[:size]

    def cut(self, text: str, num_tokens: int) -> str:
        """Return the longest beginning of a text that has at most so many tokens and ends with a whole character."""
        ids = self.encode(text)
        while len(ids) > num_tokens:
            if num_tokens <= 0:
                return ""
            text = self._beginning(text, ids, num_tokens)
            ids = self.encode(text)
        return text

    def decode(self, ids: Sequence[int]) -> str:
        """Decode without control tokens; a character that was cut at the end is left out."""
        text: str = self.tokenizer.decode(ids, skip_special_tokens=True)
        return text.rstrip(REPLACEMENT) if text.endswith(REPLACEMENT) else text

    def whole(self, ids: Sequence[int]) -> list[int]:
        """Return ids without those at the end that are only a part of a character."""
        kept = list(ids)
        while kept and str(self.tokenizer.decode(kept)).endswith(REPLACEMENT):
            kept.pop()
        return kept

    def _beginning(self, text: str, ids: Sequence[int], num_tokens: int) -> str:
        """Cut a text before its token ``num_tokens``, and in any case make it shorter."""
        if self.tokenizer.is_fast and ids == self._ids(text):
            starts = self.tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)["offset_mapping"]
            at = int(starts[num_tokens][0])
        else:
            at = len(self.decode(ids[:num_tokens]))
        return text[: max(0, min(at, len(text) - 1))]

    def _ids(self, text: str) -> list[int]:
        ids: list[int] = self.tokenizer(text, add_special_tokens=False)["input_ids"] if text else []
        return ids

    def _num_meant(self, template: str) -> int:
        """Count the control tokens that a part of the template writes; there are only a few such parts."""
        if template not in self._meant:
            self._meant[template] = self._num_controls(self._ids(template))
        return self._meant[template]

    def _num_controls(self, ids: Iterable[int]) -> int:
        return sum(number in self._control_ids for number in ids)

    def _apart(self, pieces: Sequence[Piece], meant: int) -> list[int]:
        """Encode a prompt cut behind the first character of every spelling that is not meant, so that none is found whole."""
        parts = [""]
        for piece in pieces:
            cuts = [0] if piece.trusted else [0, *self._cuts(piece.text)]
            first, *rest = [piece.text[start:stop] for start, stop in zip(cuts, [*cuts[1:], None], strict=True)]
            parts[-1] += first
            parts += rest
        ids = [token for part in parts for token in self._ids(part)]
        if self._num_controls(ids) == meant:
            return ids
        # The tokenizer finds control tokens in other spellings too, for instance in full-width letters.
        return [
            token
            for piece in pieces
            for part in ([piece.text] if piece.trusted else self._harmless(piece.text))
            for token in self._ids(part)
        ]

    def _cuts(self, text: str) -> list[int]:
        return sorted({found.start() + 1 for found in self._spelled.finditer(text)}) if self._spelled else []

    def _harmless(self, text: str) -> Iterable[str]:
        """Return a text whole if its encoding holds no control token, else those of its characters that are not control tokens."""
        if not self._num_controls(self._ids(text)):
            return [text]
        return [character for character in text if not self._num_controls(self._ids(character))]


def _frame(tokenizer: Any) -> tuple[list[int], list[int]]:
    """Return the tokens that a tokenizer puts before and behind a text."""
    bare = tokenizer("a", add_special_tokens=False)["input_ids"]
    framed = tokenizer("a", add_special_tokens=True)["input_ids"]
    for start in range(len(framed) - len(bare) + 1):
        if framed[start : start + len(bare)] == bare:
            return framed[:start], framed[start + len(bare) :]
    return [], []
