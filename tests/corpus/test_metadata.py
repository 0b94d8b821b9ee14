"""Values of records have one form whatever held them; lists and objects are kept as metadata, what cannot be is named."""

from datetime import UTC, date, datetime, timedelta, timezone
from decimal import Decimal

import pytest

from ragray.corpus.instants import instant_text, time_key
from ragray.corpus.metadata import from_pairs, kept_metadata, pairs_of, scalar_text


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (7, "7"), (7.0, "7"), (Decimal("7.00"), "7"), ("7.0", "7.0"), (-0.0, "0"), (2.5e-7, "0.00000025"), (1e23, "1" + "0" * 23),
        (True, "true"), (float("nan"), ""), (None, ""), (date(2023, 1, 9), "2023-01-09"),
        (datetime(2023, 1, 9, 2, 30, tzinfo=timezone(timedelta(hours=9))), "2023-01-08T17:30:00Z"),
        (datetime(2023, 1, 9, 2, 30, 0, 250_000, tzinfo=UTC), "2023-01-09T02:30:00.25Z"),
    ],
)  # fmt: skip
def test_a_scalar_has_one_form(value: object, text: str) -> None:
    assert scalar_text(value) == text


def test_an_instant_as_text_is_written_in_utc_and_compares_by_time() -> None:
    assert instant_text("2023-01-09 02:30:00+09:00") == "2023-01-08T17:30:00Z"
    assert instant_text("2023-13-09T02:30:00Z") == "2023-13-09T02:30:00Z"
    assert time_key("2023-01-09T09:00:00+09:00") == "2023-01-09" < time_key("2023-01-09T00:00:00.5Z")


def test_lists_and_objects_become_fields_and_what_cannot_is_named() -> None:
    fields = {"شهر": ["Köln", "Bonn"], "部门": {"名称": "运维", "leer": []}, "raw": b"x", "vector": [0.5] * 200}
    found, unkept = kept_metadata(fields.items())
    assert found == {"شهر": ("Köln", "Bonn"), "部门.名称": "运维"}
    assert unkept == ("'raw' (binary)", "'vector' (more than 100 values)")
    assert from_pairs(pairs_of(found)) == found
