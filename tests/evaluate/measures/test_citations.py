"""Citations: recall and precision by ALCE's rules, as a loop after the authors' script finds them."""

import random
from collections.abc import Sequence

import pytest

from ragray.evaluate.measures.citations import Statement, citation_measures, statements
from ragray.evaluate.measures.entailment import Claim, LexicalEntailment
from ragray.evaluate.records import Answered
from ragray.types import Passage
from tests.evaluate.measures.answered import answered

IDS = ("p0", "p1", "p2", "p3")
PASSAGES = {name: Passage(name, f"<{name}>") for name in IDS}


class Supporting:
    """Supports a statement where the premise holds all passages of one of the statement's sets."""

    how = "a table"

    def __init__(self, sets: dict[str, list[set[str]]]) -> None:
        self._sets = sets

    def supports(self, ids: Sequence[str], statement: str) -> bool:
        return any(one <= set(ids) for one in self._sets[statement])

    def holds(self, claims: Sequence[Claim]) -> list[bool]:
        return [self.supports([name for name in IDS if f"<{name}>" in c.premise], c.statement) for c in claims]


def by_the_script(one: Answered, entails: Supporting) -> tuple[float, float]:
    """Recall and precision of one answer, statement by statement."""
    entailed = precise = num_cited = 0
    found = statements(one)
    for statement in found:
        cites = [one.sources[number] for number in statement.cites]
        num_cited += len(cites)
        together = bool(cites) and entails.supports(cites, statement.text)
        entailed += together
        if together and len(cites) > 1:
            for cite in cites:
                rest = [other for other in cites if other != cite]
                precise += entails.supports([cite], statement.text) or not entails.supports(rest, statement.text)
        else:
            precise += together
    return entailed / len(found), precise / num_cited if num_cited else 0.0


def random_answer(chance: random.Random, number: int) -> Answered:
    marks = ["", " [1]", " [2]", " [1, 3]", " [2][4]", " [1][2][3][4]", " [9]"]
    text = " ".join(
        f"Statement {number}{letter} stands here{chance.choice(marks)}." for letter in "abc"[: chance.randint(1, 3)]
    )
    return answered(text, "x", numbered=True, sources=IDS)


def test_random_answers_score_as_by_the_script() -> None:
    chance = random.Random(2)
    some = [random_answer(chance, number) for number in range(60)]
    sets = {
        said.text: [set(chance.sample(IDS, chance.randint(1, 2))) for _ in range(chance.randint(0, 2))]
        for one in some
        for said in statements(one)
    }
    entails = Supporting(sets)
    expected = [by_the_script(one, entails) for one in some]
    recall, precision = citation_measures(some, PASSAGES, entails)
    assert recall.values() == pytest.approx([100 * one for one, _ in expected])
    assert precision.values() == pytest.approx([100 * one for _, one in expected])
    assert 0 < precision.figure < 100
    assert recall.how == "ALCE, a table"


def test_statements_are_sentences_with_the_passages_that_they_cite() -> None:
    one = answered("Paris lies on the Seine [1][2]. It is old. [3] And large [4].", "x", numbered=True, sources=IDS)
    assert statements(one) == [
        Statement("Paris lies on the Seine.", (0, 1)),
        Statement("It is old.", (2,)),
        Statement("And large.", (3,)),
    ]
    chinese = answered("巴黎位于塞纳河畔[1]。它很古老。[2]", "x", numbered=True, sources=IDS)
    assert statements(chinese) == [Statement("巴黎位于塞纳河畔。", (0,)), Statement("它很古老。", (1,))]


def test_at_most_three_citations_of_a_statement_count() -> None:
    [statement] = statements(answered("All of it [1][2][3][4].", "x", numbered=True, sources=IDS))
    assert statement.cites == (0, 1, 2)


def test_an_answer_without_numbers_cites_the_passage_with_the_greatest_share() -> None:
    one = answered("Paris. It is old.", "x", sources=IDS, weights=(0.1, 0.2, 0.6, 0.1))
    assert [statement.cites for statement in statements(one)] == [(2,), (2,)]


def test_answers_without_passages_or_words_do_not_count() -> None:
    some = [answered("Paris.", "x"), answered("", "x", sources=IDS), answered("[1]", "x", numbered=True, sources=IDS)]
    assert [one.num_examples for one in citation_measures(some, PASSAGES, LexicalEntailment())] == [0, 0]
