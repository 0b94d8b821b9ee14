"""Values of a field in all their formats. In: a value from a file or from Python. Out: accepted answers, an id, gold ids, as text. Pure."""

from __future__ import annotations

import ast
import io
import json
import math
import re
import tokenize
import warnings
from collections.abc import Mapping
from datetime import date
from decimal import Decimal
from uuid import UUID

from ragray.errors import InputError
from ragray.text.checks import is_blank, require_utf8

ANSWER_KEYS: tuple[tuple[str, ...], ...] = (("text",), ("value", "aliases"), ("answer",))
"""Where an object holds answers: of SQuAD, of TriviaQA, of KILT."""
CONTEXT_IDS = ("passage_id", "psg_id", "id")
"""Where a passage of DPR (in its two versions) and of Fusion-in-Decoder holds its id."""
_LISTED_TEXT = re.compile(r"[\[{]\s*['\"]|\[\s*\]")
"""How a list of texts, or an object, begins."""


def answers_of(value: object, where: str) -> tuple[str, ...]:
    """Return the accepted answers: of a text, a number, an object, or a list of them.

    A SQuAD object without text means that there is no answer, which SQuAD scores as the empty text.

    Raises:
        InputError: it is something else; ``where`` is how the message begins.
    """
    if not isinstance(value, list | tuple):
        return tuple(_answers(value, where))
    return tuple(text for number, item in enumerate(value) for text in _answers(item, f"{where}, item {number}"))


def _answers(value: object, where: str) -> list[str]:
    if isinstance(value, str):
        return [checked(value, where)]
    if isinstance(value, int | float | Decimal) and not isinstance(value, bool):
        return [_number(value, where)]
    if isinstance(value, Mapping):
        keys = next((keys for keys in ANSWER_KEYS if keys[0] in value), ())
        texts = [text for key in keys if key in value for text in answers_of(value[key], f"{where}, '{key}'")]
        if keys:
            return list(dict.fromkeys(texts)) if len(keys) > 1 else texts or [""]
        if "provenance" in value:  # KILT keeps entries that only say where an answer stands
            return []
    raise InputError(f"{where} must be a text, a number or a list of them (found {_found(value)})")


def id_of(value: object, where: str) -> str:
    """Return an id as text; 7, 7.0 and "7" are the same id.

    Raises:
        InputError: it is no scalar, no finite number, true or false, or blank.
    """
    if isinstance(value, str):
        if is_blank(value):
            raise InputError(f"{where} is blank (found {value[:60]!r}); give an id")
        return checked(value, where)
    if isinstance(value, int | float | Decimal) and not isinstance(value, bool):
        return _number(value, where)
    if isinstance(value, date | UUID):
        return str(value)
    raise InputError(f"{where} must be a text or a number (found {_found(value)})")


def gold_ids_of(value: object, where: str) -> tuple[str, ...]:
    """Return gold ids from one id or a list of ids; null and the empty text give none."""
    if value is None or value == "":
        return ()
    if not isinstance(value, list | tuple):
        return (id_of(value, where),)
    return tuple(id_of(item, f"{where}, item {number}") for number, item in enumerate(value))


def gold_of_contexts(fields: Mapping[str, object], place: str) -> tuple[str, ...]:
    """Return the ids of the passages with the answer that a record of DPR or Fusion-in-Decoder holds; those without ids count not.

    They are all of DPR's ``positive_ctxs``; of Fusion-in-Decoder's ``ctxs``, which a retriever found, those marked ``hasanswer``.
    """
    positive, found = fields.get("positive_ctxs"), fields.get("ctxs")
    passages = (
        positive if isinstance(positive, list) else [one for one in _objects(found) if one.get("hasanswer") is True]
    )
    ids = [
        id_of(one[key], f"{place}: field '{key}' of a passage")
        for one in _objects(passages)
        for key in CONTEXT_IDS
        if one.get(key) not in (None, "")
    ]
    return tuple(dict.fromkeys(ids))


def _objects(value: object) -> list[Mapping[str, object]]:
    return [item for item in value if isinstance(item, Mapping)] if isinstance(value, list) else []


def question_of(value: object, where: str) -> str:
    """Return a question's text; callers that need a question check that it is not blank."""
    if not isinstance(value, str):
        raise InputError(f"{where} must be a text (found {_found(value)})")
    return checked(value, where)


def checked(text: str, where: str) -> str:
    """Return the text if UTF-8 can encode it and it holds no NUL, which ends a text in some tokenizers and databases."""
    if not text.isascii():
        require_utf8(text, where)
    if "\0" in text:
        raise InputError(f"{where}: character {text.index(chr(0)) + 1} is NUL; mend or remove it")
    return text


def _number(value: int | float | Decimal, where: str) -> str:
    if not isinstance(value, int) and not math.isfinite(value):
        raise InputError(f"{where} is no finite number (found {value}); mend or remove it")
    try:
        return str(int(value)) if value == int(value) else str(value)
    except ValueError as err:  # Python writes no number of more than 4,300 digits
        raise InputError(f"{where} is a number of too many digits; mend or remove it") from err


def _found(value: object) -> str:
    if value is None:
        return "null"
    shown = f"{value!r:.60}" if isinstance(value, bool | list | tuple | Mapping | bytes | int | float) else ""
    return shown or type(value).__name__


def unfold(cell: str, where: str) -> object:
    """Return the value of a table cell: a list or object where it holds one as JSON or Python writes it, else its text.

    Raises:
        InputError: it begins and ends like a list of texts but is not one, for instance because NumPy printed it.
    """
    text = cell.strip()
    if (text[:1], text[-1:]) not in (("[", "]"), ("{", "}")):
        return cell
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        value = _python(text)
    if _holds_answers(value):
        return value
    if value is None and _LISTED_TEXT.match(text):
        raise InputError(
            f"{where} looks like a list but is none that JSON or Python reads (found {text[:60]!r}); "
            'write it as JSON, for instance ["Bonn", "Berlin"]'
        )
    return cell


def _python(text: str) -> object:
    """Return the Python literal that a text spells, None where it spells none or relies on joining adjacent strings."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # a backslash in a text may be no escape
            tree = ast.parse(text, mode="eval")
            value: object = ast.literal_eval(tree)
        written = sum(token.type == tokenize.STRING for token in tokenize.generate_tokens(io.StringIO(text).readline))
    except (ValueError, SyntaxError, TypeError, RecursionError, MemoryError, tokenize.TokenError):
        return None
    meant = sum(isinstance(node, ast.Constant) and isinstance(node.value, str) for node in ast.walk(tree))
    return value if written == meant else None


def _holds_answers(value: object) -> bool:
    if isinstance(value, list):
        return all(isinstance(item, str | int | float) or _holds_answers_in_object(item) for item in value)
    return _holds_answers_in_object(value)


def _holds_answers_in_object(value: object) -> bool:
    return isinstance(value, dict) and any(keys[0] in value for keys in ANSWER_KEYS)
