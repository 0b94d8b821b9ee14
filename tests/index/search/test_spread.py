"""The spread of an index, next to the plain standard deviation."""

from pathlib import Path

import numpy as np
import pytest

from ragray.config import IndexConfig
from ragray.index.search.reader import IndexReader
from ragray.index.search.spread import OF_FEW, spread_of
from ragray.types import Passage
from tests.helpers import index_of


def passages(count: int) -> list[Passage]:
    return [Passage(f"p{n}", f"word{n % 7} thing{n % 11} place{n}") for n in range(count)]


def test_the_spread_is_the_standard_deviation_of_the_inner_products_between_passages(tmp_path: Path) -> None:
    for segment_rows in (100, 17):
        index = index_of(tmp_path / str(segment_rows), passages(60), IndexConfig(segment_rows=segment_rows))
        vectors_ND = np.concatenate([opened.segment.vectors_ND for opened in IndexReader.open(index).segments])
        products = vectors_ND.astype(np.float32) @ vectors_ND.astype(np.float32).T
        expected = products[np.triu_indices(60, k=1)].std()
        assert spread_of(index, IndexReader.open(index).snapshot) == pytest.approx(float(expected), rel=1e-5)


def test_of_more_rows_a_sample_over_all_segments_is_taken(tmp_path: Path) -> None:
    index = index_of(tmp_path, passages(2500), IndexConfig(segment_rows=700))
    rows = [opened.segment.vectors_ND for opened in IndexReader.open(index).segments]
    vectors_ND = np.concatenate(rows).astype(np.float32)
    whole = (vectors_ND @ vectors_ND.T)[np.triu_indices(2500, k=1)].std()
    assert spread_of(index, IndexReader.open(index).snapshot) == pytest.approx(float(whole), rel=0.05)


@pytest.mark.parametrize("texts", [["only one"], ["the same", "the same", "the same"]])
def test_vectors_that_show_no_spread_get_a_usual_one(tmp_path: Path, texts: list[str]) -> None:
    index = index_of(tmp_path, [Passage(f"p{n}", text) for n, text in enumerate(texts)], IndexConfig())
    assert spread_of(index, IndexReader.open(index).snapshot) == OF_FEW
