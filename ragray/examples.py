"""Files of examples and of predictions. In: JSONL, JSON. Out: `Example`s, texts by id; errors name file, line and field."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from ragray.errors import InputError
from ragray.types import Example


def read_examples(path: Path, *, need_question: bool = True) -> list[Example]:
    """Read examples from JSONL: ``{"id", "question", "answers", "gold_ids"}`` (question and gold_ids optional for scoring).

    Raises:
        InputError: names file, line and field.
    """
    examples: dict[str, Example] = {}
    for number, line in enumerate(_text(path).split("\n"), start=1):
        if not line.strip():
            continue
        example = _example(line, f"{path}:{number}", need_question)
        if example.id in examples:
            raise InputError(f"{path}:{number}: id '{example.id}' stands on an earlier line too; ids must be unique")
        examples[example.id] = example
    if not examples:
        raise InputError(
            f'{path}: is empty; expected lines such as {{"id": "1", "question": "...", "answers": ["..."]}}'
        )
    return list(examples.values())


def _text(path: Path) -> str:
    """Read a file whole; not `splitlines` after it: JSON may hold line separators of Unicode inside a string."""
    try:
        return path.read_text(encoding="utf-8-sig")
    except OSError as err:
        raise InputError(f"{path}: cannot be read ({err.strerror}); check the path") from err
    except UnicodeDecodeError as err:
        raise InputError(f"{path}: is not UTF-8 at byte {err.start}; convert the file") from err


def _example(line: str, where: str, need_question: bool) -> Example:
    try:
        record = json.loads(line)
    except ValueError as err:
        raise InputError(f"{where}: is not JSON ({err}); mend or remove the line") from err
    if not isinstance(record, dict):
        raise InputError(
            f"{where}: is a JSON {type(record).__name__}, expected an object with id, question and answers"
        )
    if not isinstance(record.get("id"), str):
        raise InputError(f"{where}: field 'id' must be a string (found {record.get('id')!r})")
    question = record.get("question", "")
    if not isinstance(question, str) or (need_question and not question.strip()):
        raise InputError(f"{where}: field 'question' must be a text (found {record.get('question')!r})")
    answers = _strings(record, "answers", where)
    if not answers:
        raise InputError(f"{where}: field 'answers' is empty; give at least one accepted answer")
    return Example(record["id"], question, answers, _strings(record, "gold_ids", where))


def _strings(record: Mapping[str, object], field: str, where: str) -> tuple[str, ...]:
    values = record.get(field, [])
    if not isinstance(values, list) or not all(isinstance(value, str) for value in values):
        raise InputError(f"{where}: field '{field}' must be a list of strings (found {str(values)[:60]!r})")
    return tuple(values)


def read_predictions(path: Path) -> dict[str, str]:
    """Read predictions: one JSON object of id to text.

    Raises:
        InputError: the file is no such object; the message names the id that is wrong.
    """
    try:
        found = json.loads(_text(path))
    except ValueError as err:
        raise InputError(f"{path}: is not JSON ({err}); expected one object of id to text") from err
    if not isinstance(found, dict):
        raise InputError(f"{path}: holds a JSON {type(found).__name__}, expected one object of id to text")
    for key, text in found.items():
        if not isinstance(text, str):
            raise InputError(f"{path}: prediction '{key}' is a {type(text).__name__}, expected a text")
    return found
