"""Measures by name: those asked for, once each; what is missing is said before anything starts."""

from typing import Any

import pytest

from ragray.config import EvaluateConfig
from ragray.errors import ConfigError, MissingPackageError
from ragray.evaluate.answers import score
from ragray.evaluate.measures.named import CLOSED_BOOK, Context, measures, require_measurable
from ragray.evaluate.records import predicted
from ragray.types import Example, Passage
from tests.evaluate.measures.answered import answered

SOME = [
    answered("Paris", "Paris", "paris city", sources=("p",), gold=["p"], gold_ranks=(1,)),
    answered("in Rome", "Rome"),
]


def names(context: Context = CLOSED_BOOK, **settings: Any) -> list[str]:
    return [one.name for one in measures(SOME, EvaluateConfig(**settings), context)]


def test_exact_match_f1_and_accuracy_are_always_measured_and_equal_the_score() -> None:
    found = {one.name: one.figure for one in measures(SOME, EvaluateConfig())}
    scores = score({one.example.id: one.prediction for one in SOME}, [one.example for one in SOME])
    assert found == pytest.approx({"exact_match": scores.exact_match, "f1": scores.f1, "accuracy": scores.accuracy})


def test_a_missing_prediction_scores_zero_whatever_its_reference() -> None:
    some = predicted({"1": "Paris"}, [Example("1", "", ("Paris",)), Example("2", "", ("the",))])
    assert [one.figure for one in measures(some, EvaluateConfig())] == [50.0, 50.0, 50.0]


def test_what_is_asked_for_is_measured_in_the_order_of_the_report() -> None:
    assert names(metrics=("macro_f1",)) == ["exact_match", "f1", "accuracy", "macro_f1"]
    assert names(metrics=("macro_f1", "label_accuracy"))[3:] == ["label_accuracy", "macro_f1"]
    context = Context({"p": Passage("p", "text")}, with_retrieval=True)
    retrieval = ["recall@1", "recall@5", "recall@20", "mrr", "ndcg@20", "answer_in_context"]
    assert names(context, metrics=("citation_recall",))[3:] == ["citation_recall", *retrieval]


def test_a_package_that_is_missing_is_named_with_the_command_that_installs_it() -> None:
    for name, package in {"bleu": "sacrebleu", "chrf": "sacrebleu", "rougeL": "rouge-score"}.items():
        with pytest.raises(MissingPackageError, match=rf"evaluate\.metrics={name} needs {package}; run: pip install"):
            require_measurable(EvaluateConfig.model_validate({"metrics": name}), [], with_passages=True, find=nothing)
    require_measurable(EvaluateConfig(metrics=("macro_f1",)), [], with_passages=True, find=nothing)


def nothing(package: str) -> None:
    """Find no package."""


def test_citations_of_a_closed_book_are_refused() -> None:
    with pytest.raises(ConfigError, match="citation_recall needs passages"):
        require_measurable(EvaluateConfig(metrics=("citation_recall",)), [], with_passages=False)


def test_names_may_be_separated_by_commas() -> None:
    settings = EvaluateConfig.model_validate({"metrics": "bleu, chrf"})
    assert settings.metrics == ("bleu", "chrf")
    assert [one.name for one in measures(SOME, settings)][3:] == ["bleu", "chrf"]


def test_references_that_are_no_labels_are_refused() -> None:
    examples = [Example(str(n), "?", (f"answer {n}",)) for n in range(101)]
    with pytest.raises(ConfigError, match="101 different references, at most 100"):
        require_measurable(EvaluateConfig(metrics=("macro_f1",)), examples, with_passages=True)
