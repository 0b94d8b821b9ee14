"""`ragray index ...`: plan, build, change and maintain an index."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Literal

import typer

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
from ragray.errors import CorruptArtifactError, InputError

HELP = """Plan, build, change and look after an index.

An index holds immutable segments; a snapshot names some of them, and CURRENT names the snapshot that readers open. Whatever
changes an index adds a snapshot, so that `ragray index rollback` undoes it.
"""

index_app = typer.Typer(help=HELP, no_args_is_help=True, rich_markup_mode=None)

SnapshotOption = Annotated[
    str | None, typer.Option("--snapshot", help="Which snapshot.", show_default="the current one")
]


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


@index_app.command("snapshots")
def index_snapshots(index: IndexArgument, as_json: AsJson = False) -> None:
    """List the snapshots, oldest first; * marks the current one."""
    from ragray.index.store.lifecycle import list_snapshots

    found = list_snapshots(index)
    if as_json:
        say_json([asdict(info) for info in found])
        return
    for info in found:
        recall = "exact" if info.recall is None else f"recall@10 {info.recall:.3f}"
        facts = info.problem or (
            f"{info.created_at}  {info.num_live} rows, {info.num_deleted} deleted, {info.segments} segment(s)  {info.factory}  {recall}"
        )
        say(f"{'*' if info.is_current else ' '} {info.name}  {facts}")


@index_app.command("promote")
def index_promote(
    index: IndexArgument, name: Annotated[str, typer.Argument(help="Snapshot.", show_default=False)]
) -> None:
    """Make a snapshot the current one."""
    from ragray.index.store.lifecycle import promote

    promote(index, name)
    say(f"{index}: snapshot {name} is the current one")


@index_app.command("rollback")
def index_rollback(index: IndexArgument) -> None:
    """Make the parent of the current snapshot the current one."""
    from ragray.index.store.lifecycle import rollback

    say(f"{index}: snapshot {rollback(index)} is the current one")


@index_app.command("gc")
def index_gc(
    index: IndexArgument,
    keep: Annotated[int, typer.Option(help="Ancestors of the current snapshot to keep.", min=0)] = 2,
    min_age: Annotated[float, typer.Option(help="Hours for which a snapshot is kept anyhow.", min=0)] = 1,
) -> None:
    """Remove snapshots that nobody needs, with the segments that no other names."""
    from ragray.index.store.lifecycle import collect_garbage

    gone = collect_garbage(index, keep=keep, min_age_s=min_age * 3600)
    say(
        f"{index}: removed {len(gone.snapshots)} snapshot(s), {len(gone.segments)} segment(s), {gone.num_bytes / 2**20:.1f} MiB"
    )


@index_app.command("verify")
def index_verify(
    index: IndexArgument,
    snapshot: SnapshotOption = None,
    sample: Annotated[int, typer.Option(help="Passages to encode again and compare.", min=0)] = 0,
    as_json: AsJson = False,
) -> None:
    """Check counts, checksums, ids, text, lexical part and vectors against each other; print every problem and how to mend it."""
    from ragray.embed.load import load_encoder
    from ragray.index.check.verify import verify_index
    from ragray.index.store.snapshot import read_snapshot

    encoder = load_encoder(read_snapshot(index, snapshot).encoder_config) if sample else None
    report = verify_index(index, snapshot=snapshot, encoder=encoder, sample=sample)
    if as_json:
        say_json(asdict(report))
    else:
        for line in report.lines():
            say(line)
    if report.problems:
        raise CorruptArtifactError(f"{index}: {len(report.problems)} problem(s) found; see above how to mend each")


@index_app.command("inspect")
def index_inspect(
    index: IndexArgument,
    snapshot: SnapshotOption = None,
    plots: Annotated[
        Path | None, typer.Option(help="Folder for plots of list sizes and of recall against latency.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Print sizes, parameters, recall and list sizes of an index."""
    from ragray.index.check.inspect import inspect_index

    found = inspect_index(index, snapshot=snapshot)
    if as_json:
        say_json(found.as_json())
    else:
        for line in found.lines():
            say(line)
    if plots:
        from ragray.index.check.plots import write_plots

        for path in write_plots(found, plots):
            say(str(path))


@index_app.command("export")
def index_export(
    index: IndexArgument,
    out: Annotated[Path, typer.Option(help="Folder to write; it appears whole.", show_default=False)],
    format: Annotated[
        Literal["hf", "parquet"],
        typer.Option(
            help="hf: for `datasets` and `transformers`; parquet: embeddings with texts, for embedding-reader."
        ),
    ] = "hf",
    snapshot: SnapshotOption = None,
) -> None:
    """Write the live rows of an index for other programs."""
    from ragray.index.exchange.exporting import export_hf, export_parquet

    report = (export_hf if format == "hf" else export_parquet)(index, out, snapshot=snapshot)
    done = " (nothing to do)" if report.reused else ""
    say(f"{out}: {report.num_rows} rows of snapshot {report.snapshot}{done}")


@index_app.command("import")
def index_import(
    source: Annotated[Path, typer.Argument(help="Vectors: Parquet or npy, a file or a folder.", show_default=False)],
    out: Annotated[Path, typer.Option(help="Folder for OUT/embeddings and OUT/corpus.", show_default=False)],
    overrides: Overrides = None,
    corpus: Annotated[
        Path | None,
        typer.Option(
            help="Their passages in the same order: a corpus of ragray, or Parquet or jsonl; else in the source."
        ),
    ] = None,
    id_column: Annotated[str, typer.Option(help="Column of the ids.")] = "id",
    text_column: Annotated[str, typer.Option(help="Column of the texts.")] = "text",
    title_column: Annotated[str, typer.Option(help="Column of the titles.")] = "title",
    embedding_column: Annotated[str, typer.Option(help="Column of the vectors.")] = "embedding",
    sample: Annotated[int, typer.Option(help="Passages to encode again and compare.", min=0)] = 0,
    config: ConfigFile = None,
) -> None:
    """Take vectors made elsewhere; embed.model names the model that made them. `ragray index build` goes on from there."""
    from ragray.index.exchange.importing import import_embeddings

    report = import_embeddings(
        source,
        corpus,
        out,
        encoder_config=load_config(config, overrides or [], command="index import").embed,
        id_column=id_column,
        text_column=text_column,
        title_column=title_column,
        embedding_column=embedding_column,
        sample=sample,
    )
    done = " (nothing to do)" if report.reused else ""
    say(f"{out}: {report.num_rows} vectors of {report.dim} dimensions{done}")
    say(f"next: ragray index build {report.embeddings} --corpus {report.corpus} --out INDEX")


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
