"""`ragray index ...`: plan, build, change and maintain an index."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Literal

import typer

from ragray.cli.index_care import (
    index_gc,
    index_inspect,
    index_promote,
    index_rollback,
    index_snapshots,
    index_verify,
)
from ragray.cli.index_exchange import index_export, index_import
from ragray.cli.index_tune import index_tune
from ragray.cli.options import (
    Address,
    AsJson,
    ConfigFile,
    ExecutorOption,
    IndexArgument,
    Out,
    Overrides,
    say,
    say_json,
    took,
)
from ragray.config import load_config
from ragray.errors import InputError

HELP = """Plan, build, change and look after an index.

An index holds immutable segments; a snapshot names some of them, and CURRENT names the snapshot that readers open. Whatever
changes an index adds a snapshot, so that `ragray index rollback` undoes it.
"""

index_app = typer.Typer(help=HELP, no_args_is_help=True, rich_markup_mode=None)


@index_app.command("plan")
def index_plan(
    rows: Annotated[str, typer.Option(help="Passages, for instance 100M.", show_default=False)],
    dim: Annotated[int, typer.Option(help="Dimensions of a vector.", show_default=False, min=1)],
    memory: Annotated[str, typer.Option(help="Memory for the searched vectors, for instance 64GiB.")] = "",
    p95: Annotated[
        str, typer.Option(help="95th percentile of a search, its segments spread over threads, for instance 20ms.")
    ] = "",
    recall: Annotated[float, typer.Option(help="Recall@10 against exact search.", min=0, max=1)] = 0.95,
    as_json: AsJson = False,
) -> None:
    """Print which index fits a budget, what it costs, and why; reads and writes nothing."""
    from ragray.index.plan.choose import parse_budget, plan

    found = plan(parse_budget(rows, dim, memory=memory, p95=p95, recall=recall))
    if as_json:
        say_json(asdict(found))
        return
    for line in found.lines():
        say(line)


@index_app.command("build")
def index_build(
    embeddings: Annotated[Path, typer.Argument(help="Folder that `ragray embed` wrote.", show_default=False)],
    corpus: Annotated[Path, typer.Option(help="Folder that `ragray ingest` wrote.", show_default=False)],
    out: Out,
    overrides: Overrides = None,
    config: ConfigFile = None,
    address: Address = None,
    executor: ExecutorOption = "ray",
) -> None:
    """Build the segments of an index and publish a snapshot of them."""
    from ragray.api import build_index

    settings = load_config(config, overrides or [], command="index build")
    report = build_index(embeddings, corpus, out, settings, address=address, executor=executor)
    found = report.snapshot
    recall = "exact" if found.recall_at_10 is None else f"recall@10 {found.recall_at_10:.3f} against exact search"
    say(
        f"{out}: snapshot {found.name}, {found.num_rows} rows in {len(found.segments)} segment(s), {found.factory}, {recall} "
        f"({report.reason}){took(report)}"
    )


@index_app.command("sync")
def index_sync(
    index: IndexArgument,
    corpus: Annotated[Path, typer.Argument(help="The new corpus, from `ragray ingest`.", show_default=False)],
    overrides: Overrides = None,
    config: ConfigFile = None,
    address: Address = None,
    executor: Annotated[
        Literal["ray", "local"] | None,
        typer.Option(
            help="Where passages are embedded: on a Ray cluster, or by processes of this machine (without GPUs).",
            show_default="local where there is no cluster to join, else ray",
        ),
    ] = None,
) -> None:
    """Make an index hold another corpus: embeds what is new or changed, hides what is gone, keeps the rest.

    Without --address or RAY_ADDRESS processes of this machine embed, and no Ray cluster is started.
    """
    from ragray.api import sync_index

    settings = load_config(config, overrides or [], command="index sync")
    report = sync_index(index, corpus, settings, address=address, executor=executor)
    refused = f", {report.quarantined} refused by the encoder" if report.quarantined else ""
    say(
        f"{index}: snapshot {report.snapshot.name}, {report.added} added, {report.changed} changed, {report.deleted} deleted, "
        f"{report.unchanged} unchanged, {report.embedded} embedded{refused}{took(report)}"
    )


@index_app.command("delete")
def index_delete(
    index: IndexArgument,
    ids: Annotated[
        list[str] | None, typer.Option("--id", help="Passage or document; may be repeated.", show_default=False)
    ] = None,
    ids_file: Annotated[Path | None, typer.Option("--ids", help="File with an id a line.", show_default=False)] = None,
    where: Annotated[str, typer.Option(help="Whatever matches, for instance: lang == de and year < 2000")] = "",
) -> None:
    """Hide passages from every search, at once; `ragray index compact` then forgets them."""
    from ragray.index.write.delete import delete_passages

    if not (ids or ids_file or where):
        raise InputError("index delete: say what to delete with --id, --ids or --where")
    report = delete_passages(index, ids=[*(ids or []), *_lines(ids_file)], where=where)
    say(f"{index}: {report.message}")


@index_app.command("compact")
def index_compact(
    index: IndexArgument,
    overrides: Overrides = None,
    config: ConfigFile = None,
    address: Address = None,
    executor: ExecutorOption = "ray",
) -> None:
    """Write the segments anew without deleted rows; `ragray index gc` then frees the old ones."""
    from ragray.api import compact_index

    settings = load_config(config, overrides or [], command="index compact")
    report = compact_index(index, settings, address=address, executor=executor)
    found = report.snapshot
    say(
        f"{index}: snapshot {found.name}, {found.num_live} rows in {len(found.segments)} segment(s), "
        f"{report.num_forgotten} forgotten ({report.reason}){took(report)}"
    )


for command, function in (
    ("tune", index_tune),
    *(("snapshots", index_snapshots), ("promote", index_promote), ("rollback", index_rollback), ("gc", index_gc)),
    *(("verify", index_verify), ("inspect", index_inspect), ("export", index_export), ("import", index_import)),
):
    index_app.command(command)(function)


def _lines(path: Path | None) -> list[str]:
    if path is None:
        return []
    try:
        lines = [line.strip() for line in path.read_text(encoding="utf-8-sig").splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as err:
        raise InputError(f"{path}: cannot be read as a text file with an id a line ({err}); check --ids") from err
    if not lines:
        raise InputError(f"{path}: is empty; expected an id a line")
    return lines
