"""A model's pooling. In: a model folder. Out: `mean`, `cls`, `lasttoken` or `pooler`, or an error where it has another."""

from __future__ import annotations

import json
from pathlib import Path

from pydantic import JsonValue

from ragray.errors import ConfigError

KNOWN_MODULES = ("Transformer", "Pooling", "Normalize")
KNOWN_POOLINGS = {
    "cls": "cls",
    "cls_token": "cls",
    "mean": "mean",
    "mean_tokens": "mean",
    "lasttoken": "lasttoken",
}
MODE = "pooling_mode"
POOLING_FILE = "1_Pooling/config.json"
OWN = "pooler"
"""The pooling of DPR: the model's class itself makes the vector of a text."""


def pooling_and_size(folder: Path, pooling: str) -> tuple[str, int]:
    """Return the pooling of a model, where ``pooling`` is `auto`, and the dimensions of its vectors.

    Raises:
        ConfigError: the pooling is one that ragray does not compute, or another than a model of DPR has; the folder holds a whole
            RAG model.
    """
    config = _settings(folder / "config.json")
    kind, size = config.get("model_type"), int(str(config.get("hidden_size", 0)))
    if kind == "rag":
        raise ConfigError(
            f"{folder}: is a RAG model, which holds no passage encoder; name the encoder of its passages in embed.model and this "
            "folder in embed.question_model"
        )
    if kind != "dpr":
        return (model_pooling(folder) if pooling == "auto" else pooling), size
    if pooling != "auto":
        raise ConfigError(
            f"embed.pooling={pooling}: {folder} is a model of DPR, which has a pooling of its own; set auto"
        )
    return OWN, int(str(config.get("projection_dim") or size))


def model_pooling(folder: Path) -> str:
    """Read the pooling that sentence-transformers wrote beside the weights; without such a file, mean.

    Raises:
        ConfigError: the pooling is one that ragray does not compute, or several at once.
    """
    path = folder / POOLING_FILE
    if not path.is_file():
        return "mean"
    modes = _modes(_settings(path))
    if len(modes) != 1 or modes[0] not in KNOWN_POOLINGS:
        raise ConfigError(
            f"{path}: the model pools by {' and '.join(modes) or 'nothing'}, ragray by cls, mean or lasttoken; choose another "
            "embed.model, or set embed.pooling and get other vectors than the model was made for"
        )
    return KNOWN_POOLINGS[modes[0]]


def require_prompt_pooled(folder: Path) -> None:
    """Refuse a model that leaves the tokens of its prompt out of the pooling, as Instructor does.

    Raises:
        ConfigError: names the file.
    """
    path = folder / POOLING_FILE
    if path.is_file() and _settings(path).get("include_prompt") is False:
        raise ConfigError(
            f"{path}: the model pools without the tokens of its prompt (include_prompt), which ragray does not; choose another "
            "embed.model, or set embed.passage_prefix='' and embed.question_prefix=''"
        )


def _settings(path: Path) -> dict[str, JsonValue]:
    settings = _read(path)
    if not isinstance(settings, dict):
        raise ConfigError(f"{path}: holds no JSON object; restore the file, or set embed.pooling")
    return settings


def _modes(settings: dict[str, JsonValue]) -> list[str]:
    """List the pooling modes that are switched on; older files hold a flag for each, newer ones a name."""
    named = settings.get(MODE)
    names = named if isinstance(named, list) else [named] if named else []
    flags = [key.removeprefix(f"{MODE}_") for key, on in settings.items() if key.startswith(f"{MODE}_") and on is True]
    return [str(name) for name in names] or flags


def require_known_modules(folder: Path) -> None:
    """Refuse a sentence-transformers folder that does more than transform, pool and normalise.

    Raises:
        ConfigError: names the first other module.
    """
    path = folder / "modules.json"
    modules = _read(path) if path.is_file() else []
    for module in modules if isinstance(modules, list) else []:
        kind = str(module.get("type", "")) if isinstance(module, dict) else str(module)
        if kind.rpartition(".")[2] not in KNOWN_MODULES:
            raise ConfigError(
                f"{path}: the model has a module {kind}, ragray knows {', '.join(KNOWN_MODULES)}; choose another embed.model"
            )


def _read(path: Path) -> JsonValue:
    try:
        value: JsonValue = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as err:
        raise ConfigError(f"{path}: is not valid JSON ({err}); restore the file") from err
    return value
