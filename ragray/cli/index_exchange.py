"""The commands that exchange indexes, vectors and runs with other programs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from ragray.cli.options import ConfigFile, IndexArgument, IndexOption, Out, Overrides, SnapshotOption, say
from ragray.config import load_config


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


run_app = typer.Typer(help="Exchange runs with `transformers`.", no_args_is_help=True, rich_markup_mode=None)


@run_app.command("import")
def run_import(
    model: Annotated[str, typer.Argument(help="RAG model: local folder or hub id.", show_default=False)],
    index: IndexOption,
    out: Out,
    overrides: Overrides = None,
    config: ConfigFile = None,
) -> None:
    """Make a run of a RAG model of `transformers`, such as facebook/rag-sequence-nq, for an index of its passage encoder's vectors."""
    from ragray.stages.rag_layout import import_rag

    report = import_rag(model, index, out, load_config(config, overrides or [], command="run import"))
    say(_told(report.folder, report.marginalize, report.k, report.reused))


@run_app.command("export")
def run_export(
    run: Annotated[Path, typer.Argument(help="Folder that `ragray train` wrote.", show_default=False)],
    out: Annotated[Path, typer.Option(help="Folder to write.", show_default=False)],
    format: Annotated[Literal["rag"], typer.Option(help="rag: as the RAG classes of `transformers` load it.")] = "rag",
) -> None:
    """Write question encoder and generator of a run as one RAG model that `transformers` loads."""
    from ragray.stages.rag_layout import export_rag

    report = export_rag(run, out)
    say(_told(report.folder, report.marginalize, report.k, report.reused))


def _told(folder: Path, marginalize: str, k: int, reused: bool) -> str:
    return f"{folder}: RAG-{marginalize.capitalize()}, {k} passages per question{' (nothing to do)' if reused else ''}"
