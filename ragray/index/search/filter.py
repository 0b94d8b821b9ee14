"""Metadata filters. In: an expression such as `lang == en and year >= 2020`. Out: which rows of a segment match. Pure.

::

    expression = conjunction {"or" conjunction}
    conjunction = condition {"and" condition}
    condition = "not" condition | "(" expression ")" | comparison
    comparison = field ("==" | "!=" | "<" | "<=" | ">" | ">=") value | field ["not"] "in" "(" value {"," value} ")"

A field is `id`, `document_id`, `title` or a key of the metadata; a value is a bare word, a number or a quoted string. A number
compares with metadata as numbers do, and a row whose value is no number does not match; everything else compares as text, so that
dates such as 2024-05-01 come in their order. A row without the field matches nothing but `!=` and `not`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from functools import reduce
from typing import Protocol

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ragray.corpus.instants import is_time, time_key
from ragray.errors import InputError
from ragray.index.store.columns import NUMBER, Column, MetadataColumns, pair_columns
from ragray.text.checks import require_utf8

COLUMNS = ("id", "document_id", "title")
COMPARISONS: dict[str, Callable[[pa.Array, pa.Scalar], pa.Array]] = {
    "<": pc.less,
    "<=": pc.less_equal,
    ">": pc.greater,
    ">=": pc.greater_equal,
}
TOKEN = re.compile(
    r"""\s*(?:(?P<op>==|!=|<=|>=|[<>(),\uff08\uff09\uff0c\u3001\u060c])|(?P<quoted>"(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*'|\u201c[^\u201d]*\u201d|\u2018[^\u2019]*\u2019|\u300c[^\u300d]*\u300d)"""
    r"""|(?P<word>[^\s()<>=!,"'\uff08\uff09\uff0c\u3001\u060c\u201c\u2018\u300c]+))"""
)
MARKS = str.maketrans("\uff08\uff09\uff0c\u3001\u060c", "(),,,")
WORDS = ("and", "or", "not", "in")
MAX_DEPTH = 50
"""Parentheses and negations inside each other."""


ColumnsOf = Callable[[str], Iterable[Column]]
"""Gives the columns of a field for all rows of a segment, those of neighbouring rows after each other."""


class Condition(Protocol):
    """A part of an expression."""

    def mask(self, columns_of: ColumnsOf) -> np.ndarray:
        """Return for each row whether it matches, (rows,) bool."""


@dataclass(frozen=True, slots=True)
class Value:
    """A value of an expression; ``number`` is None where it is text."""

    text: str
    number: float | None
    is_bare: bool = False

    @property
    def is_time(self) -> bool:
        """Whether it is an instant or a date."""
        return is_time(self.text)

    @property
    def spellings(self) -> tuple[str, ...]:
        """The texts that it equals: of the bare words true and false, all usual cases."""
        folded = self.text.lower()
        return (
            (folded, folded.title(), folded.upper()) if self.is_bare and folded in ("true", "false") else (self.text,)
        )


@dataclass(frozen=True, slots=True)
class Comparison:
    """A field against values: equal to one of them, or less or greater than the only one."""

    field: str
    operator: str
    values: tuple[Value, ...]

    def mask(self, columns_of: ColumnsOf) -> np.ndarray:
        """Return for each row whether it matches, (rows,) bool."""
        masks = [column.mask(self._matches(column)) for column in columns_of(self.field)]
        return np.concatenate([np.empty(0, dtype=bool), *masks])

    def _matches(self, column: Column) -> pa.Array:
        """Compare the texts of a column: with numbers as numbers, with the rest as text."""
        if self.field in COLUMNS:
            return self._compare(column.texts_V, [value.text for value in self.values])
        if self.values[0].is_time and len(self.values) == 1:
            return self._compare(*column.in_time(time_key(self.values[0].text)))
        spelt = [text for value in self.values if value.number is None for text in value.spellings]
        matched = self._compare(column.texts_V, spelt)
        numbers = [value.number for value in self.values if value.number is not None]
        return pc.or_kleene(matched, self._compare(column.numbers, numbers)) if numbers else matched

    def _compare(self, found: pa.Array, values: list[str] | list[float] | list[int]) -> pa.Array:
        if not values:
            return pa.array(np.zeros(len(found), dtype=bool))
        if self.operator == "==" and len(values) == 1:
            return pc.equal(found, pa.scalar(values[0], found.type))
        if self.operator == "==":
            return pc.is_in(found, value_set=pa.array(values, found.type))
        return COMPARISONS[self.operator](found, pa.scalar(values[0], found.type))


@dataclass(frozen=True, slots=True)
class Not:
    """What another condition does not match."""

    condition: Condition

    def mask(self, columns_of: ColumnsOf) -> np.ndarray:
        """Return for each row whether it matches, (rows,) bool."""
        return ~self.condition.mask(columns_of)


@dataclass(frozen=True, slots=True)
class Every:
    """What all conditions match."""

    conditions: tuple[Condition, ...]

    def mask(self, columns_of: ColumnsOf) -> np.ndarray:
        """Return for each row whether it matches, (rows,) bool."""
        return reduce(np.logical_and, (condition.mask(columns_of) for condition in self.conditions))


@dataclass(frozen=True, slots=True)
class Some:
    """What at least one condition matches."""

    conditions: tuple[Condition, ...]

    def mask(self, columns_of: ColumnsOf) -> np.ndarray:
        """Return for each row whether it matches, (rows,) bool."""
        return reduce(np.logical_or, (condition.mask(columns_of) for condition in self.conditions))


@dataclass(frozen=True, slots=True)
class Filter:
    """A parsed expression, and the fields that it names."""

    text: str
    condition: Condition
    fields: frozenset[str]

    def mask(self, passages: pa.Table, metadata: MetadataColumns | None = None) -> np.ndarray:
        """Return for each row of a segment's passages whether it matches, (rows,) bool.

        ``metadata`` are the segment's columns; a segment without them has its metadata read row by row.
        """

        def columns_of(field: str) -> Iterable[Column]:
            if field in COLUMNS:
                return (Column(len(texts), texts) for texts in passages[field].chunks)
            return [metadata.column(field)] if metadata else pair_columns(passages["metadata"].chunks, field)

        return self.condition.mask(columns_of)

    def unknown_field(self, keys: Collection[str]) -> str:
        """Return a message that names a field not among ``keys`` (probably misspelt) and the fields there are; "" if all are."""
        unknown = sorted(self.fields.difference(COLUMNS, keys))
        if not unknown:
            return ""
        there_are = ", ".join([*COLUMNS, *sorted(keys)[:20]])
        return f"filter {self.text!r}: no passage has the field {unknown[0]!r}; there are {there_are}"


def parse_filter(text: str) -> Filter:
    """Parse an expression.

    Raises:
        InputError: names what was expected, and where.
    """
    require_utf8(text, "filter")
    parser = _Parser(text)
    condition = parser.expression(0)
    if parser.kind != "end":
        raise parser.expected("'and', 'or' or the end")
    return Filter(text, condition, frozenset(parser.fields))


class _Parser:
    """Reads an expression from left to right; ``kind`` and ``token`` are what comes next, ``fields`` those read so far."""

    def __init__(self, text: str) -> None:
        self.fields: set[str] = set()
        self._text = text
        self._end = 0
        self._advance()

    def _advance(self) -> None:
        rest = self._text[self._end :]
        self._start = self._end + len(rest) - len(rest.lstrip())
        found = TOKEN.match(self._text, self._end)
        if found is None:
            self.kind, self.token = "end", ""
            if self._start < len(self._text):
                raise self.expected(
                    "a field, a value or an operator (equality is ==; quote a value with special characters)"
                )
            return
        self.kind, self._end = str(found.lastgroup), found.end()
        self.token = found[self.kind]
        if self.kind == "op":
            self.token = self.token.translate(MARKS)
        if self.kind == "word" and self.token.lower() in WORDS:
            self.kind, self.token = "op", self.token.lower()

    def expected(self, what: str) -> InputError:
        """Make the error for what comes next."""
        found = repr(self._text[self._start : self._start + 20]) if self._start < len(self._text) else "the end"
        shown = self._text if len(self._text) <= 100 else self._text[:97] + "..."
        return InputError(
            f"filter {shown!r}: expected {what} at position {self._start + 1}, found {found}; "
            "an example: lang in (en, de) and year >= 2020"
        )

    def _take(self, *operators: str) -> str:
        """Step over one of these operators if it comes next; return it, else nothing."""
        if self.kind != "op" or self.token not in operators:
            return ""
        token = self.token
        self._advance()
        return token

    def _need(self, operator: str, what: str) -> None:
        if not self._take(operator):
            raise self.expected(what)

    def expression(self, depth: int) -> Condition:
        """Read conditions joined by `or`."""
        found = [self._conjunction(depth)]
        while self._take("or"):
            found.append(self._conjunction(depth))
        return found[0] if len(found) == 1 else Some(tuple(found))

    def _conjunction(self, depth: int) -> Condition:
        found = [self._condition(depth)]
        while self._take("and"):
            found.append(self._condition(depth))
        return found[0] if len(found) == 1 else Every(tuple(found))

    def _condition(self, depth: int) -> Condition:
        if depth > MAX_DEPTH:
            raise self.expected(f"at most {MAX_DEPTH} conditions inside each other")
        if self._take("not"):
            return Not(self._condition(depth + 1))
        if self._take("("):
            inner = self.expression(depth + 1)
            self._need(")", "')', 'and' or 'or'")
            return inner
        return self._comparison()

    def _comparison(self) -> Condition:
        if self.kind not in ("word", "quoted"):
            raise self.expected("a field, 'not' or '('")
        field = self._value().text
        self.fields.add(field)
        operator = self._take("==", "!=", *COMPARISONS)
        if operator:
            equal = operator in ("==", "!=")
            comparison = Comparison(field, "==" if equal else operator, (self._value(),))
            return Not(comparison) if operator == "!=" else comparison
        negated = bool(self._take("not"))
        self._need("in", "'in'" if negated else f"'==', '!=', '<', '<=', '>', '>=', 'in' or 'not in' after '{field}'")
        self._need("(", "'(' after 'in'")
        values = [self._value()]
        while self._take(","):
            values.append(self._value())
        self._need(")", "',' or ')'")
        among = Comparison(field, "==", tuple(values))
        return Not(among) if negated else among

    def _value(self) -> Value:
        """Read a value (or a field, which is written in the same way)."""
        if self.kind not in ("word", "quoted"):
            raise self.expected("a value")
        kind, token = self.kind, self.token
        self._advance()
        if kind == "quoted":
            return Value(re.sub(r"\\(.)", r"\1", token[1:-1], flags=re.DOTALL), None)
        return Value(token, float(token) if re.fullmatch(NUMBER, token) else None, is_bare=True)


def quoted(text: str) -> str:
    """Return a text as a value of an expression, whatever it holds."""
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'
