"""The page of all settings. In: nothing. Out: `docs/configuration.md` on stdout, by `python -m ragray.config.table`."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator

from pydantic import JsonValue

from ragray.config.files import known_keys
from ragray.config.meaning import field, meaning
from ragray.config.renamed import AMBIGUOUS, RENAMED
from ragray.config.sections import Config
from ragray.config.usage import FIXED_BY_RUN, FROM_RUN, USED, WITH_RUN, WITHOUT_SETTINGS, used

PIPE = r"\|"
"""A vertical line within a cell of a markdown table."""

EVERY = ("*",)
"""Pattern of a command that uses all settings."""

WORDS = {"string": "text", "boolean": "true or false", "integer": "integer", "number": "number"}
"""Types of JSON schema in words."""

JOBS = {
    "embed_corpus.py": ("ingest", "embed"),
    "build_index.py": ("index build",),
    "sync_index.py": ("ingest", "index sync"),
    "train_rag.py": ("train",),
    "evaluate.py": ("evaluate",),
}
"""Jobs, and the commands whose settings they take."""


def page() -> str:
    """Return the page as markdown."""
    by_command = (block for command, patterns in USED.items() if patterns != EVERY for block in _command(command))
    by_section = (block for section in Config.model_fields for block in _section(section))
    return "\n\n".join([*_introduction(), "# By section", *by_section, "# By command", *by_command]) + "\n"


def _introduction() -> Iterator[str]:
    yield "<!-- Made by `make docs` from ragray/config; a test compares. Do not edit. -->\n# Settings"
    yield (
        "A setting is a key in a section. Its value comes from three places; the first that names the key decides:\n\n"
        "1. an override on the command line, `section.key=value`; the last one counts where a key is given twice. "
        "Options such as `--workers`, `--mode` and `--where` are overrides of the settings that their help names;\n"
        "2. the YAML file that `--config` names, with one block per section;\n"
        "3. the default below."
    )
    yield "```\nragray train --index work/index --examples train.jsonl --out work/run --config mine.yaml train.epochs=3\n```"
    yield "```yaml\n# mine.yaml\nretrieve:\n  k: 4\ntrain:\n  epochs: 2\n```"
    yield (
        "An unknown key and a value of the wrong type or out of range end the command with an error that "
        "names the file and line, or the override. A key that was renamed is taken under its present name, and the log says so, "
        f"but for {_codes(sorted(AMBIGUOUS))}, which are errors. A file may hold settings of several commands. An override that "
        "has no effect in the command is named in the log. `ragray config show` prints the settings in force, `ragray config schema` a "
        "JSON schema for editors."
    )
    yield (
        f"A run records the settings that it was trained with. {_commands(WITH_RUN)} with `--run` use them. {_codes(FIXED_BY_RUN)} "
        f"are always those of the run; the log names a given value that differs. {_codes(FROM_RUN)} are those of the run unless they "
        "are given, in the file or as an override; the log names a value that differs. Training searches all passages by "
        "vectors, so that a run records `retrieve.mode=dense` without filter and reranker; so does a run of an earlier version, which "
        "records none of the three. No other setting is taken from a run. An index records its encoder in the same way: what searches "
        "it takes the section `embed` from the index unless `embed.model` is given, which must be the same encoder."
    )
    yield (
        f"{_commands(name for name, patterns in USED.items() if patterns == EVERY)} take all settings. "
        f"{_commands(WITHOUT_SETTINGS)} take options alone. A job takes the settings of its commands: "
        + ", ".join(f"`jobs/{job}` those of {_commands(commands)}" for job, commands in JOBS.items())
        + ". `serve deploy` takes those of `ragray serve`, but for what the Serve file sets itself: host, port and numbers of "
        "replicas."
    )
    yield _table(("renamed key", "present key"), [(f"`{old}`", f"`{new}`") for old, new in RENAMED.items()])


def _section(section: str) -> Iterator[str]:
    model = type(getattr(Config(), section))
    yield f"## {section}\n\n{' '.join(str(model.__doc__).split())}"
    rows = []
    for name in model.model_fields:
        key = f"{section}.{name}"
        commands = [command for command, patterns in USED.items() if patterns != EVERY and used(command, key)]
        rows.append((f"`{key}`", _type(key), _default(key), field(key).description or "", ", ".join(commands)))
    yield _table(("setting", "type", "default", "meaning", "used by"), rows)


def _command(command: str) -> Iterator[str]:
    yield f"## ragray {command}"
    keys = [key for key in known_keys() if used(command, key)]
    rows = [(f"`{key}`", _type(key), _default(key), meaning(command, key)) for key in keys]
    yield _table(("setting", "type", "default", "what it does here"), rows)


def _table(heading: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    lines = [heading, ("---",) * len(heading), *rows]
    return "\n".join(f"| {' | '.join(cell.replace('|', PIPE) for cell in line)} |" for line in lines)


def _default(key: str) -> str:
    default = field(key).default
    return "empty" if default in ("", ()) else f"`{json.dumps(default)}`"


def _type(key: str) -> str:
    """Return the type of a setting in words, with its limits."""
    section, _, name = key.partition(".")
    schema = type(getattr(Config(), section)).model_json_schema()["properties"][name]
    return _in_words(schema)


def _in_words(schema: dict[str, JsonValue]) -> str:
    if choices := _choices(schema):
        return ", ".join(f"`{choice}`" for choice in choices)
    kind = str(schema["type"])
    items = schema.get("items")
    if isinstance(items, dict):
        return f"list of {WORDS[str(items['type'])]}s{_limits(items)}"
    return f"{WORDS[kind]}{_limits(schema)}"


def _choices(schema: dict[str, JsonValue]) -> list[JsonValue]:
    """Return the values that a setting may have, where they are listed."""
    parts = schema.get("anyOf", [schema])
    found: list[JsonValue] = []
    for part in parts if isinstance(parts, list) else []:
        if isinstance(part, dict):
            listed = part.get("enum", [part["const"]] if "const" in part else [])
            found += listed if isinstance(listed, list) else []
    return found


def _limits(schema: dict[str, JsonValue]) -> str:
    least, most, above = (schema.get(name) for name in ("minimum", "maximum", "exclusiveMinimum"))
    if least is not None and most is not None:
        return f", {least} to {most}"
    lower = f", at least {least}" if least is not None else f", above {above}" if above is not None else ""
    return lower + (f", at most {most}" if most is not None else "")


def _codes(names: Iterable[str]) -> str:
    quoted = [f"`{name}`" for name in names]
    return " and ".join(filter(None, (", ".join(quoted[:-1]), quoted[-1])))


def _commands(names: Iterable[str]) -> str:
    return _codes(f"ragray {name}" for name in names)


if __name__ == "__main__":
    print(page(), end="")
