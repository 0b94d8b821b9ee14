"""Presets of a task. In: the sections that were given. Out: the same with what `generate.task` sets and nobody gave. Pure.

A preset holds what belongs together: the prompt's instruction, how much may be read and written, by what answers are measured.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from pydantic import JsonValue

Task = Literal["", "question_answering", "summarization", "translation", "sentiment"]

PRESETS: Mapping[str, Mapping[str, JsonValue]] = {
    "question_answering": {
        "generate.instruction": "Answer with a few words.",
        "generate.max_new_tokens": 32,
    },
    "summarization": {
        "generate.instruction": "Summarize the text in one sentence.",
        "generate.max_prompt_tokens": 1024,
        "generate.max_new_tokens": 96,
        "evaluate.metrics": ["rouge1", "rouge2", "rougeL"],
    },
    "translation": {
        "generate.instruction": "Translate the text. Write the translation and nothing else.",
        "generate.max_new_tokens": 128,
        "evaluate.metrics": ["bleu", "chrf"],
    },
    "sentiment": {
        "generate.instruction": "Is the opinion positive or negative? Answer with one word.",
        "generate.max_new_tokens": 4,
        "evaluate.metrics": ["label_accuracy", "macro_f1"],
    },
}
"""By task: what it sets."""

Sections = Mapping[str, Mapping[str, JsonValue]]


def with_task(given: Sections) -> dict[str, dict[str, JsonValue]]:
    """Return the sections with the settings of the task among them; a setting that was given keeps its value."""
    found = {name: dict(values) for name, values in given.items()}
    for dotted, value in PRESETS.get(str(found.get("generate", {}).get("task", "")), {}).items():
        section, _, key = dotted.partition(".")
        found.setdefault(section, {}).setdefault(key, value)
    return found
