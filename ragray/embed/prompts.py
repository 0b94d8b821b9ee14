"""A model's prompts. In: a model folder. Out: the texts that stand before passages and before questions."""

from __future__ import annotations

import json
import logging
import re
from pathlib import Path

from pydantic import JsonValue

from ragray.errors import ConfigError

logger = logging.getLogger("ragray")

PROMPT_FILE = "config_sentence_transformers.json"
PREFIXES = {"passage_prefix": ("document", "passage", "corpus"), "question_prefix": ("query",)}
"""The settings, and the prompts that they are taken from, in the order of sentence-transformers."""
E5 = re.compile(r"(?<![a-z0-9])e5(?![a-z0-9])", re.IGNORECASE)
"""In names of models that were trained with prefixes and are published without prompts."""


def model_prefixes(name: str, folder: Path) -> dict[str, str]:
    """Read the prompts that sentence-transformers keeps beside the weights, by the names of the settings.

    Where the file has no prompt for one of the two, its default prompt stands for it, else nothing. A model that has no prompts
    but an E5 in its name is named in a warning.

    Raises:
        ConfigError: the file is no JSON object with prompts by name.
    """
    prompts, default = _read(folder / PROMPT_FILE) if (folder / PROMPT_FILE).is_file() else ({}, "")
    if not prompts and E5.search(name):
        logger.warning(
            "embed.model=%s: models of the E5 family need prefixes, and this one has none in its %s; set "
            "embed.passage_prefix='passage: ' and embed.question_prefix='query: '",
            name,
            PROMPT_FILE,
        )
    return {
        setting: next((prompts[prompt] for prompt in (*names, default) if prompt in prompts), "")
        for setting, names in PREFIXES.items()
    }


def _read(path: Path) -> tuple[dict[str, str], str]:
    """Return the prompts that are set, and the name of the default prompt."""
    try:
        settings: JsonValue = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as err:
        raise ConfigError(f"{path}: is not valid JSON ({err}); restore the file") from err
    prompts = (settings.get("prompts") or {}) if isinstance(settings, dict) else None
    if not isinstance(settings, dict) or not isinstance(prompts, dict):
        raise ConfigError(f"{path}: expected an object with prompts by name; restore the file")
    texts = {name: text for name, text in prompts.items() if isinstance(text, str)}
    return texts, str(settings.get("default_prompt_name") or "")
