"""Checking one record. In: its fields, as its source holds them. Out: an `Example` with its place; errors name place and field. Pure."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from ragray.errors import InputError
from ragray.examples.fields import PLACE, Role, Roles, missing
from ragray.examples.shapes import answers_of, gold_ids_of, gold_of_contexts, id_of, question_of, unfold
from ragray.examples.sources import RawExample
from ragray.text.checks import is_blank
from ragray.types import Example

Value = TypeVar("Value")


@dataclass(frozen=True, slots=True)
class Placed:
    """An example and the fields of its record; its id is empty where the record has none."""

    example: Example
    fields: tuple[str, ...]

    @property
    def place(self) -> str:
        """Where the record stands."""
        return self.example.place


def to_example(raw: RawExample, roles: Roles, *, scoring: bool) -> Placed:
    """Check a record. For ``scoring`` it needs no question, and a missing answer is an error instead of a blank answer.

    Raises:
        InputError: names place and field, and what was expected.
    """
    if raw.damage:
        raise InputError(f"{raw.place}: {raw.damage}; mend or remove it")
    question = _question(raw, roles, needed=not scoring)
    answers = _value(raw, roles, roles.answers, lambda value, where: _answers(value, where, raw.in_cells, scoring))
    gold = roles.gold.names_in(raw.fields)
    return Placed(
        Example(
            _identity(raw, roles.id),
            question,
            answers,
            _value(raw, roles, roles.gold, lambda value, where: _gold_ids(value, where, raw.in_cells))
            if gold
            else gold_of_contexts(raw.fields, raw.place),
            raw.place,
        ),
        tuple(raw.fields),
    )


def _value(raw: RawExample, roles: Roles, role: Role, parse: Callable[[object, str], Value]) -> Value:
    """Return the value of a role; a record with two fields for it must hold the same value in both."""
    names = role.names_in(raw.fields)
    if not names:
        raise InputError(f"{raw.place}: {missing(role, raw.fields, roles)}")
    filled = [name for name in names if not _is_missing(raw, name)] or names[:1]
    try:
        values = [parse(raw.fields[name], f"{raw.place}: field '{name}'") for name in filled]
    except InputError as err:
        other = f"; or say which field counts, for instance with {role.setting}={filled[0]}" if len(filled) > 1 else ""
        raise InputError(f"{err}{other}") from err
    for name, value in zip(filled, values, strict=True):
        if value != values[0]:
            raise InputError(
                f"{raw.place}: fields '{filled[0]}' and '{name}' hold different values; "
                f"say which one counts, for instance with {role.setting}={filled[0]}"
            )
    return values[0]


def _is_missing(raw: RawExample, name: str) -> bool:
    return raw.fields[name] is None or (raw.in_cells and raw.fields[name] == "")


def _question(raw: RawExample, roles: Roles, *, needed: bool) -> str:
    names = roles.question.names_in(raw.fields)
    if not needed and not roles.question.mapped and all(_is_missing(raw, name) for name in names):
        return ""
    is_made = not roles.template or raw.is_example
    question = _value(raw, roles, roles.question, question_of) if is_made else _filled(raw, roles)
    if needed and is_blank(question):
        raise InputError(f"{raw.place}: field '{names[0]}' is blank (found {question[:60]!r}); give the question")
    return question


def _filled(raw: RawExample, roles: Roles) -> str:
    """Return the question that a template makes of several fields."""

    def text(place: re.Match[str]) -> str:
        name = place[0][1:-1]
        role = Role(roles.question.known, roles.question.setting, name)
        return _value(raw, roles, role, question_of)

    return PLACE.sub(text, roles.template)


def _answers(value: object, where: str, in_cells: bool, scoring: bool) -> tuple[str, ...]:
    if in_cells and (value is None or value == ""):
        if scoring:
            raise InputError(f'{where} is empty; write [""] where the right prediction is empty')
        return ("",)
    found = answers_of(unfold(value, where) if in_cells and isinstance(value, str) else value, where)
    if not found:
        raise InputError(f"{where} is empty; give at least one accepted answer")
    return found


def _gold_ids(value: object, where: str, in_cells: bool) -> tuple[str, ...]:
    return gold_ids_of(unfold(value, where) if in_cells and isinstance(value, str) else value, where)


def _identity(raw: RawExample, role: Role) -> str:
    """Return the id from the first of its fields that is not empty."""
    names = (name for name in role.names_in(raw.fields) if not _is_missing(raw, name))
    return next((id_of(raw.fields[name], f"{raw.place}: field '{name}'") for name in names), "")
