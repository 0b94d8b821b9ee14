"""The commands that look something up in an index: search, ask."""

from __future__ import annotations

import logging
from dataclasses import asdict
from typing import Annotated

import typer

from ragray.cli.options import (
    AsJson,
    ConfigFile,
    IndexArgument,
    ModeOption,
    Overrides,
    RunOption,
    WhereOption,
    excerpt,
    retrieval,
    say,
    say_json,
)
from ragray.config import load_config
from ragray.text.checks import require_text

logger = logging.getLogger("ragray")


def search(
    index: IndexArgument,
    text: Annotated[str, typer.Argument(help="What to look for.", show_default=False)],
    overrides: Overrides = None,
    k: Annotated[int | None, typer.Option("-k", help="Passages to print.", min=1, show_default="retrieve.k")] = None,
    mode: ModeOption = None,
    where: WhereOption = None,
    run: RunOption = None,
    as_json: AsJson = False,
    config: ConfigFile = None,
) -> None:
    """Print the passages nearest to a text."""
    from ragray.index.search.nothing import why_nothing
    from ragray.index.search.reader import IndexReader
    from ragray.retrieve.load import load_retriever

    require_text(text, "search: the text to look for")
    settings = load_config(config, [*(overrides or []), *retrieval(mode, where)], command="search")
    retriever = load_retriever(index, run, settings, device="cpu")
    [found] = retriever.search([text], k or retriever.k)
    if not found.hits:
        reader = IndexReader.open(index, snapshot=found.snapshot)
        logger.warning("search: %s", why_nothing(reader, text, settings.retrieve))
    if as_json:
        say_json([asdict(hit) for hit in found.hits])
        return
    for number, hit in enumerate(found.hits, start=1):
        say(f"{number:3}. {hit.score:.4f}  {hit.passage.id}  {excerpt(hit.passage.title, hit.passage.text)}")


def ask(
    index: IndexArgument,
    question: Annotated[str, typer.Argument(help="What to answer.", show_default=False)],
    overrides: Overrides = None,
    mode: ModeOption = None,
    where: WhereOption = None,
    run: RunOption = None,
    as_json: AsJson = False,
    config: ConfigFile = None,
) -> None:
    """Answer a question from an index and print the answer with its numbered sources."""
    from ragray.generate.load import load_generator, load_template
    from ragray.generate.pipeline import Pipeline
    from ragray.index.search.nothing import why_nothing
    from ragray.index.search.reader import IndexReader
    from ragray.retrieve.load import load_retriever
    from ragray.run import Run

    require_text(question, "ask: the question")
    settings = load_config(config, [*(overrides or []), *retrieval(mode, where)], command="ask")
    if run:
        settings = Run.open(run).settings(settings)
    if prompts := load_template(settings.generate, run):
        prompts.check(question)
    retriever = load_retriever(index, run, settings)
    pipeline = Pipeline(retriever, load_generator(settings.generate, run), k=retriever.k)
    [answer] = pipeline.answer([question])
    if not answer.citations:
        reason = why_nothing(IndexReader.open(index, snapshot=retriever.snapshot), question, settings.retrieve)
        logger.warning("ask: answered without passages: %s", reason)
    if as_json:
        say_json(asdict(answer))
        return
    say(answer.text)
    for number, citation in enumerate(answer.citations, start=1):
        passage = citation.hit.passage
        say(f"  [{number}] {100 * citation.weight:3.0f}%  {passage.id}  {excerpt(passage.title, passage.text)}")
