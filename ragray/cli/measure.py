"""The commands that measure: answers, retrieval, the predictions of any system; what training logged, as a picture."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from ragray.cli.options import (
    EXAMPLE_FORMATS,
    Address,
    ConfigFile,
    ExamplesOption,
    ExecutorOption,
    IndexOption,
    ModeOption,
    Out,
    Overrides,
    RunOption,
    WhereOption,
    retrieval,
    say,
    say_json,
)
from ragray.config import load_config


def evaluate(
    examples: ExamplesOption,
    out: Out,
    overrides: Overrides = None,
    index: Annotated[
        Path | None, typer.Option("--index", help="Folder that `ragray index build` wrote.", show_default=False)
    ] = None,
    run: RunOption = None,
    closed_book: Annotated[bool, typer.Option(help="Answer without passages.")] = False,
    bounds: Annotated[
        bool,
        typer.Option(
            "--bounds",
            help="Also measure closed book, zero-shot (before training) and gold passages, beside the figures.",
        ),
    ] = False,
    baseline: Annotated[
        Path | None,
        typer.Option(
            help="Folder of an earlier report on the same examples; differences with intervals and p-values are reported.",
            show_default=False,
        ),
    ] = None,
    shots: Annotated[
        int | None, typer.Option(help="Solved examples in every prompt, of --exemplars.", show_default="evaluate.shots")
    ] = None,
    exemplars: Annotated[
        str | None,
        typer.Option(help="Records that --shots takes them from, as --examples.", show_default="evaluate.exemplars"),
    ] = None,
    config: ConfigFile = None,
    address: Address = None,
    executor: ExecutorOption = "ray",
) -> None:
    """Answer examples and score the answers: exact match, F1 (evaluate.metric), accuracy, evaluate.metrics, recall@k, MRR.

    Writes report.json, report.html, the predictions, and the details of each answer. Every figure has a 95% bootstrap interval.
    """
    from ragray.api import evaluate_rag as run_stage
    from ragray.evaluate.report.assemble import REPORT_FILE

    given = [f"evaluate.shots={shots}"] if shots is not None else []
    given += [f"evaluate.exemplars={exemplars}"] if exemplars is not None else []
    settings = load_config(config, [*(overrides or []), *given], command="evaluate")
    run_stage(
        examples,
        out,
        settings,
        index=index,
        run=run,
        closed_book=closed_book,
        bounds=bounds,
        baseline=baseline,
        address=address,
        executor=executor,
    )
    say((out / REPORT_FILE).read_text(encoding="utf-8").rstrip())


def evaluate_retrieval(
    index: IndexOption,
    queries: Annotated[Path, typer.Option(help='JSONL lines {"id", "text"}.', show_default=False)],
    qrels: Annotated[
        Path,
        typer.Option(help="Tab-separated: query, document, relevance; with or without a header.", show_default=False),
    ],
    overrides: Overrides = None,
    mode: ModeOption = None,
    where: WhereOption = None,
    run: RunOption = None,
    config: ConfigFile = None,
) -> None:
    """Score retrieval against judged documents and print JSON: ndcg@10, recall@k, mrr@10; a document counts by its best passage."""
    from ragray.evaluate.retrieval import evaluate_retrieval as run_stage

    settings = load_config(config, [*(overrides or []), *retrieval(mode, where)], command="evaluate retrieval")
    say_json(run_stage(index, queries, qrels, settings, run=run).to_json())


def score(
    predictions: Annotated[
        Path, typer.Argument(help='JSON object of id to text, or .jsonl of {"id", "prediction"}.', show_default=False)
    ],
    examples: Annotated[
        str, typer.Argument(help=f'Records {{"id", "answers"}} of {EXAMPLE_FORMATS}.', show_default=False)
    ],
    overrides: Overrides = None,
    config: ConfigFile = None,
) -> None:
    """Score any system's predictions and print JSON: exact_match and f1 in percent, the counts, the metrics used (evaluate.metric).

    `figures` holds these and those of evaluate.metrics, each with its 95% bootstrap interval.
    """
    from ragray.evaluate.answers import score as score_predictions
    from ragray.evaluate.measures.named import measures, require_measurable
    from ragray.evaluate.records import predicted
    from ragray.evaluate.report.figures import figures
    from ragray.examples import read_predictions, read_references

    settings = load_config(config, overrides or [], command="score")
    texts, references = read_predictions(predictions), read_references(examples, settings.examples)
    require_measurable(settings.evaluate, references, with_passages=False)
    scores = score_predictions(texts, references, metric=settings.evaluate.metric)
    found = figures(measures(predicted(texts, references), settings.evaluate))
    say_json({**asdict(scores), "figures": {name: one.to_json() for name, one in found.items()}})


def plot(
    runs: Annotated[
        list[Path], typer.Argument(metavar="RUN...", help="Folders that `ragray train` writes.", show_default=False)
    ],
    out: Annotated[
        Path | None,
        typer.Option(help="Picture to write: .png, .svg or .pdf.", show_default="metrics.png in the first run"),
    ] = None,
) -> None:
    """Draw what runs have logged into one picture: loss, figures of the dev examples, recall of gold, learning rate, waiting.

    A run may still train. Where the passage encoder trains too, the age of the index is drawn as well.
    """
    from ragray.train.plots import plot_runs

    say(str(plot_runs(runs, out or runs[0] / "metrics.png")))
