"""Reading configuration. In: a YAML file with a section per stage, `section.key=value` overrides. Out: one checked `Config`."""

from __future__ import annotations

import difflib
import logging
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import yaml
from pydantic import BaseModel, JsonValue, ValidationError
from pydantic.fields import FieldInfo

from ragray.config.renamed import AMBIGUOUS, RENAMED
from ragray.config.sections import Config
from ragray.config.tasks import with_task
from ragray.config.usage import without_effect
from ragray.errors import ConfigError

logger = logging.getLogger("ragray")


def known_keys() -> Iterator[str]:
    """Yield every `section.key`."""
    for section in Config.model_fields:
        for key in _fields(section):
            yield f"{section}.{key}"


def _fields(section: str) -> dict[str, FieldInfo]:
    model = Config.model_fields[section].annotation
    return model.model_fields if isinstance(model, type) and issubclass(model, BaseModel) else {}


def load_config(path: Path | None = None, overrides: Sequence[str] = (), *, command: str = "") -> Config:
    """Read a YAML file, apply `section.key=value` overrides, check everything.

    With ``command``, the log names the overrides that change nothing in that command; a file may serve several commands.

    Raises:
        ConfigError: names the file with the line, or the override, the key, and the nearest known key or the allowed values.
    """
    merged = {} if path is None else _read_file(path)
    overridden = []
    for override in overrides:
        section, key, value = _parse_override(override)
        merged.setdefault(section, {})[key] = value
        overridden.append((section, key))
    try:
        config = Config.model_validate(with_task(merged))
    except ValidationError as err:
        raise ConfigError(_describe(err, path, overridden)) from err
    for sentence in without_effect(command, config, (".".join(key) for key in overridden)):
        logger.warning("%s", sentence)
    return config


def _read_file(path: Path) -> dict[str, dict[str, JsonValue]]:
    text = _read_text(path)
    try:
        raw = yaml.safe_load(text)
        lines = _lines(text)
    except yaml.YAMLError as err:
        mark = getattr(err, "problem_mark", None)
        line = f":{mark.line + 1}" if mark else ""
        raise ConfigError(f"{path}{line}: is not valid YAML ({getattr(err, 'problem', err)}); mend that line") from err
    if raw is None:
        return {}
    if not isinstance(raw, dict):
        raise ConfigError(f"{path}: holds a {type(raw).__name__}, expected sections such as 'embed:' and 'train:'")
    merged: dict[str, dict[str, JsonValue]] = {}
    for name, values in raw.items():
        for (section, key), value in _checked_section(path, str(name), values, lines).items():
            if key in merged.setdefault(section, {}):
                raise ConfigError(f"{path}: {section}.{key} is given twice, once under its earlier name; remove one")
            merged[section][key] = value
    return merged


def _read_text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except OSError as err:
        raise ConfigError(f"{path}: cannot be read ({err.strerror}); check the path given with --config") from err
    except UnicodeDecodeError as err:
        raise ConfigError(f"{path}: is not UTF-8 at byte {err.start}; convert the file") from err


def _lines(text: str) -> dict[str, int]:
    """Return the line of every section and of every ``section.key`` in a YAML text; keys that a merge (`<<`) brings have none."""
    lines: dict[str, int] = {}
    root = yaml.compose(text, Loader=yaml.SafeLoader)
    for section, values in root.value if isinstance(root, yaml.MappingNode) else []:
        lines[str(section.value)] = section.start_mark.line + 1
        for key, _ in values.value if isinstance(values, yaml.MappingNode) else []:
            lines[f"{section.value}.{key.value}"] = key.start_mark.line + 1
    return lines


def _checked_section(
    path: Path, section: str, values: JsonValue, lines: Mapping[str, int]
) -> dict[tuple[str, str], JsonValue]:
    def where(name: str) -> str:
        return f"{path}:{lines[name]}" if name in lines else str(path)

    if section not in Config.model_fields:
        raise ConfigError(
            f"{where(section)}: unknown section '{section}'{_nearest(section, list(Config.model_fields))}"
        )
    if values is None:
        return {}
    if not isinstance(values, dict):
        raise ConfigError(
            f"{where(section)}: section '{section}' holds a {type(values).__name__}, expected lines of the form key: value"
        )
    return {_present_key(f"{section}.{key}", where(f"{section}.{key}")): value for key, value in values.items()}


def _parse_override(override: str) -> tuple[str, str, JsonValue]:
    dotted, equals, text = override.partition("=")
    section, dot, key = dotted.strip().partition(".")
    if not equals or not dot:
        raise ConfigError(f"override '{override}' is not of the form section.key=value, for instance train.epochs=3")
    section, key = _present_key(f"{section}.{key}", "override")
    try:
        value: JsonValue = yaml.safe_load(text)
    except yaml.YAMLError:
        value = text
    return section, key, text if _fields(section)[key].annotation is str else value


def _present_key(dotted: str, where: str) -> tuple[str, str]:
    """Return section and key of a known key, or of the one that an earlier key became."""
    if dotted in AMBIGUOUS:
        raise ConfigError(f"{where}: {dotted} is now {RENAMED[dotted]}; rename it")
    if dotted in RENAMED:
        logger.warning("%s: %s is now %s and taken for it; rename it", where, dotted, RENAMED[dotted])
        dotted = RENAMED[dotted]
    keys = list(known_keys())
    if dotted not in keys:
        raise ConfigError(
            f"{where}: unknown key '{dotted}'{_nearest(dotted, keys)}; `ragray config show` lists all keys"
        )
    section, _, key = dotted.partition(".")
    return section, key


def _nearest(word: str, known: list[str]) -> str:
    """Name the nearest known key; the part after the dot is compared first, so that a key in the wrong section is found."""
    leaf = word.rpartition(".")[2]
    same_leaf = [key for key in known if key.rpartition(".")[2] == leaf]
    close = same_leaf or difflib.get_close_matches(word, known, n=1, cutoff=0.5)
    return f", did you mean '{close[0]}'?" if close else f" (known: {', '.join(known)})" if len(known) < 12 else ""


def _describe(err: ValidationError, path: Path | None, overridden: Sequence[tuple[str, str]]) -> str:
    first = err.errors()[0]
    key = ".".join(str(part) for part in first["loc"])
    part = first["loc"][:2]
    where = "override" if any(one[: len(part)] == part for one in overridden) else path or "configuration"
    found = "" if isinstance(first["input"], dict | BaseModel) else f" (found {first['input']!r})"
    return f"{where}: {key}: {first['msg'].removeprefix('Value error, ')}{found}; see `ragray config show`"


def to_yaml(config: Config) -> str:
    """Return a configuration as YAML that `load_config` reads back, each key with its meaning beside it."""
    lines: list[str] = []
    for section, values in config.model_dump(mode="json").items():
        fields = type(getattr(config, section)).model_fields
        lines.append(f"{section}:")
        for key, value in values.items():
            text = yaml.safe_dump(value, default_flow_style=True, width=10_000).strip().removesuffix("...").strip()
            lines.append(f"  {key}: {text}  # {fields[key].description}")
        lines.append("")
    return "\n".join(lines)
