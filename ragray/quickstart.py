"""The whole thread on the bundled sample. In: a folder. Out: corpus, embeddings, index, run, three reports, a table, two answers."""

from __future__ import annotations

import json
import logging
import urllib.request
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from time import monotonic
from typing import Any

from rich.console import Console
from rich.table import Table

from ragray import sample
from ragray.api import build_index, embed_corpus, evaluate_rag, ingest
from ragray.artifact.files import write_json
from ragray.cluster.serving.commands import running
from ragray.cluster.session import session
from ragray.cluster.train import train_rag
from ragray.config import Config, load_config
from ragray.models import resolve_model
from ragray.serve.port import require_free_port
from ragray.stages.embed import EmbedReport
from ragray.stages.evaluate import EvaluationReport

QUESTIONS = ("What is the capital of France?", "Who wrote the play Hamlet?")
MEASURED_FILE = "measured.json"
logger = logging.getLogger("ragray")


@dataclass(frozen=True, slots=True)
class Measured:
    """What the quickstart measured; a stage that was reused keeps the seconds of the run that computed it."""

    embedded: EmbedReport
    closed_book: EvaluationReport
    untrained: EvaluationReport
    trained: EvaluationReport
    seconds: dict[str, float]


def quickstart(out: Path, overrides: Sequence[str] = (), *, address: str | None = None) -> Measured:
    """Run every stage on the sample, print one table, ask two questions over HTTP; what is done already is reused."""
    config = load_config(sample.QUICKSTART_CONFIG, list(overrides))
    require_free_port(config.serve)
    clock = _Clock(out / MEASURED_FILE)
    with session(address):
        measured = _stages(out, config, clock)
        _print_table(measured)
        _ask(out, config)
    return measured


def _stages(out: Path, config: Config, clock: _Clock) -> Measured:
    corpus, embeddings, index, run = (out / name for name in ("corpus", "embeddings", "index", "run"))
    resolve_model(config.generate.model)
    clock.lap("models", reused=False)
    made = ingest([str(sample.CORPUS)], corpus, config)
    clock.lap("ingest", reused=made.reused)
    embedded = embed_corpus(corpus, embeddings, config)
    clock.lap(
        "embed", reused=embedded.reused, passages_per_s=embedded.num_computed / max(embedded.encode_seconds, 1e-9)
    )
    clock.lap("index", reused=build_index(embeddings, corpus, index, config).reused)
    reports = {}
    for name, closed, trained in (("closed book", True, False), ("retrieval", False, False), ("trained", False, True)):
        if trained:
            clock.lap("train", reused=train_rag(index, sample.TRAIN, run, config).reused)
        reports[name] = evaluate_rag(
            sample.TEST,
            out / "reports" / name.replace(" ", "-"),
            config,
            index=None if closed else index,
            run=run if trained else None,
            closed_book=closed,
        )
        clock.lap(f"evaluate {name}", reused=reports[name].reused)
    return Measured(embedded, reports["closed book"], reports["retrieval"], reports["trained"], clock.seconds)


class _Clock:
    """Seconds per stage, kept in a file, so that a second run shows what the first one took."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._kept: dict[str, float] = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
        self._last = monotonic()
        self.seconds: dict[str, float] = {}

    def lap(self, stage: str, *, reused: bool, **figures: float) -> None:
        now = monotonic()
        fresh = {stage: now - self._last, **{f"{stage} {name}": value for name, value in figures.items()}}
        self._last = now
        kept = {name: self._kept[name] for name in fresh if reused and name in self._kept}
        self.seconds.update(fresh | kept)
        write_json(self._path, {name: round(value, 2) for name, value in self.seconds.items()})


def _print_table(measured: Measured) -> None:
    table = Table(title="ragray on its sample", title_justify="left")
    for heading in ("", "closed book", "retrieval", "retrieval, trained"):
        table.add_column(heading, justify="left" if not heading else "right")
    reports = (measured.closed_book, measured.untrained, measured.trained)

    def row(name: str, *values: str) -> None:
        table.add_row(name, *values)

    row("exact match", *(f"{report.answers.exact_match:.1f} %" for report in reports))
    row("F1", *(f"{report.answers.f1:.1f} %" for report in reports))
    for k in (1, 5):
        row(f"recall@{k}", *(_percent(r.ranking.recall[k]) if r.ranking else "-" for r in reports))
    row("seconds", *(f"{measured.seconds[f'evaluate {name}']:.0f}" for name in ("closed book", "retrieval", "trained")))
    table.add_section()
    rate = measured.seconds.get("embed passages_per_s", 0.0)
    row("passages embedded", f"{measured.embedded.num_passages}", f"{rate:.0f} passages/s", "")
    row("test questions", f"{measured.trained.answers.num_examples}")
    for stage in ("models", "ingest", "embed", "index", "train"):
        row(f"seconds to {stage}" if stage != "models" else "seconds for models", f"{measured.seconds[stage]:.1f}")
    Console(width=100).print(table)


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{value:.1f} %"


def _ask(out: Path, config: Config) -> None:
    started = monotonic()
    with running(out / "index", out / "run", config) as url:
        logger.info("serve: answering at %s after %.1f s", url, monotonic() - started)
        for question in QUESTIONS:
            print(f"\nPOST {url}/v1/answer  {question}")
            answer = _post(f"{url}/v1/answer", {"question": question})
            print(f"  {answer['answer']}")
            for citation in answer["citations"]:
                print(
                    f"  [{citation['number']}] {100 * citation['weight']:3.0f}%  {citation['id']}: {citation['text'][:80]}…"
                )
    print(f"\nServe it yourself: ragray serve --index {out / 'index'} --run {out / 'run'}")


def _post(url: str, body: dict[str, str]) -> dict[str, Any]:
    request = urllib.request.Request(
        url, data=json.dumps(body).encode(), headers={"Content-Type": "application/json"}, method="POST"
    )
    with urllib.request.urlopen(request, timeout=120) as response:
        answer: dict[str, Any] = json.load(response)
        return answer
