"""Prompts that begin like others are read from where they differ, and continue as if they had been read whole."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch

from ragray.config import GenerateConfig
from ragray.generate.engine import GenerationRequest
from ragray.generate.engines.model import GeneratorModel
from ragray.generate.engines.prefixes import ReadPrompts, Shared, in_turn, shared
from ragray.generate.engines.rows import Rows
from ragray.generate.engines.transformer import TransformerGenerator
from ragray.types import Hit, Passage

SYSTEM = list(range(4, 24))
ROME, NILE = [*SYSTEM, *range(30, 60)], [*SYSTEM, *range(34, 50)]
PROMPTS = [[*ROME, 5, 6, 7], [*NILE, 5, 6], [*ROME, 8, 9], [*ROME, 5, 6, 9, 9], [4, 5]]


@pytest.fixture(scope="module")
def model(tiny_decoder: Path) -> GeneratorModel:
    return GeneratorModel.load(tiny_decoder, device="cpu")


def layers(size: int) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Keys and values of one layer, 8 bytes for each token."""
    return [(torch.zeros(1, size, 1), torch.zeros(1, size, 1))]


@contextmanager
def counted(model: GeneratorModel) -> Iterator[list[int]]:
    """Yield the padded tokens of each forward pass."""
    counts = list[int]()

    def count(module: Any, args: Any, kwargs: dict[str, Any]) -> None:
        counts.append(kwargs["input_ids"].numel())

    hook = model.model.register_forward_pre_hook(count, with_kwargs=True)
    yield counts
    hook.remove()


@torch.inference_mode()
def continued(rows: Rows) -> list[torch.Tensor]:
    """Return the log-probabilities of the next token, and those after three more tokens; all (R, V)."""
    found = [rows.log_probs()]
    for token in (7, 11, 13):
        rows.append(torch.full((len(found[0]),), token))
        found.append(rows.log_probs())
    return found


@torch.inference_mode()
def read(model: GeneratorModel, prompts: Sequence[Sequence[int]], known: ReadPrompts | None = None) -> Rows:
    return Rows.read(model, prompts, known=known)


def test_the_longest_known_beginning_is_found_without_the_last_token() -> None:
    known = ReadPrompts()
    known.keep(ROME, layers(len(ROME)))
    known.keep(NILE, layers(len(NILE)))
    assert known.find([*ROME, 1, 2]).num_tokens == len(ROME)
    assert known.find(NILE).num_tokens == len(NILE) - 1
    assert known.find(PROMPTS[-1]) == Shared()


def test_what_was_not_used_for_longest_is_forgotten() -> None:
    one, two, three = ([first, *range(1, 20)] for first in (1, 2, 3))
    known = ReadPrompts(max_bytes=2 * 8 * 20)
    known.keep(one, layers(20))
    known.keep(two, layers(20))
    known.find(one)
    known.keep(three, layers(20))
    assert [known.find(prompt).num_tokens for prompt in (one, two, three)] == [19, 0, 19]
    known.keep(range(100), layers(100))
    assert len(known) == 2


def test_prompts_that_share_more_with_each_other_wait_for_the_first_of_them() -> None:
    assert in_turn(PROMPTS, [0] * 5) == ([0, 4], [1, 2, 3])
    assert in_turn(PROMPTS, [len(SYSTEM)] * 4 + [0]) == ([0, 1, 4], [2, 3])
    assert shared([1, 2, 3], [1, 2, 4]) == 2
    assert shared([1, 2], [1, 2, 4]) == 2


def test_prompts_continue_as_if_each_had_been_read_alone(model: GeneratorModel) -> None:
    known = ReadPrompts()
    for prompts in (PROMPTS, PROMPTS[::-1], [[*ROME, 20]]):
        together = continued(read(model, prompts, known))
        for row, prompt in enumerate(prompts):
            for mine, alone in zip(together, continued(read(model, [prompt])), strict=True):
                torch.testing.assert_close(mine[row], alone[0], atol=1e-4, rtol=1e-4)


def test_what_is_known_is_not_read_again(model: GeneratorModel) -> None:
    known = ReadPrompts()
    with counted(model) as first:
        read(model, PROMPTS[:2], known)
    assert first == [
        len(PROMPTS[0]),
        2 * (len(PROMPTS[1]) - len(SYSTEM)),
    ]  # the first alone; its last token beside the second
    with counted(model) as second:
        read(model, [PROMPTS[2], [*ROME, 5, 6, 40]], known)
    assert second == [2 * 2]


def test_answers_do_not_depend_on_what_was_asked_before(model: GeneratorModel) -> None:
    hits = tuple(Hit(Passage(text, text), 1.0) for text in ("rome is the capital of italy.", "the nile is a river."))
    asked = [GenerationRequest(question, hits) for question in ("what is the capital?", "who?", "what is the river?")]
    settings = GenerateConfig(max_new_tokens=6)
    one = TransformerGenerator(model, settings)
    one.generate(asked)
    for again, alone in zip(one.generate(asked), asked, strict=True):
        [fresh] = TransformerGenerator(model, settings).generate([alone])
        assert again.text == fresh.text
        assert again.weights == pytest.approx(fresh.weights, abs=1e-3)


def test_a_token_is_written_behind_the_others_without_a_copy_of_them(model: GeneratorModel) -> None:
    rows = read(model, PROMPTS[:2])
    with torch.inference_mode():
        places = []
        for _ in range(3):
            rows.append(torch.tensor([9, 9]))
            places.append(rows._cache.layers[0].keys.data_ptr())
    assert len(set(places)) == 1
