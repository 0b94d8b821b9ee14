"""Filters: which rows an expression matches equals what a plain reading of each row says; what cannot be read names its place."""

import operator as ops
import random
import re
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from ragray.corpus.instants import time_key, time_keys
from ragray.corpus.table import passages_to_table
from ragray.errors import InputError
from ragray.index.search.filter import COLUMNS, Comparison, Condition, Every, Not, Some, Value, parse_filter
from ragray.index.store.columns import NUMBER, ColumnsWriter, MetadataColumns
from ragray.index.store.segment import SEGMENT_SCHEMA
from ragray.types import Passage

PASSAGES = [
    Passage("p0", "t", "Rivers of France", "d0", {"lang": "en", "year": "2019", "date": "2019-05-01"}),
    Passage("p1", "t", "", "d0", {"lang": "de", "year": "2020", "date": "2020-12-31"}),
    Passage("p2", "t", 'A "title"', "d1", {"lang": "fr", "year": "2020.0"}),
    Passage("p3", "t", "Cats", "d2", {"year": "unknown", "date": "2021-01-01"}),
    Passage("p4", "t", "Cats", "7", {}),
    Passage("p5", "t", "0", "12e1", {"lang": "", "year": " -3.5 ", "order": "1234567890123456789"}),
]


def table(passages: list[Passage], chunk: int = 4) -> pa.Table:
    """Passages as a segment holds them, in several chunks."""
    return pa.concat_tables(
        passages_to_table(passages[start : start + chunk]).cast(SEGMENT_SCHEMA)
        for start in range(0, len(passages), chunk)
    )


def columns(passages: list[Passage]) -> MetadataColumns:
    """The metadata of passages as the columns of a segment hold them."""
    writer = ColumnsWriter()
    writer.add(table(passages)["metadata"].chunks)
    with tempfile.TemporaryDirectory() as folder:
        writer.write(Path(folder) / "metadata.arrow")
        return MetadataColumns.open(Path(folder) / "metadata.arrow", len(passages))


def rows(expression: str, passages: list[Passage] = PASSAGES, *, metadata: MetadataColumns | None = None) -> list[int]:
    """The rows that match, with columns and without."""
    parsed = parse_filter(expression)
    mask = parsed.mask(table(passages))
    assert mask.dtype == bool and mask.shape == (len(passages),)
    np.testing.assert_array_equal(parsed.mask(table(passages), metadata or columns(passages)), mask)
    return np.flatnonzero(mask).tolist()


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        ("lang == en", [0]),
        ("lang==en", [0]),
        ("lang != en", [1, 2, 3, 4, 5]),
        ("lang in (en, de)", [0, 1]),
        ("lang in (en)", [0]),
        ("lang not in (en, de)", [2, 3, 4, 5]),
        ('lang == ""', [5]),
        ("LANG == en", []),
        ("lang == EN", []),
        ("nothing == here", []),
        ("nothing != here", [0, 1, 2, 3, 4, 5]),
        ("not nothing == here", [0, 1, 2, 3, 4, 5]),
        ("year >= 2020", [1, 2]),
        ("year > 2019 and year < 2020.5", [1, 2]),
        ("year == 2020", [1, 2]),
        ('year == "2020"', [1]),
        ("year in (2020, unknown)", [1, 2, 3]),
        ("year < 0", [5]),
        ("year == -3.5", [5]),
        ("year <= +2019.", [0, 5]),
        ("date >= 2020-06-01", [1, 3]),
        ("date < 2020-12-31", [0]),
        ("order == 1234567890123456789", [5]),
        ("order == 1234567890123456788", []),
        ("id == p3", [3]),
        ("id in (p1, p5, p9)", [1, 5]),
        ("document_id == d0", [0, 1]),
        ("document_id == 7", [4]),
        ("document_id == 7.0", []),
        ("document_id == 120", []),
        ("title == Cats", [3, 4]),
        ("title == 'Rivers of France'", [0]),
        (r'title == "A \"title\""', [2]),
        ("title == 'A \"title\"'", [2]),
        ("title == 0", [5]),
        ("title >= B", [0, 3, 4]),
        ('"lang" == en', [0]),
        ("lang == en or year == 2020 and title == ''", [0, 1]),
        ("(lang == en or year == 2020) and title == ''", [1]),
        ("not (lang == en or lang == de)", [2, 3, 4, 5]),
        ("not lang == en and not lang == de", [2, 3, 4, 5]),
        ("not not lang == en", [0]),
        ("lang == en OR lang == de", [0, 1]),
        ("title == 'or' or title == Cats", [3, 4]),
        ("  ( ( lang == en ) )  ", [0]),
        ("year == \u0662\u0660\u0662\u0660", []),
    ],
)
def test_an_expression_matches_the_rows_that_it_should(expression: str, expected: list[int]) -> None:
    assert rows(expression) == expected


def test_digits_of_other_scripts_are_text_in_an_expression_and_in_the_rows() -> None:
    passages = [
        Passage("p0", "t", metadata={"year": "\u0661\u0664\u0660\u0662"}),
        Passage("p1", "t", metadata={"year": "1402"}),
    ]
    assert rows("year == \u0661\u0664\u0660\u0662", passages) == [0]
    assert rows("year == 1402", passages) == [1]


def test_no_rows_give_an_empty_mask() -> None:
    empty = table(PASSAGES).slice(0, 0)
    assert parse_filter("lang == en or title == Cats").mask(empty).shape == (0,)
    assert parse_filter("not lang == en").mask(SEGMENT_SCHEMA.empty_table()).shape == (0,)


def test_a_slice_of_a_table_is_masked_as_its_rows_are() -> None:
    whole = parse_filter("year >= 2020").mask(table(PASSAGES))
    for start in range(6):
        np.testing.assert_array_equal(
            parse_filter("year >= 2020").mask(table(PASSAGES).slice(start, 3)), whole[start : start + 3]
        )


@pytest.mark.parametrize("operator", ["==", "!=", "<", "<=", ">", ">="])
def test_comparisons_of_random_rows_equal_those_of_python(operator: str) -> None:
    chance = random.Random(0)
    compare: dict[str, Callable[[float, float], bool]] = {
        "==": lambda a, b: a == b, "!=": lambda a, b: a != b, "<": lambda a, b: a < b,
        "<=": lambda a, b: a <= b, ">": lambda a, b: a > b, ">=": lambda a, b: a >= b,
    }  # fmt: skip
    numbers = [chance.choice([None, chance.randint(-5, 5), chance.randint(-50, 50) / 10]) for _ in range(200)]
    passages = [Passage(f"p{n}", "t", metadata={} if x is None else {"x": str(x)}) for n, x in enumerate(numbers)]
    for bound in (-2, 0, 3.5):
        expected = [
            n for n, x in enumerate(numbers) if (operator == "!=" if x is None else compare[operator](x, bound))
        ]
        assert rows(f"x {operator} {bound}", passages) == expected


@pytest.mark.parametrize(
    ("expression", "message"),
    [
        ("", "expected a field, 'not' or '\\(' at position 1, found the end"),
        ("lang", "expected '==', .* or 'not in' after 'lang' at position 5, found the end"),
        ("lang = en", "expected a field, a value or an operator \\(equality is ==; .* at position 6, found '= en'"),
        ("lang ==", "expected a value at position 8, found the end"),
        ("lang == and", "expected a value at position 9, found 'and'"),
        ("lang == en year == 2", "expected 'and', 'or' or the end at position 12, found 'year == 2'"),
        ("lang == en and", "expected a field, 'not' or '\\(' at position 15, found the end"),
        ("lang in en", "expected '\\(' after 'in' at position 9, found 'en'"),
        ("lang in ()", "expected a value at position 10, found '\\)'"),
        ("lang in (en, de", "expected ',' or '\\)' at position 16, found the end"),
        ("lang not en", "expected 'in' at position 10, found 'en'"),
        ("(lang == en", "expected '\\)', 'and' or 'or' at position 12, found the end"),
        ("lang == en)", "expected 'and', 'or' or the end at position 11, found '\\)'"),
        ("title == 'open", 'position 10, found "\'open"'),
        ("id == x\udcff", r"filter: character 8 \('.udcff'\) cannot be written as UTF-8"),
        ("== en", "expected a field, 'not' or '\\(' at position 1, found '== en'"),
        ("(" * 100_000, "expected at most 50 conditions inside each other at position 52"),
        ("not " * 100_000, "expected at most 50 conditions inside each other"),
    ],
)
def test_what_cannot_be_read_names_what_was_expected_and_where(expression: str, message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        parse_filter(expression)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 500


def test_any_garbage_is_read_or_refused_but_never_breaks() -> None:
    chance = random.Random(1)
    parts = [
        "lang",
        "==",
        "in",
        "(",
        ")",
        "not",
        "and",
        "or",
        "2020",
        "'x'",
        ",",
        "<",
        "\\",
        '"',
        "\x00",
        "é",
        "=",
        "\n",
    ]
    for _ in range(3000):
        expression = chance.choice(["", " "]).join(chance.choices(parts, k=chance.randint(1, 8)))
        try:
            rows(expression)
        except InputError:
            continue


def test_many_conditions_in_a_row_are_no_depth() -> None:
    assert rows(" or ".join(f"id == p{n}" for n in range(2000))) == [0, 1, 2, 3, 4, 5]


def test_a_hundred_thousand_rows_in_many_chunks_are_matched_as_one() -> None:
    passages = [Passage(f"p{n}", "t", metadata={"lang": "en", "year": str(2000 + n)}) for n in range(25)]
    many = pa.concat_tables([table(passages * 10, 250)] * 400)
    assert len(many) == 100_000
    mask = parse_filter("lang == en and year >= 2010 and year < 2020").mask(many)
    assert mask.sum() == 40_000


def test_a_field_that_no_passage_has_is_named_with_those_there_are() -> None:
    keys = {"order", "lang", "year", "date"}
    assert parse_filter("lang == en and (year > 1 or title == x) and order != 1").unknown_field(keys) == ""
    assert parse_filter("lang == en and not yaer > 1").unknown_field(keys) == (
        "filter 'lang == en and not yaer > 1': no passage has the field 'yaer'; "
        "there are id, document_id, title, date, lang, order, year"
    )


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        ("farbe == rot", [0]), ("farbe != rot", [1, 2]), ("类别 in （公告，“内 部”）", [0, 1]), ("open == True", [0, 1]),
        ("open == 'true'", [0]), ("at >= 2023-01-09T00:00:00Z", [1, 2]), ("at < '2023-01-09 09:00:00+09:00'", [0]),
        ("at == 2023-01-09", [2]),
    ],
)  # fmt: skip
def test_lists_booleans_instants_and_marks_of_other_scripts(expression: str, expected: list[int]) -> None:
    facts: list[dict[str, str | tuple[str, ...]]] = [
        {"farbe": ("rot", "blau"), "类别": "公告", "open": "true", "at": "2023-01-08T17:30:00Z"},
        {"farbe": "blau", "类别": "内 部", "open": "True", "at": "2023-01-09T00:00:00.5Z"},
        {"at": "2023-01-09T00:00:00Z"},
    ]
    passages = [Passage(f"p{n}", "t", metadata=fact) for n, fact in enumerate(facts)]
    assert rows(expression, passages) == expected


def test_the_keys_of_many_times_are_those_of_each() -> None:
    draw = random.Random(0)
    days = ["2024-02-28", "2024-02-29", "2023-02-29", "2024-12-31", "0001-01-01", "9999-12-31", "2024-13-01", "24-1-1"]
    clocks = [
        "",
        "T00:00:00",
        " 00:00",
        "T23:59:59",
        "t08:30",
        "T25:00:00",
        "T00:00:00.5",
        "T00:00:00.50",
        "T12:00:00.123456789",
    ]
    texts = [
        draw.choice(days) + draw.choice(clocks) + draw.choice(["", "Z", "z", "+09:00", "-0330", " Z"])
        for _ in range(2000)
    ]
    texts += ["", "Z", "draft", "2024", "T00:00:00Z"]
    assert time_keys(pa.array(texts)).to_pylist() == [time_key(text) for text in texts]
    assert time_keys(pa.array(["2024-05-01", None])).to_pylist() == ["2024-05-01", None]


COMPARE: dict[str, Callable[[Any, Any], bool]] = {
    "==": ops.eq, "<": ops.lt, "<=": ops.le, ">": ops.gt, ">=": ops.ge,
}  # fmt: skip


def holds(condition: Condition, passage: Passage) -> bool:
    """Read a condition for one passage, value by value."""
    if isinstance(condition, Not):
        return not holds(condition.condition, passage)
    if isinstance(condition, Every):
        return all(holds(one, passage) for one in condition.conditions)
    if isinstance(condition, Some):
        return any(holds(one, passage) for one in condition.conditions)
    assert isinstance(condition, Comparison)
    if condition.field in COLUMNS:
        own = getattr(passage, condition.field)
        return any(COMPARE[condition.operator](own, value.text) for value in condition.values)
    found = passage.metadata.get(condition.field, ())
    texts = (found,) if isinstance(found, str) else found
    return any(matches(text, value, condition) for text in texts for value in condition.values)


def matches(text: str, value: Value, condition: Comparison) -> bool:
    """Compare one value of a passage with one of a filter."""
    compare = COMPARE[condition.operator]
    if value.is_time and len(condition.values) == 1:
        return compare(time_key(text), time_key(value.text))
    if value.number is None:
        return any(compare(text, spelling) for spelling in value.spellings[: None if compare is ops.eq else 1])
    return bool(re.fullmatch(rf"[ \t\n\r\f]*{NUMBER}[ \t\n\r\f]*", text)) and compare(float(text), value.number)


TEXTS = [
    "en", "EN", "zh", "中文", "", "0", "7", "07", "7.0", "-3.5", " 7 ", "+7.", ".5", "1e3", "٧", "９", "123456789012345", "true", "True",
    "1234567890123456", "2024", "2024-05-01", "2024-05-01T00:00:00Z", "2024-05-01T00:00:00.5Z", "2024-05-01T08:30:00+09:00", "draft",
    "2024-05-01 00:15", "2024-13-01T00:00:00Z", "a b", "「x」", "ﬁ", "2024-02-30", "abcd-ef", "Z", "1600-01-01", "9999-12-31T23:59:59.5Z",
]  # fmt: skip
TIMES = [
    "2024-05-01", "2024-05-01T00:00:00Z", "2024-05-01T00:00:00.5Z", "2024-05-01T08:30:00+09:00", "2024-04-30T23:59:59.999999999Z",
    "1700-01-01", "2199-12-31T23:59:59.9Z",
]  # fmt: skip
FIELDS = ["lang", "when", "team.name", "标签", "id", "title", "none", "unique", "rare"]


def random_passage(draw: random.Random, number: int) -> Passage:
    metadata: dict[str, str | tuple[str, ...]] = {
        "unique": draw.choice(TEXTS) + str(number),
        "when": draw.choice(TIMES),
    }
    for field, share in (("lang", 1), ("team.name", 0.8), ("标签", 0.5), ("rare", 0.05)):
        if draw.random() < share:
            several = draw.sample(TEXTS, draw.randint(2, 4))
            metadata[field] = tuple(several) if field == "标签" else draw.choice(TEXTS)
    return Passage(f"p{number}", "t", draw.choice(TEXTS), metadata=metadata)


def random_expression(draw: random.Random, depth: int = 0) -> str:
    def value() -> str:
        text = draw.choice(TEXTS)
        return text if re.fullmatch(r"[\w.+-]+", text) and draw.random() < 0.7 else f"'{text}'"

    kind = draw.random()
    if depth < 2 and kind < 0.4:
        joined = draw.choice([" and ", " or "]).join(
            random_expression(draw, depth + 1) for _ in range(draw.randint(2, 3))
        )
        return draw.choice(["({})", "not ({})"]).format(joined)
    field = draw.choice(FIELDS)
    if kind < 0.55:
        return f"{field} {draw.choice(['in', 'not in'])} ({', '.join(value() for _ in range(draw.randint(1, 4)))})"
    return f"{field} {draw.choice(['==', '!=', '<', '<=', '>', '>='])} {value()}"


@pytest.mark.parametrize("seed", range(2))
def test_random_expressions_over_random_metadata_match_what_a_slow_reading_of_each_row_says(seed: int) -> None:
    draw = random.Random(seed)
    passages = [random_passage(draw, number) for number in range(150)]
    metadata = columns(passages)
    for _ in range(60):
        expression = random_expression(draw)
        condition = parse_filter(expression).condition
        expected = [number for number, passage in enumerate(passages) if holds(condition, passage)]
        assert rows(expression, passages, metadata=metadata) == expected, expression
