"""BLEU, chrF and ROUGE: the figures are those of `sacrebleu` and `rouge-score` by their public functions."""

import pytest
import sacrebleu
from rouge_score import rouge_scorer

from ragray.evaluate.measures.overlap import bleu, chrf, rouge
from tests.evaluate.measures.answered import answered

SOME = [
    answered(
        "the river Seine runs through the city of Paris", "the Seine runs through Paris", "Paris lies on the Seine"
    ),
    answered("a bridge crosses it near the old town hall", "a bridge crosses the river near the old town hall"),
    answered("", "nothing was said"),
    answered("It is open on Sundays .", "It is open on Sundays."),
]
TEXTS = [one.prediction for one in SOME]
REFERENCES = [[one.example.answers[0] for one in SOME], ["Paris lies on the Seine", None, None, None]]


def test_bleu_and_chrf_are_those_of_the_whole_corpus() -> None:
    assert bleu(SOME).figure == pytest.approx(sacrebleu.BLEU(force=True).corpus_score(TEXTS, REFERENCES).score)
    assert chrf(SOME).figure == pytest.approx(sacrebleu.CHRF().corpus_score(TEXTS, REFERENCES).score)
    assert "tok:13a" in bleu(SOME).how


def test_a_resampled_bleu_is_that_of_the_drawn_answers() -> None:
    found = bleu(SOME)
    drawn = [0, 1, 1, 3]
    [value] = found.value(found.rows_NS[drawn].sum(axis=0, keepdims=True))
    references = [[column[n] for n in drawn] for column in REFERENCES]
    expected = sacrebleu.BLEU(force=True).corpus_score([TEXTS[n] for n in drawn], references).score
    assert value == pytest.approx(expected)
    low, high = found.interval()
    assert low < found.figure < high


@pytest.mark.parametrize(
    ("text", "tokenizer"), [("塞纳河流过巴黎", "zh"), ("セーヌ川はパリを流れる", "char"), ("Die Seine", "13a")]
)
def test_bleu_is_split_by_script(text: str, tokenizer: str) -> None:
    assert f"tok:{tokenizer}" in bleu([answered(text, text)]).how


def test_rouge_is_that_of_the_best_reference() -> None:
    names = ["rouge1", "rouge2", "rougeL"]
    scorer = rouge_scorer.RougeScorer(names, use_stemmer=True)
    scores = [scorer.score_multi(one.example.answers, one.prediction) for one in SOME]
    for found in rouge(names, SOME):
        assert found.values() == pytest.approx([100 * score[found.name].fmeasure for score in scores])
        assert "Porter" in found.how


def test_rouge_reads_scripts_that_rouge_score_would_drop() -> None:
    [found] = rouge(["rouge1"], [answered("塞纳河在巴黎", "塞纳河流过巴黎"), answered("Bäckerei", "Bäckerei")])
    assert found.values() == pytest.approx([100 * 2 * 5 / (6 + 7), 100])
    assert "mlqa" in found.how
