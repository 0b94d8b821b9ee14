"""Which passages nearly repeat another: signatures, threshold, order, and what is kept in memory."""

import random
import sys
from pathlib import Path

import numpy as np
import pytest

from ragray.corpus.minhash import MinHasher, NearDuplicates, _rows_of_a_band
from ragray.errors import MissingPackageError
from tests.helpers import WORDS


@pytest.fixture(scope="module")
def hasher() -> MinHasher:
    return MinHasher()


def text(seed: int, num_words: int = 100) -> list[str]:
    return random.Random(seed).choices(WORDS, k=num_words)


def changed(words: list[str], num_changes: int) -> list[str]:
    """Replace some words, spread evenly, by new ones; each takes three shingles with it."""
    places = {number * len(words) // num_changes for number in range(num_changes)} if num_changes else set()
    return [f"new{place}" if place in places else word for place, word in enumerate(words)]


def jaccard(left: list[str], right: list[str]) -> float:
    one, two = ({tuple(words[n : n + 3]) for n in range(len(words) - 2)} for words in (left, right))
    return len(one & two) / len(one | two)


def estimate(hasher: MinHasher, left: list[str], right: list[str]) -> float:
    one, two = (np.frombuffer(hasher.signature(" ".join(words)), "<u4") for words in (left, right))
    return float(np.mean(one == two))


def test_a_signature_estimates_the_jaccard_similarity_of_word_3_grams(hasher: MinHasher) -> None:
    differences = [
        estimate(hasher, words, other) - jaccard(words, other)
        for seed in range(20)
        for num_changes in (0, 2, 10)
        for words in [text(seed)]
        for other in [changed(words, num_changes)]
    ]
    assert abs(np.mean(differences)) < 0.02
    assert max(map(abs, differences)) < 0.2


def test_case_and_white_space_make_no_difference_and_short_texts_have_signatures_too(hasher: MinHasher) -> None:
    assert hasher.signature("Some  TEXT of words") == hasher.signature("some text\n of WORDS")
    assert hasher.signature("one") == hasher.signature(" ONE ") != hasher.signature("two")
    assert len(hasher.signature("")) == 512


@pytest.mark.parametrize(
    ("threshold", "num_changes", "found"), [(0.8, 2, 1.0), (0.8, 20, 0.0), (0.5, 5, 1.0), (1.0, 0, 1.0)]
)
def test_what_is_clearly_more_similar_than_the_threshold_is_found_and_the_rest_is_not(
    tmp_path: Path, hasher: MinHasher, threshold: float, num_changes: int, found: float
) -> None:
    with NearDuplicates(tmp_path / "near", threshold) as near:
        for seed in range(30):
            near.add(hasher.signature(" ".join(text(seed))), f"p{seed}")
        originals = [near.find(hasher.signature(" ".join(changed(text(seed), num_changes)))) for seed in range(30)]
    right = [original == f"p{seed}" for seed, original in enumerate(originals)]
    assert sum(right) / 30 == pytest.approx(found, abs=0.1)
    assert all(original in (None, f"p{seed}") for seed, original in enumerate(originals))
    assert list(tmp_path.iterdir()) == []


def test_of_several_the_first_is_named(tmp_path: Path, hasher: MinHasher) -> None:
    with NearDuplicates(tmp_path / "near", 0.7) as near:
        assert near.find(hasher.signature("a b c d")) is None
        for name in ("first", "second"):
            near.add(hasher.signature("a b c d"), name)
        assert near.find(hasher.signature("A b c D")) == "first"


def test_what_many_passages_share_does_not_hide_the_one_that_is_repeated(tmp_path: Path, hasher: MinHasher) -> None:
    shared = text(1, 70)
    passages = [shared + [f"own{seed}-{n}" for n in range(80)] for seed in range(900)]
    assert jaccard(passages[0], passages[1]) == pytest.approx(0.3, abs=0.02)
    with NearDuplicates(tmp_path / "near", 0.5) as near:
        for number, words in enumerate(passages):
            assert near.find(hasher.signature(" ".join(words))) is None
            near.add(hasher.signature(" ".join(words)), f"p{number}")
        found = [near.find(hasher.signature(" ".join([*words[:-1], "new"]))) for words in passages]
    assert found == [f"p{number}" for number in range(900)]


def test_without_datasketch_the_pip_line_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "datasketch", None)
    with pytest.raises(MissingPackageError, match=r"run: pip install datasketch$"):
        MinHasher()


def test_a_pair_as_similar_as_the_threshold_is_probably_compared() -> None:
    for threshold in (0.1, 0.3, 0.5, 0.8, 0.95, 1.0):
        rows = _rows_of_a_band(threshold)
        assert rows == 1 or 1 - (1 - threshold**rows) ** (128 // rows) >= 0.95
    assert (_rows_of_a_band(0.8), _rows_of_a_band(1.0)) == (7, 128)
