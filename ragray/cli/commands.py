"""The stages as commands, and `run`, which turns an error into one line and an exit code."""

from __future__ import annotations

import logging
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from ragray import interrupts
from ragray.cli.index import index_app
from ragray.cli.index_exchange import run_app
from ragray.cli.keys import keys_app
from ragray.cli.lookup import ask, search
from ragray.cli.measure import evaluate, evaluate_retrieval, plot, score
from ragray.cli.mine import mine
from ragray.cli.options import (
    Address,
    ConfigFile,
    ExamplesOption,
    ExecutorOption,
    IndexOption,
    Out,
    Overrides,
    RunOption,
    say,
    say_json,
    took,
)
from ragray.config import Config, load_config, to_yaml
from ragray.errors import ArtifactError, InputError
from ragray.failures import keep_traceback, told

HELP = """Train and serve retrieval-augmented generation over large corpora on a Ray cluster.

The stages, in order, each resumable, each writing a folder that the next one reads:

  ragray ingest corpus.jsonl --out work/corpus

  ragray embed work/corpus --out work/embeddings

  ragray index build work/embeddings --corpus work/corpus --out work/index

  ragray train --index work/index --examples train.jsonl --out work/run

  ragray evaluate --index work/index --run work/run --examples test.jsonl --out work/report

  ragray serve --index work/index --run work/run

Every stage takes --config FILE.yaml and, last, any number of section.key=value overrides; `ragray config show` lists the keys.
Without --address (or RAY_ADDRESS) a Ray cluster is started on this machine for the length of the command; with --executor local
the stages that take it start none.
"""

_OVERRIDE = re.compile(r"[a-z_]+\.[a-z_0-9]+=")


class TwoWordGroup(TyperGroup):
    """A group with commands of two words, `evaluate retrieval`, beside those of one, `evaluate`."""

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """Find the command that the first two arguments name, else the first."""
        two = " ".join(args[:2])
        return super().resolve_command(ctx, [two, *args[2:]] if two in self.commands else args)


app = typer.Typer(
    cls=TwoWordGroup,
    help=HELP,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    add_completion=False,
)
config_app = typer.Typer(help="Show what can be configured, and what is.", no_args_is_help=True, rich_markup_mode=None)
app.add_typer(config_app, name="config")
app.add_typer(index_app, name="index")
app.add_typer(keys_app, name="keys")
app.add_typer(run_app, name="run")


@app.command()
def ingest(
    sources: Annotated[
        list[str],
        typer.Argument(
            metavar="SOURCE... [section.key=value]...",
            help="Files, folders, globs, URIs: jsonl, Parquet, CSV, TSV, SQuAD JSON, datasets, text, markdown, HTML, PDF.",
        ),
    ],
    out: Out,
    config: ConfigFile = None,
    address: Address = None,
    executor: ExecutorOption = "ray",
) -> None:
    """Read, clean and split documents into a corpus of passages; what is refused goes to quarantine.jsonl with the reason."""
    from ragray.api import ingest as run_stage

    overrides = [source for source in sources if _OVERRIDE.match(source) and not Path(source).exists()]
    files = [source for source in sources if source not in overrides]
    if not files:
        raise InputError("ingest: no source given; name files, folders or globs before the overrides")
    settings = load_config(config, overrides, command="ingest")
    report = run_stage(files, out, settings, address=address, executor=executor)
    refused = ", ".join(f"{count} {reason}" for reason, count in sorted(report.refused.items())) or "none"
    say(f"{out}: {report.passages} passages of {report.documents} documents, refused: {refused}{took(report)}")
    if report.unkept:
        say(f"{out}: not kept as metadata: {report.unkept_fields}")
    if report.damaged > settings.ingest.max_damaged:
        raise InputError(
            f"{report.first_damaged}; {report.damaged} unreadable record(s) are in {out}/quarantine.jsonl, all others are in the "
            f"corpus; mend the source and run again, or accept them with ingest.max_damaged={report.damaged}"
        )


@app.command()
def embed(
    corpus: Annotated[Path, typer.Argument(help="Folder that `ragray ingest` wrote.", show_default=False)],
    out: Out,
    overrides: Overrides = None,
    config: ConfigFile = None,
    address: Address = None,
    executor: ExecutorOption = "ray",
) -> None:
    """Turn every passage of a corpus into a vector; finished blocks survive any crash."""
    from ragray.api import embed_corpus as run_stage

    settings = load_config(config, overrides or [], command="embed")
    report = run_stage(corpus, out, settings, address=address, executor=executor)
    rate = report.num_computed / max(report.seconds, 1e-9)
    done = "" if report.reused else f", {report.num_computed} computed now ({rate:.1f} passages/s)"
    refused = f", {report.num_quarantined} refused, see quarantine.jsonl" if report.num_quarantined else ""
    say(f"{out}: {report.num_passages} vectors of {report.fingerprint.dim} dimensions{refused}{done}{took(report)}")


app.command()(search)
app.command()(ask)
app.command()(mine)


@app.command()
def train(
    index: IndexOption,
    examples: ExamplesOption,
    out: Out,
    overrides: Overrides = None,
    workers: Annotated[
        int | None, typer.Option(help="Data-parallel workers.", min=1, show_default="train.num_workers")
    ] = None,
    dev_examples: Annotated[
        str | None,
        typer.Option(
            help="Records as --examples, to choose the best weights by while training.",
            show_default="train.dev_examples",
        ),
    ] = None,
    restart: Annotated[bool, typer.Option(help="Throw away what --out holds and begin anew.")] = False,
    config: ConfigFile = None,
    address: Address = None,
) -> None:
    """Fine-tune question encoder and generator together (RAG-Sequence), or a retriever; run again after a crash to go on.

    With train.objective=contrastive or margin_mse --examples is what `ragray mine` wrote.
    """
    from ragray.cluster.train import train_rag as run_stage

    more = [f"train.num_workers={workers}"] if workers else []
    more += [f"train.dev_examples={dev_examples}"] if dev_examples else []
    settings = load_config(config, [*(overrides or []), *more], command="train")
    report = run_stage(index, examples, out, settings, address=address, restart=restart)
    say(f"{out}: {report.num_steps} steps, final loss {report.final_loss:.4f}{took(report)}")
    if report.verdict:
        say(f"{out}: {report.verdict}")


app.command()(plot)
app.command()(evaluate)
app.command("evaluate retrieval")(evaluate_retrieval)
app.command()(score)


@app.command()
def serve(
    index: IndexOption,
    overrides: Overrides = None,
    run: RunOption = None,
    config: ConfigFile = None,
    address: Address = None,
    insecure: Annotated[
        bool, typer.Option("--insecure", help="Let other machines in without keys; serve.insecure=true is the same.")
    ] = False,
) -> None:
    """Answer questions over HTTP until Ctrl-C: a page at /, POST /v1/answer, POST /v1/search, GET /readyz, GET /docs."""
    from ragray.cluster.serving.commands import serve as run_stage

    allowed = ["serve.insecure=true"] if insecure else []
    run_stage(index, run, load_config(config, [*(overrides or []), *allowed], command="serve"), address=address)


@app.command()
def quickstart(
    out: Annotated[Path, typer.Option(help="Folder for everything it makes.")] = Path("work/quickstart"),
    overrides: Overrides = None,
    address: Address = None,
) -> None:
    """Run every stage on the bundled sample, print what was measured, answer questions over HTTP in English and Chinese."""
    from ragray.quickstart import quickstart as run_stage

    run_stage(out, overrides or [], address=address)


@config_app.command("show")
def config_show(overrides: Overrides = None, config: ConfigFile = None) -> None:
    """Print the effective configuration as YAML, each key with its meaning."""
    say(to_yaml(load_config(config, overrides or [])).rstrip())


@config_app.command("schema")
def config_schema() -> None:
    """Print the configuration's JSON schema, for editors."""
    say_json(Config.model_json_schema())


def run(arguments: Sequence[str] | None = None) -> None:
    """Run the command line; what ragray raises on purpose becomes one line on stderr and its exit code.

    ``arguments`` are those of this process by default.
    """
    from ragray.cluster.session import prepare_environment

    prepare_environment()
    logging.basicConfig(format="%(message)s", level=logging.WARNING, stream=sys.stderr)
    logging.getLogger("ragray").setLevel(logging.INFO)
    try:
        app(args=arguments)
    except Exception as err:
        if interrupts.received():
            interrupts.end()  # it broke because it was told to end
        failure = told(err, "ragray", then="run the same command: what is finished is kept")
        kept = None if failure is err or isinstance(failure, ArtifactError) else keep_traceback(err)
        _complain(f"{failure}; traceback: {kept}" if kept else str(failure))
        sys.exit(failure.exit_code)


def _complain(text: str) -> None:
    line = " ".join(text.split())
    print(line if line.startswith("ragray: ") else f"ragray: {line}", file=sys.stderr)
