"""The page: one file without script and outside resources, on which whatever a document says is text."""

import base64
import hashlib
import re
from html.parser import HTMLParser

import pytest

from ragray.config import EvaluateConfig
from ragray.evaluate.answers import score
from ragray.evaluate.measures.named import Context, measures
from ragray.evaluate.records import Answered
from ragray.evaluate.report.assemble import Beside, assemble
from ragray.evaluate.report.examples import examples
from ragray.evaluate.report.markup import element
from ragray.evaluate.report.page import page
from ragray.types import Passage
from tests.evaluate.measures.answered import answered

EVIL = """</p></style><script>alert("x")</script><img src=x onerror='alert(1)'>"""
PASSAGES = {f"p{n}": Passage(f"p{n}", f"Passage {n}. {EVIL}", EVIL) for n in range(3)}
SOME = [
    answered(
        f"right {n}", f"right {n}", gold=["p1"], gold_ranks=(n % 3 + 1,), sources=("p0", "p1"), weights=(0.25, 0.75)
    )
    for n in range(12)
] + [answered(f"wrong {n} {EVIL}", "right", gold=["p2"], gold_ranks=(None,), sources=("p0",)) for n in range(13)]


class Seen(HTMLParser):
    """The elements of a page, their attributes and the text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[str] = []
        self.attributes: list[tuple[str, str]] = []
        self.said = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append(tag)
        self.attributes += [(name, value or "") for name, value in attrs]

    def handle_data(self, data: str) -> None:
        self.said += data


def page_of(some: list[Answered], beside: Beside | None = None) -> str:
    context = Context(PASSAGES, with_retrieval=True)
    scores = (score({one.example.id: one.prediction for one in some}, [one.example for one in some]), None, 0)
    made = assemble(some, EvaluateConfig(), context, scores, beside or Beside(left_out={"examples": 3}))
    return page({**made.values, "retrieval": {}}, some, made.found, PASSAGES)


PAGE = page_of(SOME)


def test_markup_in_questions_answers_and_passages_is_text() -> None:
    seen = Seen(PAGE)
    assert {"script", "img", "iframe", "object", "link", "base", "form"} & set(seen.elements) == set()
    assert [name for name, _ in seen.attributes if name.startswith("on")] == []
    assert seen.said.count(EVIL) > 20
    assert PAGE.count("<style>") == PAGE.count("</style>") == 1


def test_nothing_is_loaded() -> None:
    seen = Seen(PAGE)
    assert [name for name, _ in seen.attributes if name in ("src", "href", "srcset", "action", "style")] == []
    assert "url(" not in PAGE
    assert "@import" not in PAGE
    style = PAGE.partition("<style>")[2].partition("</style>")[0]
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    [policy] = re.findall(r'content="(default-src[^"]*)"', PAGE)
    assert policy.startswith(f"default-src &#x27;none&#x27;; style-src &#x27;sha256-{digest}&#x27;")


def test_the_page_holds_figures_plots_slices_examples_and_what_was_left_out() -> None:
    seen = Seen(PAGE)
    for said in ("Exact match", "48.0", "95 % interval", "Recall@5", "By question word", "By rank of the gold passage"):
        assert said in seen.said
    assert seen.elements.count("svg") >= 5
    assert seen.elements.count("article") == 20
    assert "Left out" in seen.said


def test_the_ten_best_and_worst_come_with_their_passages_and_none_twice() -> None:
    context = Context(PASSAGES, with_retrieval=True)
    best, worst, _ = examples(SOME, measures(SOME, EvaluateConfig(), context))
    assert [one.answered.prediction[:5] for one in best] == ["right"] * 10
    assert [one.answered.prediction[:5] for one in worst] == ["wrong"] * 10
    few_best, few_worst, _ = examples(SOME[:3], measures(SOME[:3], EvaluateConfig(), context))
    assert (len(few_best), len(few_worst)) == (2, 1)
    assert "share 75 %, gold" in PAGE


def test_bounds_and_a_baseline_have_tables_of_their_own() -> None:
    figure = {"value": 12.5, "low": 1.0, "high": 20.0, "num_examples": 25, "how": ""}
    said = Seen(page_of(SOME, Beside(bounds={"closed_book": {"what": "no passages", "figures": {"f1": figure}}}))).said
    assert "Closed book: no passages" in said
    assert "12.5 (1.0 to 20.0)" in said
    assert "Against the baseline" not in said


def test_the_same_report_has_the_same_page() -> None:
    assert page_of(SOME) == PAGE


@pytest.mark.parametrize("name", ["script>", "a b", "", "on click"])
def test_names_of_elements_and_attributes_are_never_data(name: str) -> None:
    with pytest.raises(ValueError, match="no name"):
        element(name)
    with pytest.raises(ValueError, match="no name"):
        element("p", **{name: "x"})


def test_texts_and_values_are_escaped_and_control_characters_replaced() -> None:
    assert element("p", "<b>\x00", title='"&') == '<p title="&quot;&amp;">&lt;b&gt;\ufffd</p>'
    assert element("p", element("b", "x"), [element("i", "y")]) == "<p><b>x</b><i>y</i></p>"
