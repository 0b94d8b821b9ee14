"""Dify's conditions on metadata. In: names, operators, values. Out: a filter of ragray (`ragray.index.search.filter`). Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from pydantic import Field

from ragray.index.search.filter import quoted
from ragray.serve.schema import Wire

OPERATORS: Mapping[str, str] = {
    **dict.fromkeys(("is", "="), "=="),
    **dict.fromkeys(("is not", "≠"), "!="),
    **dict.fromkeys((">", "after"), ">"),
    **dict.fromkeys(("<", "before"), "<"),
    "≥": ">=",
    "≤": "<=",
}
"""Dify's operators that a filter has; the others, such as `contains`, are refused."""


class Condition(Wire):
    """A condition on one field, or on any of several."""

    name: tuple[str, ...] = Field(min_length=1, description="the fields, of which one must match", examples=[["lang"]])
    comparison_operator: Literal["is", "is not", "=", "≠", ">", "<", "≥", "≤", "before", "after"] = Field(
        description="how the field compares; other operators are not supported", examples=["is"]
    )
    value: str | int | float = Field(description="with what", examples=["en"])


class MetadataCondition(Wire):
    """Conditions on metadata, all or one of which must be met."""

    logical_operator: Literal["and", "or"] = Field("and", description="whether all must be met, or one")
    conditions: tuple[Condition, ...] = Field(max_length=50, description="the conditions; none: all passages match")


def to_filter(condition: MetadataCondition | None) -> str:
    """Return the filter of some conditions, "" without any."""
    if condition is None:
        return ""
    parts = []
    for one in condition.conditions:
        operator, value = OPERATORS[one.comparison_operator], _value(one.value)
        either = " or ".join(f"{quoted(name)} {operator} {value}" for name in one.name)
        parts.append(f"({either})")
    return f" {condition.logical_operator} ".join(parts)


def _value(value: str | float) -> str:
    """Write a number as it is, so that it compares as numbers do."""
    return quoted(value) if isinstance(value, str) else f"{value!r}"
