"""Answers compared by language: values worked out by hand after the authors' scripts (cmrc2018_evaluate.py, mlqa_evaluation_v1.py)."""

import pytest

from ragray.config import load_config
from ragray.errors import ConfigError
from ragray.evaluate.answers import contains, exact_match, score, token_f1
from ragray.evaluate.metrics import metric_for
from ragray.types import Example

CMRC = [
    # prediction, reference, exact match, F1
    ("仓库在三号码头。", "三号码头", 0, 2 * 4 / (7 + 4)),
    ("《港口志》", "港口志", 1, 1),
    (
        "码头三号",
        "三号码头",
        0,
        2 * 2 / (4 + 4),
    ),  # the longest common run is of two characters, though all four are shared
    ("使用Crane OS 3系统", "crane os 3", 0, 2 * 3 / (7 + 3)),
    ("吊车、仓库", "吊车：仓库", 1, 1),
    ("12号", "13号", 0, 2 * 1 / (2 + 2)),
    ("吊 车", "吊车", 0, 1),  # white space counts for exact match, and for no token
    ("不知道", "吊车", 0, 0),
]


@pytest.mark.parametrize(("prediction", "reference", "exact", "f1"), CMRC)
def test_cmrc_is_what_the_authors_script_gives(prediction: str, reference: str, exact: float, f1: float) -> None:
    assert exact_match(prediction, reference, "cmrc") == exact
    assert token_f1(prediction, reference, "cmrc") == pytest.approx(f1)


MLQA = [
    ("mlqa-zh", "码头三号", "三号码头", 0, 1),  # a multiset, not a run
    ("mlqa-zh", "吊 车。", "吊车", 1, 1),
    ("mlqa-zh", "使用Crane系统", "crane", 0, 2 * 1 / (5 + 1)),
    ("mlqa-en", "The crane’s hook", "cranes hook", 1, 1),
    ("mlqa-de", "der große Kran", "ein großer Kran", 0, 2 * 1 / (2 + 2)),
    ("mlqa-de", "Die Halle", "halle", 1, 1),
    ("mlqa-es", "los puertos", "puertos", 1, 1),
    ("mlqa-vi", "cái cần cẩu", "cần cẩu", 1, 1),
    ("mlqa-hi", "क्रेन।", "क्रेन", 1, 1),
    ("mlqa-hi", "बड़ी क्रेन", "क्रेन", 0, 2 * 1 / (2 + 1)),
    ("mlqa-ar", "الميناء", "ميناء", 1, 1),
    ("mlqa-ar", "رافعة الميناء", "الميناء؟", 0, 2 * 1 / (2 + 1)),
    ("mlqa", "الميناء", "ميناء", 1, 1),
    ("mlqa", "the crane", "crane", 1, 1),
    ("mlqa", "码头", "码头。", 1, 1),
]


@pytest.mark.parametrize(("metric", "prediction", "reference", "exact", "f1"), MLQA)
def test_mlqa_is_what_the_authors_script_gives(
    metric: str, prediction: str, reference: str, exact: float, f1: float
) -> None:
    assert exact_match(prediction, reference, metric) == exact
    assert token_f1(prediction, reference, metric) == pytest.approx(f1)


@pytest.mark.parametrize("metric", ["cmrc", "mlqa"])
def test_width_and_the_punctuation_of_all_scripts_do_not_count(metric: str) -> None:
    for prediction, reference in [
        ("１２号", "12号"),
        ("「倉庫」！", "倉庫"),
        ("ｸﾚｰﾝ", "クレーン"),
        ("गोदाम।", "गोदाम"),
        ("مخزن؟", "مخزن"),
    ]:
        assert exact_match(prediction, reference, metric) == token_f1(prediction, reference, metric) == 1


@pytest.mark.parametrize(
    ("reference", "metric"),
    [
        ("三号码头", "cmrc"),
        ("クレーン", "cmrc"),
        ("รถไฟ", "cmrc"),
        ("Kubernetes集群", "cmrc"),
        ("Tao (道)", "squad"),
        ("the harbour", "squad"),
        ("Hafenstraße", "squad"),
        ("bến cảng", "squad"),
        ("1949", "squad"),
        ("", "squad"),
        ("창고", "mlqa"),
        ("गोदाम", "mlqa"),
        ("الميناء", "mlqa"),
        ("склад", "mlqa"),
    ],
)
def test_auto_chooses_by_the_script_of_the_reference(reference: str, metric: str) -> None:
    assert metric_for(reference, "auto") == metric
    assert metric_for(reference, "squad") == "squad"


def test_a_right_answer_scores_in_every_language() -> None:
    pairs = {
        "吊车。": "吊车", "クレーンです": "クレーン", "크레인!": "크레인", "ปั้นจั่น ": "ปั้นจั่น", "क्रेन।": "क्रेन", "الرافعة": "رافعة",
        "Der Kran.": "der Kran", "Cần cẩu": "cần cẩu",
    }  # fmt: skip
    assert {contains(prediction, reference) for prediction, reference in pairs.items()} == {1}


def test_accuracy_finds_the_tokens_side_by_side() -> None:
    assert contains("答案是三号码头。", "三号码头") == 1
    assert contains("三号的码头", "三号码头") == 0
    assert contains("1949年10月", "49年") == 0


EXAMPLES = [
    Example("zh", "", ("三号码头",)),
    Example("en", "", ("the harbour",)),
    Example("hi", "", ("गोदाम", "shed", "गोदाम में")),
]


def test_a_mixed_file_is_scored_example_by_example_and_says_by_what() -> None:
    found = score({"zh": "三号码头。", "en": "Harbour", "hi": "गोदाम।"}, EXAMPLES)
    assert (found.exact_match, found.f1, found.metrics) == (100, 100, {"cmrc": 1, "mlqa": 1, "squad": 1})


def test_a_metric_that_is_named_scores_all_examples() -> None:
    found = score({"zh": "三号码头。", "en": "Harbour", "hi": "गोदाम।"}, EXAMPLES, metric="squad")
    assert (found.exact_match, found.metrics) == (pytest.approx(100 / 3), {"squad": 3})


def test_a_metric_that_does_not_exist_is_refused() -> None:
    assert load_config(None, ["evaluate.metric=mlqa-de"]).evaluate.metric == "mlqa-de"
    with pytest.raises(ConfigError, match="metric"):
        load_config(None, ["evaluate.metric=bleu"])
