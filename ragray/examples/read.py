"""Examples read. In: a file, folder, glob, URI or Python object, and the names of its fields. Out: checked `Example`s, all or an error.

Of a broken record the rest of a corpus does not suffer; a training set that loses records without a word is wrong. So one record
that is wrong is an error here. It names the first, with file, line (row of a table) and field, and counts the others.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from ragray.config import ExamplesConfig
from ragray.errors import InputError
from ragray.examples.fields import Roles, missing
from ragray.examples.record import Placed, to_example
from ragray.examples.sources import ExampleSource, raw_examples
from ragray.text.checks import is_blank
from ragray.types import Example

SUSPECT = {
    re.compile(
        r"[\x01-\x08\x0e-\x1b\x7f-\x84\x86-\x9f]"
    ): "control characters, which some tokenizers drop; they are kept",
    re.compile(r"\A\s*\[\s*(['\"]).*\1\s*\]\s*\Z", re.DOTALL): "a list written as a text, which is taken as it stands",
}
"""Texts that are kept and told. White space is none of these control characters; NUL is refused."""

logger = logging.getLogger("ragray")


def read_examples(source: ExampleSource, settings: ExamplesConfig | None = None) -> list[Example]:
    """Read the examples to train on or to evaluate.

    Records without ids are numbered from "0" on. Answers without any visible character are left out, examples without another
    answer too; one warning counts them. NUL is refused; other control characters, and lists that a text spells, are kept and counted.

    Raises:
        InputError: a record is wrong (the message names place and field), ids are doubled or stand in some records alone, or no
            example has an answer.
    """
    kept = _without_blank(_read(source, settings or ExamplesConfig(), scoring=False))
    _tell(kept)
    return [placed.example for placed in kept]


def read_references(source: ExampleSource, settings: ExamplesConfig | None = None) -> list[Example]:
    """Read the examples that predictions are scored against: with ids, blank answers kept, the question optional.

    The answer ``""`` means, as in SQuAD 2, that the right prediction is empty.

    Raises:
        InputError: as `read_examples`, or a record has no id.
    """
    return [placed.example for placed in _read(source, settings or ExamplesConfig(), scoring=True)]


@dataclass(slots=True)
class _Wrong:
    """The first record that is wrong, and how many are."""

    message: str = ""
    number: int = 0
    count: int = 0

    def add(self, number: int, message: str) -> None:
        if not self.count or number < self.number:
            self.message, self.number = message, number
        self.count += 1

    def raise_any(self) -> None:
        others = self.count - 1
        more = f"; {others} more record{'s are' if others > 1 else ' is'} wrong" if others > 0 else ""
        if self.count:
            raise InputError(f"{self.message}{more}")


def _read(source: ExampleSource, settings: ExamplesConfig, *, scoring: bool) -> list[Placed]:
    roles, wrong = Roles.of(settings), _Wrong()
    places: dict[str, str] = {}
    found: dict[int, Placed] = {}
    for number, raw in enumerate(raw_examples(source, roles)):
        try:
            placed = to_example(raw, roles, scoring=scoring)
        except InputError as err:
            wrong.add(number, str(err))
            continue
        identity = placed.example.id
        if identity and identity in places:
            wrong.add(number, f"{raw.place}: id '{identity}' stands at {places[identity]} too; ids must be unique")
        elif identity:
            places[identity] = raw.place
        found[number] = placed
    if scoring or places or roles.id.mapped:
        for number, placed in found.items():
            if not placed.example.id:
                wrong.add(number, _without_id(placed, places, roles))
    wrong.raise_any()
    return _complete(list(found.values()), roles)


def _without_id(placed: Placed, places: Mapping[str, str], roles: Roles) -> str:
    empty = roles.id.names_in(dict.fromkeys(placed.fields))
    reason = f"field '{empty[0]}' is empty" if empty else missing(roles.id, placed.fields, roles)
    message = f"{placed.place}: {reason}"
    if places:
        return f"{message}; the record at {next(iter(places.values()))} has an id: give one to every record, or to none"
    return message if roles.id.mapped and not empty else f"{message} (a prediction finds its example by the id)"


def _complete(found: list[Placed], roles: Roles) -> list[Placed]:
    """Number examples without ids.

    Raises:
        InputError: there are none, or none has the field that the user named for the gold ids.
    """
    if not found:
        raise InputError("examples: there are none; expected records with question and answers")
    if roles.gold.mapped and not any(roles.gold.mapped in placed.fields for placed in found):
        raise InputError(f"{found[0].place}: {missing(roles.gold, found[0].fields, roles)}")
    if found[0].example.id:
        return found
    return [replace(placed, example=replace(placed.example, id=str(n))) for n, placed in enumerate(found)]


def _tell(read: Sequence[Placed]) -> None:
    """Warn of what is kept and may not be meant, once for each kind."""
    for pattern, what in SUSPECT.items():
        texts = ((placed, (placed.example.question, *placed.example.answers)) for placed in read)
        held = [(p.place, found[0]) for p, all_of in texts if (found := list(filter(pattern.search, all_of)))]
        if held:
            place, text = held[0]
            logger.warning("examples: %d of %d hold %s (first: %s, %r)", len(held), len(read), what, place, text[:60])


def _without_blank(read: Sequence[Placed]) -> list[Placed]:
    """Leave out blank answers, and examples that have no other."""
    kept: list[Placed] = []
    blank: list[tuple[str, int]] = []
    for placed in read:
        answers = _visible(placed.example.answers)
        if num_blank := len(placed.example.answers) - len(answers):
            blank.append((placed.place, num_blank))
        if answers:
            kept.append(replace(placed, example=replace(placed.example, answers=answers)) if num_blank else placed)
    if not kept:
        raise InputError(
            f"{read[0].place}: the accepted answers of all {len(read)} examples are blank; give answers with visible characters"
        )
    if blank:
        logger.warning(
            "examples: %d blank answers are left out (first: %s); %d of %d examples have no other answer and are left out too",
            sum(number for _, number in blank),
            blank[0][0],
            len(read) - len(kept),
            len(read),
        )
    return kept


def _visible(answers: Iterable[str]) -> tuple[str, ...]:
    return tuple(answer for answer in answers if not is_blank(answer))
