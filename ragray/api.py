"""The stages as functions. In: what a stage reads and writes, and where it is to run. Out: the stage's report."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING

from ragray.cluster.executor import RayExecutor
from ragray.cluster.session import has_cluster, session
from ragray.config import Config
from ragray.errors import ConfigError
from ragray.execute.port import Executor
from ragray.execute.processes import ProcessExecutor

if TYPE_CHECKING:
    from ragray.examples import ExampleSource
    from ragray.stages.build import IndexReport
    from ragray.stages.compact import CompactReport
    from ragray.stages.embed import EmbedReport
    from ragray.stages.ingest import IngestReport
    from ragray.stages.report import EvaluationReport
    from ragray.stages.sync import SyncReport

RAY, LOCAL = "ray", "local"


def choose_executor(name: str, config: Config, address: str | None = None) -> Executor:
    """Return where a stage runs: ``ray``, a cluster joined or started, or ``local``, processes of this machine.

    Raises:
        ConfigError: the name is another one, or an address is given that it has no use for.
    """
    if name == RAY:
        return RayExecutor(address, wait_s=config.cluster.wait_s)
    if name != LOCAL:
        raise ConfigError(f"executor '{name}' is not known; choose {RAY} or {LOCAL}")
    if address:
        raise ConfigError(
            f"--executor {LOCAL} uses no cluster, but --address names {address}; leave out one of the two"
        )
    return ProcessExecutor()


def ingest(
    sources: Sequence[str], out: Path, config: Config, *, address: str | None = None, executor: str = RAY
) -> IngestReport:
    """Turn sources into a corpus of passages: `ragray.stages.ingest.ingest` on a chosen executor."""
    from ragray.stages.ingest import ingest as run

    return run(sources, out, config, choose_executor(executor, config, address))


def embed_corpus(
    corpus: Path, out: Path, config: Config, *, address: str | None = None, executor: str = RAY
) -> EmbedReport:
    """Embed every passage of a corpus: `ragray.stages.embed.embed_corpus` on a chosen executor."""
    from ragray.stages.embed import embed_corpus as run

    return run(corpus, out, config, choose_executor(executor, config, address))


def build_index(
    embeddings: Path, corpus: Path, out: Path, config: Config, *, address: str | None = None, executor: str = RAY
) -> IndexReport:
    """Build an index and publish a snapshot of it: `ragray.stages.build.build_index` on a chosen executor."""
    from ragray.stages.build import build_index as run

    return run(embeddings, corpus, out, config, choose_executor(executor, config, address))


def sync_index(
    index: Path, corpus: Path, config: Config, *, address: str | None = None, executor: str | None = None
) -> SyncReport:
    """Make an index hold a new corpus: `ragray.stages.sync.sync_index` on a chosen executor.

    Without ``executor``: ``local`` where there is no cluster to join and no GPU to use, as few passages are embedded before
    Ray has started; else ``ray``.
    """
    from ragray.stages.sync import sync_index as run

    chosen = executor or (RAY if has_cluster(address) or config.embed.gpus_per_worker else LOCAL)
    return run(index, corpus, config, choose_executor(chosen, config, address))


def compact_index(index: Path, config: Config, *, address: str | None = None, executor: str = RAY) -> CompactReport:
    """Merge the segments of an index without the deleted rows: `ragray.stages.compact.compact_index` on a chosen executor."""
    from ragray.stages.compact import compact_index as run

    return run(index, config, choose_executor(executor, config, address))


def evaluate_rag(
    examples: ExampleSource,
    out: Path,
    config: Config,
    *,
    index: Path | None,
    run: Path | None = None,
    closed_book: bool = False,
    bounds: bool = False,
    baseline: Path | None = None,
    address: str | None = None,
    executor: str = RAY,
) -> EvaluationReport:
    """Answer examples and score the answers: `ragray.stages.evaluate.evaluate_rag` on a chosen executor.

    With ``bounds`` other systems answer them too (`ragray.stages.bounds`); ``baseline`` is a report to compare with.
    """
    from ragray.stages.bounds import evaluate_with_bounds
    from ragray.stages.evaluate import evaluate_rag as run_stage

    where = choose_executor(executor, config, address)
    if not bounds:
        return run_stage(
            examples, out, config, index=index, run=run, closed_book=closed_book, baseline=baseline, executor=where
        )
    if index is None or closed_book:
        raise ConfigError(
            "evaluate: --bounds needs --index INDEX; a closed book is a bound itself, leave out --closed-book"
        )
    with session(address) if executor == RAY else nullcontext():  # one cluster for all systems
        return evaluate_with_bounds(examples, out, config, index=index, run=run, baseline=baseline, executor=where)
