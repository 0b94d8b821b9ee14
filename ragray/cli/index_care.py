"""The commands that look after an index: its snapshots, what is wrong with it, what it holds."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from ragray.cli.options import AsJson, IndexArgument, SnapshotOption, say, say_json
from ragray.errors import CorruptArtifactError


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
            f"{f'  hybrid tuned to {info.fusion}' if info.fusion else ''}"
        )
        say(f"{'*' if info.is_current else ' '} {info.name}  {facts}")


def index_promote(
    index: IndexArgument, name: Annotated[str, typer.Argument(help="Snapshot.", show_default=False)]
) -> None:
    """Make a snapshot the current one."""
    from ragray.index.store.lifecycle import promote

    promote(index, name)
    say(f"{index}: snapshot {name} is the current one")


def index_rollback(index: IndexArgument) -> None:
    """Make the parent of the current snapshot the current one."""
    from ragray.index.store.lifecycle import rollback

    say(f"{index}: snapshot {rollback(index)} is the current one")


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
