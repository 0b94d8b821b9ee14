"""The commands that evaluate: answers, retrieval, the predictions of any system."""

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
    config: ConfigFile = None,
    address: Address = None,
    executor: ExecutorOption = "ray",
) -> None:
    """Answer examples and score the answers: exact match and F1 (evaluate.metric), accuracy, recall@k, MRR."""
    from ragray.api import evaluate_rag as run_stage
    from ragray.stages.evaluate import REPORT_FILE

    settings = load_config(config, overrides or [], command="evaluate")
    run_stage(
        examples, out, settings, index=index, run=run, closed_book=closed_book, address=address, executor=executor
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
    """Score any system's predictions and print JSON: exact_match and f1 in percent, the counts, and the metrics used (evaluate.metric)."""
    from ragray.evaluate.answers import score as score_predictions
    from ragray.examples import read_predictions, read_references

    settings = load_config(config, overrides or [], command="score")
    scores = score_predictions(
        read_predictions(predictions), read_references(examples, settings.examples), metric=settings.evaluate.metric
    )
    say_json(asdict(scores))
