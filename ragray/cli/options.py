"""What several commands share: arguments, options, how a result is printed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from ragray.jsontext import to_json
from ragray.text.checks import require_utf8

ConfigFile = Annotated[
    Path | None, typer.Option("--config", help="YAML file with a section a stage.", show_default=False)
]
Address = Annotated[
    str | None, typer.Option(help="Ray cluster to join, for instance auto or ray://HOST:10001.", show_default=False)
]
ExecutorOption = Annotated[
    Literal["ray", "local"],
    typer.Option("--executor", help="Where the work runs: a Ray cluster, or processes of this machine (without GPUs)."),
]
Overrides = Annotated[
    list[str] | None, typer.Argument(metavar="[section.key=value]...", help="`ragray config show` lists them.")
]
Out = Annotated[Path, typer.Option(help="Folder to write; run again after a crash to go on.", show_default=False)]
IndexArgument = Annotated[Path, typer.Argument(help="Folder that `ragray index build` wrote.", show_default=False)]
IndexOption = Annotated[
    Path, typer.Option("--index", help="Folder that `ragray index build` wrote.", show_default=False)
]
SnapshotOption = Annotated[
    str | None, typer.Option("--snapshot", help="Which snapshot.", show_default="the current one")
]
RunOption = Annotated[Path | None, typer.Option("--run", help="Folder that `ragray train` wrote.", show_default=False)]
EXAMPLE_FORMATS = (
    "jsonl (.gz, .zst), CSV, TSV, Parquet, SQuAD JSON, a JSON list, datasets on disk (file, folder, glob, URI)"
)
ExamplesOption = Annotated[
    str,
    typer.Option(
        help=f'Records {{"id", "question", "answers", "gold_ids"}} of {EXAMPLE_FORMATS}; examples.question_field=NAME and the like '
        "name other fields.",
        show_default=False,
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
ModeOption = Annotated[
    str | None, typer.Option("--mode", help="dense, lexical or hybrid.", show_default="retrieve.mode")
]
WhereOption = Annotated[
    str | None,
    typer.Option(
        "--where", help="Only passages that match, for instance: lang == en and year >= 2020", show_default=False
    ),
]


def retrieval(mode: str | None, where: str | None) -> list[str]:
    """Turn the options of a search into overrides.

    Raises:
        InputError: the filter cannot be written as UTF-8.
    """
    require_utf8(where or "", "--where")
    return [f"retrieve.{key}={value}" for key, value in (("mode", mode), ("where", where)) if value]


def say(text: str) -> None:
    """Print to stdout at once."""
    print(text, flush=True)


def took(report: Any) -> str:
    """Return how long a stage took, or that there was nothing to do."""
    return " (nothing to do)" if report.reused else f", {report.seconds:.1f} s"


def excerpt(title: str, text: str, width: int = 90) -> str:
    """Return how a passage begins, on one line."""
    whole = f"{title}: {text}" if title else text
    line = " ".join(whole.split())
    return line if len(line) <= width else line[: width - 1] + "…"


def say_json(value: object) -> None:
    """Print a value as JSON; any mapping becomes an object."""
    say(to_json(json.loads(json.dumps(value, default=dict)), "the result", indent=2))
