"""Answer scores: they agree with SQuAD 1.1's own script, written out once more, and with values computed by hand."""

import random
import re
import string
from collections import Counter
from collections.abc import Callable

import pytest

from ragray.errors import InputError
from ragray.evaluate.answers import AnswerScores, contains, exact_match, score, token_f1
from ragray.evaluate.metrics import normalize
from ragray.types import Example

# The official evaluation script of SQuAD 1.1, after its text and step by step.


def official_normalize(text: str) -> str:
    def remove_articles(text: str) -> str:
        return re.sub(r"\b(a|an|the)\b", " ", text)

    def white_space_fix(text: str) -> str:
        return " ".join(text.split())

    def remove_punc(text: str) -> str:
        exclude = set(string.punctuation)
        return "".join(ch for ch in text if ch not in exclude)

    return white_space_fix(remove_articles(remove_punc(text.lower())))


def official_f1(prediction: str, ground_truth: str) -> float:
    prediction_tokens = official_normalize(prediction).split()
    ground_truth_tokens = official_normalize(ground_truth).split()
    num_same = sum((Counter(prediction_tokens) & Counter(ground_truth_tokens)).values())
    if num_same == 0:
        return 0
    precision = 1.0 * num_same / len(prediction_tokens)
    recall = 1.0 * num_same / len(ground_truth_tokens)
    return (2 * precision * recall) / (precision + recall)


def official_exact_match(prediction: str, ground_truth: str) -> bool:
    return official_normalize(prediction) == official_normalize(ground_truth)


def official_evaluate(examples: list[Example], predictions: dict[str, str]) -> tuple[float, float]:
    f1 = exact = total = 0.0
    for example in examples:
        total += 1
        if example.id not in predictions:
            continue
        prediction = predictions[example.id]
        exact += max(official_exact_match(prediction, truth) for truth in example.answers)
        f1 += max(official_f1(prediction, truth) for truth in example.answers)
    return 100.0 * exact / total, 100.0 * f1 / total


PIECES = ["the", "The", "a", "an", "A.", "theatre", "banana", "a-b", "an'", "U.S.", "3,000", "É", "e\u0301", "ß", "İ"]
PIECES += ["…", "“x”", "?!", "_", "東京", "\u00a0", "\t", "\n", " ", "  ", "x", "y", "x"]


def random_texts(count: int, seed: int = 0) -> list[str]:
    chance = random.Random(seed)
    lengths = [chance.randrange(7) for _ in range(count)]
    return ["".join(chance.choice(["", " "]) + chance.choice(PIECES) for _ in range(length)) for length in lengths]


TRICKY = [
    ("the theatre and an anthem", "theatre and anthem"),
    ("A banana", "a  banana."),
    ("the-the", "the"),
    ("U.S.A.", "usa"),
    ("it's a well-known fact", "its wellknown fact"),
    ("3,000", "3000"),
    ("Café", "cafe"),
    ("Cafe\u0301", "Café"),
    ("“Hamlet”", "Hamlet"),
    ("São Paulo — the city", "são paulo — city"),
    ("a\u00a0b", "b"),
    ("red red red", "red red"),
    ("red blue red", "blue red blue"),
    ("the", "a"),
    ("?!", ""),
    ("The.", "x"),
    ("", ""),
]


@pytest.mark.parametrize(("prediction", "reference"), TRICKY)
def test_tricky_answers_score_as_in_the_official_script(prediction: str, reference: str) -> None:
    for one, other in [(prediction, reference), (reference, prediction), (prediction, prediction)]:
        assert normalize(one) == official_normalize(one)
        assert exact_match(one, other, "squad") == official_exact_match(one, other)
        assert token_f1(one, other, "squad") == pytest.approx(official_f1(one, other))


def test_random_answers_score_as_in_the_official_script() -> None:
    texts = random_texts(4000)
    pairs = list(zip(texts[::2], texts[1::2], strict=True))
    assert {official_exact_match(*pair) for pair in pairs} == {True, False}
    assert len({official_f1(*pair) for pair in pairs}) > 5
    for prediction, reference in pairs:
        assert exact_match(prediction, reference, "squad") == official_exact_match(prediction, reference)
        assert token_f1(prediction, reference, "squad") == pytest.approx(official_f1(prediction, reference))


def test_a_whole_file_scores_as_in_the_official_script() -> None:
    chance = random.Random(1)
    examples = [Example(str(n), "", tuple(random_texts(chance.randint(1, 3), n))) for n in range(300)]
    predictions = {
        example.id: chance.choice([*example.answers, *random_texts(2, -n - 1)])
        for n, example in enumerate(examples)
        if n % 7
    }
    scores = score(predictions, examples, metric="squad")
    assert (scores.exact_match, scores.f1) == pytest.approx(official_evaluate(examples, predictions))
    assert 10 < scores.exact_match < 90
    assert 10 < scores.f1 < 90


# Values computed by hand.


@pytest.mark.parametrize(
    ("text", "normal"),
    [
        ("The Eiffel Tower!", "eiffel tower"),
        ("An  apple a day", "apple day"),
        ("theatre, Ana", "theatre ana"),
        ("A.N. Other", "other"),
        ("the\ta\nAN", ""),
    ],
)
def test_case_punctuation_articles_and_white_space_do_not_count_in_this_order(text: str, normal: str) -> None:
    assert normalize(text) == normal


@pytest.mark.parametrize(
    ("prediction", "reference", "f1"),
    [
        ("William Shakespeare", "Shakespeare", 2 * 1 / 3),
        ("the cat sat", "a cat sat down", 2 * 2 / 5),
        ("red red red", "red red", 2 * 2 / 5),
        ("red", "blue", 0),
        ("Red.", "the red", 1),
    ],
)
def test_f1_is_twice_the_shared_tokens_over_all_tokens(prediction: str, reference: str, f1: float) -> None:
    assert token_f1(prediction, reference) == pytest.approx(f1)


def test_two_answers_that_are_empty_after_normalisation_match_exactly_but_have_no_f1() -> None:
    assert exact_match("The", "a!") == 1
    assert token_f1("The", "a!") == 0


@pytest.mark.parametrize(
    ("prediction", "reference", "found"),
    [
        ("It was written by William Shakespeare.", "william shakespeare", 1),
        ("Paris is the capital", "The Capital", 1),
        ("Shakespeare's plays", "Shakespeare", 0),
        ("bandana", "an", 0),
        ("Shakespeare, William", "William Shakespeare", 0),
        ("19 March", "9", 0),
        ("", "x", 0),
    ],
)
def test_accuracy_asks_for_whole_words_in_their_order(prediction: str, reference: str, found: float) -> None:
    assert contains(prediction, reference) == found


@pytest.mark.parametrize("measure", [exact_match, token_f1, contains])
def test_every_measure_is_a_share_and_an_answer_fits_itself(measure: Callable[[str, str], float]) -> None:
    texts = [text for text in random_texts(200, seed=2) if normalize(text)]
    assert all(measure(text, text) == 1 for text in texts)
    assert {0 <= measure(one, other) <= 1 for one in texts[:40] for other in texts[40:]} == {True}


def test_the_best_reference_counts_for_each_measure() -> None:
    examples = [Example("1", "", ("Bard", "William Shakespeare", "he wrote Hamlet"))]
    assert score({"1": "the William Shakespeare who wrote Hamlet"}, examples) == AnswerScores(
        exact_match=0,
        f1=pytest.approx(100 * 2 * 2 / 7),
        accuracy=100,
        num_examples=1,
        num_predictions=1,
        num_missing=0,
        metrics={"squad": 1},
    )


def test_a_missing_prediction_counts_as_zero_and_a_needless_one_not_at_all() -> None:
    examples = [Example(id, "", ("Paris",)) for id in "1234"]
    scores = score({"1": "Paris", "2": "in Paris", "3": "Rome", "other": "Paris"}, examples)
    assert (scores.exact_match, scores.accuracy) == (25, 50)
    assert scores.f1 == pytest.approx((100 + 200 / 3) / 4)
    assert (scores.num_examples, scores.num_predictions, scores.num_missing) == (4, 4, 1)


def test_no_examples_are_refused() -> None:
    with pytest.raises(InputError, match="no examples to score against"):
        score({"1": "Paris"}, [])


@pytest.mark.parametrize("predictions", [{}, {"q1": "Paris"}])
def test_predictions_of_other_ids_are_refused_with_an_id_that_was_expected(predictions: dict[str, str]) -> None:
    with pytest.raises(InputError, match=f"none of the {len(predictions)} predictions .* an id there is '1'"):
        score(predictions, [Example("1", "", ("Paris",))])
