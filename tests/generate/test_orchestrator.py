"""Retrieve, then generate: each question gets its own k and book, and what is wrong is said before anything is searched."""

import asyncio
from collections.abc import Sequence

import pytest

from ragray.errors import InputError
from ragray.generate.engines.fake import FirstSentenceGenerator
from ragray.generate.orchestrator import Orchestrator, QuestionRequest, ServedAnswer
from ragray.generate.pipeline import DirectFinder, DirectWriter, Pipeline
from ragray.retrieve.retriever import AS_SET, SearchOptions
from ragray.types import Hit, Passage, RetrievalResult


class Swapping:
    """A retriever whose every search is of another snapshot."""

    def __init__(self) -> None:
        self.searches: list[tuple[list[str], int]] = []

    @property
    def snapshot(self) -> str:
        """Name of the snapshot that the next search uses."""
        return f"s{len(self.searches)}"

    def search(self, queries: Sequence[str], k: int, options: SearchOptions = AS_SET) -> list[RetrievalResult]:
        name = self.snapshot
        self.searches.append((list(queries), k))
        return [
            RetrievalResult(name, tuple(Hit(Passage(f"{query}{rank}", f"{query} in {name}"), 1.0) for rank in range(k)))
            for query in queries
        ]


class Refusing(FirstSentenceGenerator):
    """Refuses long questions."""

    def check(self, question: str, instruction: str = "") -> None:
        if len(question) > 10:
            raise InputError("the question is too long")


def orchestrator_of(retriever: Swapping) -> Orchestrator:
    return Orchestrator(DirectFinder(retriever), DirectWriter(Refusing()), k=2, run="run")


def test_every_question_gets_its_own_k_and_book_and_names_the_snapshot_that_its_passages_are_from() -> None:
    retriever = Swapping()
    requests = [QuestionRequest("a"), QuestionRequest("b", k=3), QuestionRequest("c", closed_book=True)]
    served = asyncio.run(orchestrator_of(retriever).answer_all([*requests, QuestionRequest("d", k=2)]))
    assert retriever.searches == [(["a", "d"], 2), (["b"], 3)]
    answers = [each.answer for each in served]
    assert [(answer.text, answer.snapshot, len(answer.citations)) for answer in answers] == [
        ("a in s0.", "s0", 2),
        ("b in s1.", "s1", 3),
        ("I do not know.", "", 0),
        ("d in s0.", "s0", 2),
    ]
    assert {each.run for each in served} == {"run"}
    assert all(each.retrieve_s >= 0 <= each.generate_s for each in served)


def test_a_stream_ends_with_the_answer_that_its_pieces_join_to() -> None:
    async def streamed() -> list[str | ServedAnswer]:
        return [piece async for piece in orchestrator_of(Swapping()).stream(QuestionRequest("a"))]

    *pieces, last = asyncio.run(streamed())
    assert isinstance(last, ServedAnswer)
    assert "".join(str(piece) for piece in pieces) == last.answer.text == "a in s0."
    assert last.answer.snapshot == "s0"


def test_nothing_is_searched_where_a_question_is_refused() -> None:
    retriever = Swapping()
    for questions, reason in ((["a", "a long question"], "too long"), (["a", " "], "question 1: ")):
        with pytest.raises(InputError, match=reason):
            asyncio.run(orchestrator_of(retriever).answer_all([QuestionRequest(question) for question in questions]))
    assert retriever.searches == []


def test_a_pipeline_works_where_an_event_loop_runs_already() -> None:
    pipeline = Pipeline(Swapping(), FirstSentenceGenerator(), k=1)

    async def in_a_notebook() -> tuple[str, str]:
        *_, last = pipeline.stream("b")
        assert not isinstance(last, str)
        return pipeline.answer(["a"])[0].text, last.text

    assert asyncio.run(in_a_notebook()) == ("a in s1.", "b in s0.")
