"""Slices: the question word by language, the length of the answer, the rank of the gold passage."""

import pytest

from ragray.config import EvaluateConfig
from ragray.evaluate.measures.named import measures
from ragray.evaluate.report.slices import answer_length, gold_rank_of, question_word, slices
from tests.evaluate.measures.answered import answered


@pytest.mark.parametrize(
    ("question", "kind"),
    [
        ("Who wrote it?", "who"),
        ("To whom was it sent?", "who"),
        ("In which year did it open?", "which"),
        ("What is it?", "what"),
        ("Since when?", "when"),
        ("How many bridges are there?", "how many"),
        ("How old is it?", "how"),
        ("Why?", "why"),
        ("Name the river.", "other"),
        ("Was it built in 1900?", "other"),
        ("Whatsoever", "other"),
        ("Was ist die Hauptstadt?", "what"),
        ("Wie viele Brücken hat die Stadt?", "how many"),
        ("Wo liegt das Dorf?", "where"),
        ("Où se trouve la ville ?", "where"),
        ("Combien de ponts y a-t-il ?", "how many"),
        ("¿Quién escribió el libro?", "who"),
        ("¿Por qué?", "why"),
        ("作者是谁？", "who"),
        ("南宋的都城当时叫什么名字？", "what"),
        ("什么时候开放？", "when"),
        ("第一次举办是在哪一年？", "when"),
        ("简称是哪个字？", "which"),
        ("有多少座桥？", "how many"),
        ("为什么？", "why"),
    ],
)
def test_the_first_question_word_of_the_language_decides(question: str, kind: str) -> None:
    assert question_word(question) == kind


@pytest.mark.parametrize(
    ("references", "length"),
    [
        (["Paris"], "1 token"),
        (["the Seine"], "1 token"),
        (["the river Seine", "Seine in France by the sea"], "2-3 tokens"),
        (["临安府城"], "4-10 tokens"),
        ([" ".join("abcdefghijk")], "4-10 tokens"),
        ([" ".join("bcdefghijkl")], "over 10 tokens"),
    ],
)
def test_the_shortest_reference_has_the_length(references: list[str], length: str) -> None:
    assert answer_length(answered("x", *references), "auto") == length


@pytest.mark.parametrize(
    ("ranks", "name"), [((1,), "1"), ((5, 2), "2-5"), ((20,), "6-20"), ((21,), "over 20"), ((None,), "not found")]
)
def test_the_first_gold_passage_has_the_rank(ranks: tuple[int | None, ...], name: str) -> None:
    gold = [str(number) for number in range(len(ranks))]
    assert gold_rank_of(answered("x", "x", gold=gold, gold_ranks=ranks)) == name
    assert gold_rank_of(answered("x", "x")) == "no gold ids"


def test_every_answer_is_in_one_slice_of_each_kind_with_the_figures_of_the_slice() -> None:
    some = [answered("a1", "a1", gold=["p"], gold_ranks=(1,)), answered("b", "c d"), answered("c", "c")]
    found = slices(some, measures(some, EvaluateConfig()), "auto", with_retrieval=True)
    assert list(found) == ["question word", "answer length", "rank of the gold passage"]
    assert list(found["answer length"]) == ["1 token", "2-3 tokens"]
    assert found["answer length"]["1 token"]["f1"].value == 100
    assert found["answer length"]["2-3 tokens"]["exact_match"].value == 0
    assert [inside["f1"].num_examples for inside in found["rank of the gold passage"].values()] == [1, 2]
    assert "rank of the gold passage" not in slices(
        some, measures(some, EvaluateConfig()), "auto", with_retrieval=False
    )
