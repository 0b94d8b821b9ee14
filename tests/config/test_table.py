"""`docs/configuration.md`: up to date, complete, and what it says of each setting in each command."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer

import ragray
from ragray.cli import app
from ragray.config import Config, known_keys
from ragray.config.meaning import IN_COMMAND, field, meaning
from ragray.config.table import JOBS, page
from ragray.config.usage import FIXED_BY_RUN, FROM_RUN, USED, WARNED_BY_STAGE, WITH_RUN, WITHOUT_SETTINGS, used

ROOT = Path(ragray.__file__).parents[1]
PAGE = page()
KEYS = list(known_keys())
COMMANDS = [command for command, patterns in USED.items() if patterns != ("*",)]


def tables(title: str) -> dict[str, list[list[str]]]:
    """The rows of every table below a chapter, by heading, without the heading row."""
    chapter = PAGE.partition(f"\n# {title}\n")[2].partition("\n# ")[0]
    found: dict[str, list[list[str]]] = {}
    for block in chapter.split("\n## ")[1:]:
        heading, _, rest = block.partition("\n")
        lines = [line for line in rest.splitlines() if line.startswith("| `")]
        found[heading] = [[cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in lines]
    return found


def leaves(group: Any = None, path: tuple[str, ...] = ()) -> Iterator[tuple[str, Any]]:
    """Every command of the command line under the words that call it."""
    group = group or typer.main.get_command(app)
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from leaves(command, (*path, name))
        else:
            yield " ".join((*path, name)), command


def test_the_file_is_the_page_that_is_made_now() -> None:
    assert (ROOT / "docs" / "configuration.md").read_text(encoding="utf-8") == PAGE, "run: make docs"


def test_every_setting_is_in_its_section_with_type_default_and_meaning() -> None:
    found = tables("By section")
    assert list(found) == list(Config.model_fields)
    rows = [row for rows in found.values() for row in rows]
    assert [row[0].strip("`") for row in rows] == KEYS
    for key, kind, default, meant, commands in rows:
        assert kind, key
        assert default, key
        assert meant.replace("\\|", "|") == field(key.strip("`")).description
        assert commands.split(", ") == [command for command in COMMANDS if used(command, key.strip("`"))]


def test_every_command_has_a_table_of_exactly_the_settings_that_it_uses() -> None:
    found = tables("By command")
    assert list(found) == [f"ragray {command}" for command in COMMANDS]
    for command in COMMANDS:
        rows = found[f"ragray {command}"]
        assert [row[0].strip("`") for row in rows] == [key for key in KEYS if used(command, key)]
        assert [row[3].replace("\\|", "|") for row in rows] == [meaning(command, row[0].strip("`")) for row in rows]


def test_every_command_of_the_command_line_is_on_the_page() -> None:
    takes_settings = {
        name: any(str(getattr(one, "metavar", "")).endswith("[section.key=value]...") for one in command.params)
        for name, command in leaves()
    }
    assert {name for name, takes in takes_settings.items() if takes} == set(USED)
    assert {name for name, takes in takes_settings.items() if not takes} == set(WITHOUT_SETTINGS)
    assert [name for name in takes_settings if f"ragray {name}" not in PAGE] == []


def test_every_job_is_on_the_page() -> None:
    assert {path.name for path in (ROOT / "jobs").glob("*.py")} == set(JOBS)
    assert {command for commands in JOBS.values() for command in commands} <= set(USED)


def test_what_is_said_of_a_setting_in_a_command_is_said_of_one_that_it_uses() -> None:
    assert [pair for pair in IN_COMMAND if pair[0] not in USED or pair[1] not in KEYS or not used(*pair)] == []
    of_runs = [*FIXED_BY_RUN, *FROM_RUN, *(key for keys in WARNED_BY_STAGE.values() for key in keys)]
    assert set(of_runs) <= set(KEYS)
    assert [
        (command, key) for command in WITH_RUN for key in (*FIXED_BY_RUN, *FROM_RUN) if not used(command, key)
    ] == []


@pytest.mark.parametrize(
    ("key", "kind", "default"),
    [
        ("ingest.languages", "list of texts", "empty"),
        ("index.type", "`auto`, `flat`, `ivf`, `ivf_sq`, `ivf_pq`, `ivf_rabitq`, `hnsw`", '`"auto"`'),
        ("index.lexical", "`none`, `plain`, `english`", '`"english"`'),
        ("retrieve.k", "integer, 1 to 1000", "`3`"),
        ("generate.passage_temperature", "number, above 0", "`0.05`"),
        ("ingest.max_symbol_ratio", "number, above 0, at most 1", "`1`"),
        ("embed.normalize", "true or false", "`true`"),
        ("evaluate.recall_at", "list of integers, above 0", "`[1, 5, 20]`"),
    ],
)
def test_types_are_in_words_and_defaults_as_they_are_written(key: str, kind: str, default: str) -> None:
    [row] = [row for row in tables("By section")[key.partition(".")[0]] if row[0] == f"`{key}`"]
    assert row[1:3] == [kind, default]


@pytest.mark.parametrize(
    ("command", "key", "said"),
    [
        ("train", "retrieve.k", "passages per example that the loss is marginalised over"),
        ("serve", "retrieve.num_replicas", "copies of the Retriever deployment"),
        ("train", "retrieve.num_replicas", "copies of every shard"),
        ("search", "embed.pooling", "has an effect only with embed.model"),
        ("train", "train.lora_rank", "has an effect only with train.tune=lora"),
        ("train", "train.gold_share", "has an effect only with generate.strategy=together"),
        ("train", "train.encoder_lr", "has an effect only with generate.strategy=marginal"),
        ("ask", "retrieve.mode", "with a run: as it was trained, unless given"),
        ("evaluate", "generate.instruction", "with a run: always as it was trained"),
    ],
)
def test_a_setting_is_described_as_what_it_does_in_the_command(command: str, key: str, said: str) -> None:
    assert said in meaning(command, key)


def test_descriptions_and_notes_are_in_plain_professional_words() -> None:
    """Rates are "per"; neither a description nor a note ends in a full stop, as both stand in cells and comments."""
    texts = {key: field(key).description or "" for key in KEYS} | {
        " ".join(pair): IN_COMMAND[pair] for pair in IN_COMMAND
    }
    rate = re.compile(
        r"\b(passages|examples|tokens|batches|steps|rows) an? (question|worker|batch|epoch|shard|block|step|segment)\b"
    )
    assert [where for where, text in texts.items() if rate.search(text) or text.endswith(".") or not text] == []
