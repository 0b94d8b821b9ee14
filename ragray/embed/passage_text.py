"""What the encoder sees of a passage. In: title and text. Out: one text; BM25 counts the words of the same. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ragray.types import Passage

if TYPE_CHECKING:
    import pyarrow as pa


def encoder_text(title: str, text: str) -> str:
    """Join title and text as the encoder sees them."""
    return f"{title}\n{text}" if title else text


def encoder_texts(passages: pa.Table | pa.RecordBatch) -> list[str]:
    """Return the passages of a table as the encoder sees them."""
    pairs = zip(passages["title"].to_pylist(), passages["text"].to_pylist(), strict=True)
    return [encoder_text(title or "", text) for title, text in pairs]


def passage_text(passage: Passage) -> str:
    """Return a passage as the encoder sees it."""
    return encoder_text(passage.title, passage.text)
