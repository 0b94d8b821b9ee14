"""Nasty texts: cleaning, chunking and analysis do about twice the work for twice the text. `python -m tests.bench nasty` times it."""

import sys
from collections.abc import Callable
from random import Random

import pytest

from ragray.config import IngestConfig
from ragray.corpus.chunk import split_document
from ragray.corpus.tokens import WordTokenizer
from ragray.text.analyzer import analyze
from ragray.text.repair import clean_text
from ragray.types import Document
from tests.text.nasty import NASTY

SIZE = 6000
"""Longer than a passage, so that both texts are cut."""


def chunk(text: str) -> None:
    list(split_document(Document("d", f"x {text}"), WordTokenizer(), IngestConfig()))


STEPS: list[Callable[[str], object]] = [clean_text, chunk, lambda text: analyze([text], "english.3")]


def num_calls(step: Callable[[str], object], text: str) -> int:
    """Count the calls of functions, of Python's and of C's, that a step makes."""
    calls = 0

    def count(frame: object, event: str, argument: object) -> None:
        nonlocal calls
        calls += event in ("call", "c_call")

    sys.setprofile(count)
    try:
        step(text)
    finally:
        sys.setprofile(None)
    return calls


@pytest.mark.parametrize("name", NASTY)
def test_twice_the_text_takes_twice_the_calls(name: str) -> None:
    once, twice = (NASTY[name](size, Random(0)) for size in (SIZE, 2 * SIZE))
    for step in STEPS:
        step(once)
        assert num_calls(step, twice) <= 2.3 * num_calls(step, once) + 400


@pytest.mark.parametrize("name", ["backticks", "delimiter", "ideographic spaces", "marks"])
def test_what_no_call_counts_comes_to_an_end(name: str) -> None:
    """Patterns and normal forms work within one call: at this size the quadratic ones would run into the suite's timeout."""
    text = NASTY[name](400_000, Random(0))
    assert len(clean_text(text)) <= len(text)
