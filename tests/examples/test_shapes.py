"""Shapes of answers and ids: which texts they are, and what is no shape of any."""

from datetime import date
from decimal import Decimal

import pytest

from ragray.errors import InputError
from ragray.examples.shapes import answers_of, gold_ids_of, id_of, unfold


@pytest.mark.parametrize(
    ("value", "answers"),
    [
        ("Bern", ("Bern",)),
        (["Bern", "Berne"], ("Bern", "Berne")),
        (["Bern", "Bern"], ("Bern", "Bern")),
        (("Bern",), ("Bern",)),
        ([], ()),
        (["", " "], ("", " ")),
        (26, ("26",)),
        (26.0, ("26",)),
        (-2.5, ("-2.5",)),
        (Decimal("3.10"), ("3.10",)),
        ([1848, "in 1848"], ("1848", "in 1848")),
        ({"text": ["Bern", "Berne"], "answer_start": [3, 9]}, ("Bern", "Berne")),
        ({"text": "Bern"}, ("Bern",)),
        ({"text": [], "answer_start": []}, ("",)),
        ([{"text": "Bern", "answer_start": 3}, {"text": "Berne", "answer_start": 9}], ("Bern", "Berne")),
        ({"value": "Bern", "aliases": ["Berne", "Bern"], "normalized_aliases": ["bern"]}, ("Bern", "Berne")),
        ([{"answer": "Bern", "provenance": []}, {"provenance": [{"title": "Bern"}]}, {"answer": 26}], ("Bern", "26")),
        (["['Bern']"], ("['Bern']",)),
    ],
)
def test_answers_are_texts_whatever_their_shape(value: object, answers: tuple[str, ...]) -> None:
    assert answers_of(value, "here") == answers


@pytest.mark.parametrize(
    ("value", "complaint"),
    [
        (None, "here must be a text, a number or a list of them (found null)"),
        (True, "here must be a text, a number or a list of them (found True)"),
        (b"Bern", "here must be a text, a number or a list of them (found b'Bern')"),
        ({"span": "Bern"}, "here must be a text, a number or a list of them (found {'span': 'Bern'})"),
        (["Bern", None], "here, item 1 must be a text, a number or a list of them (found null)"),
        ([["Bern"]], "here, item 0 must be a text, a number or a list of them (found ['Bern'])"),
        ({"text": ["Bern", None]}, "here, 'text', item 1 must be a text"),
        (float("nan"), "here is no finite number (found nan)"),
        (["Bern", "B\ud83dn"], "here, item 1: character 2 ('\\ud83d') cannot be written as UTF-8"),
        ("Be\0rn", "here: character 3 is NUL"),
    ],
)
def test_what_holds_no_answer_is_said(value: object, complaint: str) -> None:
    with pytest.raises(InputError) as caught:
        answers_of(value, "here")
    assert str(caught.value).startswith(complaint)


def test_a_large_number_is_written_out_as_far_as_python_does() -> None:
    assert answers_of(10**400, "here") == ("1" + "0" * 400,)
    with pytest.raises(InputError, match="here is a number of too many digits"):
        answers_of(10**5000, "here")


@pytest.mark.parametrize(
    ("value", "identity"),
    [
        ("7", "7"),
        (7, "7"),
        (7.0, "7"),
        (Decimal("7.0"), "7"),
        (7.5, "7.5"),
        ("7.0", "7.0"),
        (date(2024, 5, 1), "2024-05-01"),
    ],
)
def test_an_id_of_any_scalar_type_is_a_text(value: object, identity: str) -> None:
    assert id_of(value, "here") == identity


@pytest.mark.parametrize(
    ("value", "complaint"),
    [
        (True, "must be a text or a number (found True)"),
        (["7"], "must be a text or a number (found ['7'])"),
        (b"7", "must be a text or a number (found b'7')"),
        (float("inf"), "is no finite number (found inf)"),
        ("\u200b", "is blank (found '\\u200b')"),
        ("\udce9", ": character 1 ('\\udce9') cannot be written as UTF-8"),
    ],
)
def test_what_is_no_id_is_said(value: object, complaint: str) -> None:
    with pytest.raises(InputError) as caught:
        id_of(value, "here")
    assert str(caught.value).removeprefix("here").lstrip().startswith(complaint)


@pytest.mark.parametrize(
    ("value", "ids"),
    [(None, ()), ("", ()), ([], ()), ("d1", ("d1",)), (4, ("4",)), (["d1", 4, 5.0], ("d1", "4", "5"))],
)
def test_gold_ids_are_ids(value: object, ids: tuple[str, ...]) -> None:
    assert gold_ids_of(value, "here") == ids


@pytest.mark.parametrize(
    ("cell", "value"),
    [
        ("Bern", "Bern"),
        (' ["Bern", "Berne"]', ["Bern", "Berne"]),
        ("['Bern', \"Berne's\"]", ["Bern", "Berne's"]),
        ("['C:\\dir']", ["C:\\dir"]),
        ("[1848, 1849]", [1848, 1849]),
        ("[]", []),
        ("{'text': ['Bern'], 'answer_start': [3]}", {"text": ["Bern"], "answer_start": [3]}),
        ('[{"text": "Bern"}]', [{"text": "Bern"}]),
        ("[sic]", "[sic]"),
        ("[0, 1) or (2, 3]", "[0, 1) or (2, 3]"),
        ("{x: x > 2}", "{x: x > 2}"),
        ("[[1, 2], [3]]", "[[1, 2], [3]]"),
        ('{"a": 1}', '{"a": 1}'),
        ("[[" * 5000 + "]]" * 5000, "[[" * 5000 + "]]" * 5000),
    ],
)
def test_a_cell_that_holds_a_list_of_answers_is_one_and_else_its_text(cell: str, value: object) -> None:
    assert unfold(cell, "here") == value


@pytest.mark.parametrize(
    "cell",
    [
        "['Bern' 'Berne']",
        "['Bern'\n 'Berne']",
        "['a' 'b' ... 'y' 'z']",
        "['Bern', 'Berne]",
        "{'text': array(['Bern'], dtype=object), 'answer_start': array([3])}",
    ],
)
def test_a_list_that_numpy_printed_or_that_is_broken_is_not_taken_for_a_text(cell: str) -> None:
    with pytest.raises(InputError, match="here looks like a list but is none that JSON or Python reads") as caught:
        unfold(cell, "here")
    assert "\n" not in str(caught.value)
