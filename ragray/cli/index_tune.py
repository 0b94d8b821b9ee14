"""`ragray index tune`. In: judged queries. Out: the table of what was measured, and what was written, as text or JSON."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ragray.cli.options import EXAMPLE_FORMATS, AsJson, ConfigFile, IndexArgument, Overrides, RunOption, say, say_json
from ragray.config import Config, load_config
from ragray.errors import InputError

if TYPE_CHECKING:
    from ragray.evaluate.judged import JudgedQueries
    from ragray.stages.tune import TuneReport


def index_tune(
    index: IndexArgument,
    overrides: Overrides = None,
    queries: Annotated[
        Path | None, typer.Option(help='JSONL lines {"id", "text"}; with --qrels.', show_default=False)
    ] = None,
    qrels: Annotated[
        Path | None,
        typer.Option(help="Tab-separated: query, document, relevance; with or without a header.", show_default=False),
    ] = None,
    examples: Annotated[
        str | None,
        typer.Option(
            help=f'Instead of these two: records {{"id", "question", "answers", "gold_ids"}} of {EXAMPLE_FORMATS}.',
            show_default=False,
        ),
    ] = None,
    k: Annotated[
        int | None,
        typer.Option(
            "--k",
            help="Passages per question to write too. No measure of retrieval can choose it, because recall only grows with it while "
            "answers take longer: read the last line, then run again with --k.",
            min=1,
            max=1000,
            show_default="as it is",
        ),
    ] = None,
    run: RunOption = None,
    as_json: AsJson = False,
    config: ConfigFile = None,
) -> None:
    """Fit hybrid search to a corpus: the weight of the dense scores, and how many candidates each search gives.

    Measures lexical, dense and hybrid search on your judged queries, each query encoded and searched for once. The values that
    fit are judged by cross-validation, on queries that they were not chosen with. Only if they gain clearly over the defaults
    (95% interval of the difference above 0) a new snapshot holds them, else the defaults hold; `ragray index rollback` undoes it.
    sync, delete and compact keep them, a new build does not.

    A search uses what is given to it (retrieve.dense_weight, retrieve.candidates, retrieve.k, in a file or as an override), else
    what the run says, else what the snapshot was tuned to, else the defaults. At least 20 queries are needed; 250 tell nDCG@10 to
    about +-0.05.
    """
    from ragray.stages.tune import tune_index

    settings = load_config(config, overrides or [], command="index tune")
    report = tune_index(index, _judged(queries, qrels, examples, settings), settings, run=run, k=k)
    if as_json:
        say_json(report.to_json())
        return
    for line in _lines(index, report):
        say(line)


def _judged(queries: Path | None, qrels: Path | None, examples: str | None, settings: Config) -> JudgedQueries:
    """Read what the options name.

    Raises:
        InputError: they name not exactly one kind, or what they name cannot be used.
    """
    from ragray.evaluate.judged import judged_by_examples, judged_by_qrels
    from ragray.examples import read_examples

    if examples and not (queries or qrels):
        return judged_by_examples(read_examples(examples, settings.examples), examples)
    if queries and qrels and not examples:
        return judged_by_qrels(queries, qrels)
    raise InputError("index tune: give either --queries and --qrels, or --examples with gold_ids")


def _lines(index: Path, report: TuneReport) -> list[str]:
    names = list(report.rows["default"])
    width = max(map(len, _LABELS.values()))
    table = [f"{'':{width}}  " + "  ".join(f"{name:<20}" for name in names)]
    for row, figures in report.rows.items():
        cells = (f"{one.mean:.3f} [{one.interval[0]:.3f}, {one.interval[1]:.3f}]" for one in figures.values())
        table.append(f"{_LABELS[row]:{width}}  " + "  ".join(f"{cell:<20}" for cell in cells))
    recall = ", ".join(f"{value:.3f} at {k}" for k, value in report.recall_at.items())
    return [
        f"{report.num_queries} queries, means with 95% intervals",
        *(line.rstrip() for line in table),
        _verdict(report),
        f"recall by passages per question (k): {recall}",
        f"{index}: {_outcome(report)}",
    ]


_LABELS = {"lexical": "lexical", "dense": "dense", "default": "hybrid, default", "tuned": "hybrid, tuned (held out)"}


def _verdict(report: TuneReport) -> str:
    """Return what is fitted, and whether it gains."""
    found = report.fit
    weight, candidates = found.best
    low, high = found.edges
    least, most = found.weights
    folds = f"{least:g}" if least == most else f"{least:g} to {most:g}"
    said = (
        f"fitted: dense_weight {weight:g} ({folds} in the folds), candidates {candidates}; tuned over default, query by query: "
        f"nDCG@10 {found.gain:+.4f} [{low:+.4f}, {high:+.4f}]"
    )
    if found.clear:
        return f"{said}: a clear gain"
    more = f"; a gain of this size would be clear with about {found.enough:,} queries" if found.enough else ""
    return f"{said}: no clear gain, the defaults hold{more}"


def _outcome(report: TuneReport) -> str:
    holds = f"tuned to {report.chosen}" if report.chosen else "not tuned"
    if not report.published:
        return f"snapshot {report.snapshot} stays current, {holds}"
    return f"snapshot {report.snapshot} is current, {holds}; ragray index rollback undoes it"
