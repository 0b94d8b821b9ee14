"""Predictions read. In: one JSON object of id to text, or JSON lines of id and prediction. Out: texts by id, each checked."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

from ragray.config import ExamplesConfig
from ragray.corpus.read.lines import decompressed, jsonl_rows
from ragray.corpus.read.record import Refusal, storable
from ragray.corpus.read.source import Source
from ragray.errors import InputError
from ragray.examples.fields import Roles
from ragray.examples.shapes import id_of
from ragray.examples.sources import MAX_CHARS
from ragray.text.checks import require_utf8

PREDICTION = "prediction"


def read_predictions(path: Path) -> dict[str, str]:
    """Read predictions: one JSON object of id to text, or lines of ``{"id", "prediction"}``, told apart by what they hold.

    Raises:
        InputError: the file is neither, an id stands twice, or a prediction is no text; the message names the id or the line.
    """
    source = Source(str(path.absolute()), path.name)
    predictions: dict[str, str] = {}
    for where, identity, text in _of_lines(source, path) if _holds_lines(source, path) else _of_object(path):
        if not isinstance(text, str):
            kind = "dict" if isinstance(text, _Pairs) else type(text).__name__
            raise InputError(f"{where} is a {kind}, expected a text")
        require_utf8(identity, f"{where}: its id")
        require_utf8(text, where)
        if identity in predictions:
            raise InputError(f"{where} stands twice; ids must be unique")
        predictions[identity] = text
    return predictions


def _holds_lines(source: Source, path: Path) -> bool:
    """Say whether the first line that is not empty is a record with a prediction."""
    try:
        with decompressed(source) as stream:
            line = next((line for line in stream if line.strip()), b"")
        first = json.loads(line.decode("utf-8-sig"))
    except OSError as err:
        raise InputError(f"{path}: cannot be read ({err.strerror or err}); check the path") from err
    except (ValueError, RecursionError):
        return False
    return isinstance(first, dict) and PREDICTION in first and bool(Roles.of(ExamplesConfig()).id.names_in(first))


def _of_lines(source: Source, path: Path) -> Iterator[tuple[str, str, object]]:
    role = Roles.of(ExamplesConfig()).id
    for row in jsonl_rows(source, MAX_CHARS):
        place = f"{path}:{row.line}"
        if isinstance(row, Refusal):
            raise InputError(f"{place}: {row.reason}; mend or remove it")
        names = role.names_in(row.fields)
        if not names or PREDICTION not in row.fields:
            absent = PREDICTION if names else "id"
            raise InputError(f'{place}: no field \'{absent}\'; expected lines of {{"id": "1", "{PREDICTION}": "..."}}')
        identity = id_of(row.fields[names[0]], f"{place}: field '{names[0]}'")
        yield f"{place}: prediction '{identity}'", identity, row.fields[PREDICTION]


def _of_object(path: Path) -> Iterator[tuple[str, str, object]]:
    try:
        text = path.read_text(encoding="utf-8-sig")
        found = json.loads(text, object_pairs_hook=_Pairs, parse_constant=_no_constant)
    except OSError as err:
        raise InputError(f"{path}: cannot be read ({err.strerror}); check the path") from err
    except UnicodeDecodeError as err:
        raise InputError(f"{path}: is not UTF-8 at byte {err.start}; convert the file") from err
    except (ValueError, RecursionError) as err:
        raise InputError(f"{path}: is not JSON ({err}); expected one object of id to text") from err
    if not isinstance(found, _Pairs):
        raise InputError(f"{path}: holds a JSON {type(found).__name__}, expected one object of id to text")
    for identity, prediction in found:
        yield f"{path}: prediction '{storable(identity)}'", identity, prediction


class _Pairs(list[tuple[str, object]]):
    """The keys and values of an object, doubled keys too."""


def _no_constant(name: str) -> object:
    raise ValueError(f"{name} is not JSON's")
