"""Keys that were renamed. In: a section as an earlier version recorded it. Out: the section under present names. Pure."""

from __future__ import annotations

from collections.abc import Mapping

from pydantic import JsonValue

RENAMED: Mapping[str, str] = {
    "train.k": "retrieve.k",
    "train.temperature": "generate.passage_temperature",
    "generate.temperature": "generate.passage_temperature",
    "train.max_answer_tokens": "generate.max_new_tokens",
    "serve.retriever_replicas": "retrieve.num_replicas",
}
"""The earlier ``section.key`` and the present one, which it is taken for in a file or an override; the log says so."""

AMBIGUOUS = frozenset({"train.temperature", "generate.temperature"})
"""Earlier keys that a reader of today takes for something else (the temperature of sampling): an error that names the present one."""


def with_present_names(section: str, recorded: JsonValue) -> JsonValue:
    """Return a section as an artefact recorded it, its earlier keys under their present names; any other value as it is."""
    if not isinstance(recorded, dict):
        return recorded
    return {_present(section, key): value for key, value in recorded.items()}


def _present(section: str, key: str) -> str:
    new_section, _, new_key = RENAMED.get(f"{section}.{key}", "").partition(".")
    return new_key if new_section == section else key
