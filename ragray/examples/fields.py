"""The fields of an example. In: the field names of a record. Out: which ones hold question, answers and ids, or what is missing. Pure."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from ragray.config import ExamplesConfig
from ragray.corpus.read.record import storable
from ragray.errors import ConfigError, InputError

MAX_NAMES = 20
"""Names that a message lists."""
CONTEXTS = ("positive_ctxs", "ctxs")
"""Passages that stand in the record itself, as in DPR's and Fusion-in-Decoder's files; their ids are gold where it names no others."""

PLACE = re.compile(r"\{[^{}]+\}")
"""The place of a field in a template."""

OF_KILT = frozenset(("input", "output"))
"""Count where the output is a list of objects with answers, as in KILT: elsewhere these names mean other things."""


@dataclass(frozen=True, slots=True)
class Role:
    """One role of a field, such as the question: the field names it is known by, and the one that the user configured."""

    known: tuple[str, ...]
    setting: str
    mapped: str = ""

    @property
    def name(self) -> str:
        """Its own name, or the mapped one."""
        return self.mapped or self.known[0]

    def names_in(self, fields: Mapping[str, object]) -> list[str]:
        """Return the names that a record knows it by."""
        if self.mapped:
            return [self.mapped] if self.mapped in fields else []
        of_kilt = "input" in fields and _holds_answers(fields.get("output"))
        return [name for name in self.known if name in fields and (of_kilt or name not in OF_KILT)]


@dataclass(frozen=True, slots=True)
class Roles:
    """The four roles: id, question, answers, gold ids; and the template that a question is made by, if there is one."""

    id: Role
    question: Role
    answers: Role
    gold: Role
    template: str = ""

    @classmethod
    def of(cls, settings: ExamplesConfig) -> Roles:
        """Return the names of the common formats, with those that the configuration gives.

        They are the names of ragray, SQuAD, NQ-open, HotpotQA (``_id``), TriviaQA (``question_id``), MS MARCO (``query``,
        ``query_id``), FlashRAG (``golden_answers``), KILT (``input``, ``output``) and DPR.
        """
        template = settings.question_template
        question = Role(("question", "query", "input"), "examples.question_field", settings.question_field)
        if in_template := fields_of(template):
            question = Role(question.known, "examples.question_template", in_template[0])
        elif template:
            raise ConfigError(
                f"examples.question_template={template}: names no field; write one in braces, such as {{question}}"
            )
        return cls(
            id=Role(("id", "_id", "qid", "question_id", "query_id"), "examples.id_field", settings.id_field),
            question=question,
            answers=Role(
                ("answers", "answer", "golden_answers", "output"), "examples.answers_field", settings.answers_field
            ),
            gold=Role(("gold_ids", "gold_id"), "examples.gold_field", settings.gold_field),
            template=template,
        )

    def all(self) -> tuple[Role, ...]:
        """Return all four."""
        return self.id, self.question, self.answers, self.gold

    def are_in(self, columns: Iterable[str]) -> bool:
        """Return whether a table has question and answers under one of their names."""
        names = set(columns)
        return all(names & set((role.mapped,) if role.mapped else role.known) for role in (self.question, self.answers))

    def names(self) -> set[str]:
        """Return every name that may matter."""
        of_roles = {name for role in self.all() for name in ((role.mapped,) if role.mapped else role.known)}
        return of_roles | {*CONTEXTS} | set(fields_of(self.template))


def fields_of(template: str) -> list[str]:
    """Return the names of the fields in a template, in its order."""
    return [found[1:-1] for found in PLACE.findall(template)]


def _holds_answers(output: object) -> bool:
    return isinstance(output, list) and any(isinstance(item, Mapping) and "answer" in item for item in output)


def missing(role: Role, fields: Iterable[str], roles: Roles) -> str:
    """Return the message for a missing field: which fields there are, and how to configure one of them."""
    names = [storable(str(name)) for name in fields]
    if role.mapped:
        near = difflib.get_close_matches(role.mapped, names, n=1)
        hint = f", did you mean {role.setting}={near[0]}?" if near else f"; correct {role.setting}"
        return f"no field '{role.mapped}', which {role.setting} names; {_listed(names)}{hint}"
    left = [name for name in names if name not in roles.names()]
    guess = left if len(left) == 1 and role is not roles.id else ["FIELD"]
    near = _nearest(role, left) or guess
    return f"no field '{role.name}'; {_listed(names)}; map it with {role.setting}={near[0]}"


def _nearest(role: Role, names: Iterable[str]) -> list[str]:
    """Return the field name most similar to a known one: one that contains it as a word, else the nearest by letters."""
    folded = {name.strip().casefold(): name for name in names}
    for known in role.known:
        if words := [name for name in folded if known in name]:
            return [folded[min(words, key=len)]]
    close = [match for known in role.known for match in difflib.get_close_matches(known, folded, n=1, cutoff=0.7)]
    return [folded[name] for name in close[:1]]


def _listed(names: list[str]) -> str:
    if not names:
        return "it has no fields"
    more = f" and {len(names) - MAX_NAMES} more" if len(names) > MAX_NAMES else ""
    return f"the fields are: {', '.join(names[:MAX_NAMES])}{more}"


def require_columns(label: str, columns: Sequence[str], roles: Roles) -> None:
    """Raise `InputError` where a table repeats a column name that may matter, or has one column because its delimiter differs."""
    if len(columns) == 1 and (marks := [mark for mark in ";\t|," if mark in columns[0]]):
        raise InputError(
            f"{label}: has one column, '{columns[0]}'; it seems to be split by {marks[0]!r}: "
            "separate columns by commas in .csv, by tabs in .tsv"
        )
    seen: set[str] = set()
    wanted = roles.names()
    for column in columns:
        if column in seen and column in wanted:
            raise InputError(f"{label}: has two columns '{column}'; rename or remove one")
        seen.add(column)
