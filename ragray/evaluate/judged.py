"""Judged queries. In: queries and relevance judgements in the formats of BEIR or TREC. Out: one value."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ragray.errors import InputError
from ragray.text.checks import is_blank, require_utf8
from ragray.types import Example

RELEVANCE = r"-?\d{1,15}"
HEADER = r"(?i)(query|corpus|doc|document|passage)[-_ ]?(id)?|qid|topic|docno|score|rel|relevance|label"
"""A column's name: a first line without any is no header, but a judgement."""

Qrels = Mapping[str, Mapping[str, int]]
"""Relevance by query and document."""


@dataclass(frozen=True, slots=True)
class Queries:
    """The texts by id, and for each line that holds none why it was refused: blank, or not to be written as UTF-8."""

    texts: Mapping[str, str]
    refused: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class JudgedQueries:
    """Queries that have a relevant document, by id, with their judgements; and how many others there are."""

    texts: Mapping[str, str]
    relevant: Qrels
    refused: Mapping[str, str]
    """Why a query that is blank or cannot be encoded is left out, by id."""
    num_left_out: int
    """Queries that have no relevant document."""
    num_missing: int
    """Judged queries that have one, but are not there."""

    @property
    def documents(self) -> set[str]:
        """Ids of all relevant documents."""
        return {name for query in self.texts for name, gain in self.relevant[query].items() if gain > 0}


def judged_by_qrels(queries: Path, qrels: Path) -> JudgedQueries:
    """Read queries and their judgements.

    Raises:
        InputError: a file cannot be read (the message names line and field), or no query has a relevant document.
    """
    found, judged = read_queries(queries), read_qrels(qrels)
    relevant = {name: gains for name, gains in judged.items() if any(gain > 0 for gain in gains.values())}
    asked = {name: text for name, text in found.texts.items() if name in relevant}
    if not asked:
        raise InputError(
            f"{qrels}: no query of {queries} has a relevant document (relevance 1 or more); are the ids of the same kind?"
        )
    missing = len(relevant) - len(asked) - len(relevant.keys() & found.refused.keys())
    return JudgedQueries(asked, relevant, found.refused, len(found.texts) - len(asked), missing)


def judged_by_examples(examples: Sequence[Example], source: str) -> JudgedQueries:
    """Take the questions of examples that have gold ids, each of relevance 1; ``source`` names them in messages.

    Raises:
        InputError: no example has gold ids.
    """
    relevant = {example.id: dict.fromkeys(example.gold_ids, 1) for example in examples if example.gold_ids}
    if not relevant:
        raise InputError(
            f"{source}: no example has gold ids, the passages or documents that hold its answer; add them as gold_ids, or name "
            "their field with examples.gold_field"
        )
    texts = {example.id: example.question for example in examples if example.id in relevant}
    return JudgedQueries(texts, relevant, {}, len(examples) - len(texts), 0)


def read_queries(path: Path) -> Queries:
    """Read queries from JSONL, ``{"id", "text"}`` (or BEIR's ``"_id"``); a blank text, or one that is no UTF-8, is refused alone.

    Raises:
        InputError: a line is wrong otherwise; names file, line and field.
    """
    texts: dict[str, str] = {}
    refused: dict[str, str] = {}
    for where, line in _lines(path):
        name, text = _query(where, line)
        if name in texts or name in refused:
            raise InputError(f"{where}: id '{name}' stands on an earlier line too; ids must be unique")
        if reason := _refusal(where, text):
            refused[name] = reason
        else:
            texts[name] = text
    return Queries(texts, refused)


def _query(where: str, line: str) -> tuple[str, str]:
    """Return id and text of a line."""
    try:
        record = json.loads(line)
    except (ValueError, RecursionError) as err:
        raise InputError(f"{where}: is not JSON ({err}); mend or remove the line") from err
    if not isinstance(record, dict):
        raise InputError(f"{where}: is a JSON {type(record).__name__}, expected an object with id and text")
    name, text = record.get("id", record.get("_id")), record.get("text")
    if not isinstance(name, str):
        raise InputError(f"{where}: field 'id' must be a string (found {name!r})")
    if not isinstance(text, str):
        raise InputError(f"{where}: field 'text' must be a text (found {text!r})")
    require_utf8(name, f"{where}: field 'id'")
    return name, text


def _refusal(where: str, text: str) -> str:
    """Return why a text cannot be searched for, "" if it can."""
    if is_blank(text):
        return f"{where}: field 'text' is blank"
    try:
        require_utf8(text, f"{where}: field 'text'")
    except InputError as err:
        return str(err)
    return ""


def read_qrels(path: Path) -> dict[str, dict[str, int]]:
    """Read judgements: query, document, relevance, with or without a header, or TREC's four columns (the second is skipped).

    Raises:
        InputError: names file, line and field.
    """
    judged: dict[str, dict[str, int]] = {}
    for number, (where, line) in enumerate(_lines(path)):
        fields = [field.strip() for field in (line.split("\t") if "\t" in line else line.split())]
        if len(fields) not in (3, 4):
            raise InputError(
                f"{where}: has {len(fields)} columns, expected query, document and relevance separated by tabs"
            )
        query, document, relevance = fields[0], fields[-2], fields[-1]
        if not re.fullmatch(RELEVANCE, relevance):
            if number == 0 and any(re.fullmatch(HEADER, field) for field in fields):
                continue
            raise InputError(
                f"{where}: field 'relevance' must be a whole number of at most 15 digits (found {relevance!r:.40})"
            )
        if not query or not document:
            raise InputError(f"{where}: field '{'document' if query else 'query'}' is empty; give its id")
        if judged.setdefault(query, {}).setdefault(document, int(relevance)) != int(relevance):
            raise InputError(
                f"{where}: query '{query}', document '{document}' has another relevance on an earlier line"
            )
    return judged


def _lines(path: Path) -> Iterator[tuple[str, str]]:
    """Yield the place (file:line) and the text of every line that is not empty."""
    try:
        with path.open(encoding="utf-8-sig", newline="\n") as file:
            for number, line in enumerate(file, start=1):
                if line.strip():
                    yield f"{path}:{number}", line.rstrip("\r\n")
    except OSError as err:
        raise InputError(f"{path}: cannot be read ({err.strerror}); check the path") from err
    except UnicodeDecodeError as err:
        raise InputError(f"{path}: is not UTF-8 ({err.reason} at byte {err.start}); convert the file") from err
