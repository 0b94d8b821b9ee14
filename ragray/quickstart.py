"""The whole thread on the bundled sample. In: a folder. Out: corpus, embeddings, index, run, three reports, a table, three answers."""

from __future__ import annotations

import contextlib
import json
import logging
import urllib.request
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from time import monotonic
from typing import Any

from rich.cells import set_cell_size
from rich.console import Console
from rich.table import Table

from ragray import sample
from ragray.api import LOCAL, RAY, build_index, embed_corpus, evaluate_rag, ingest
from ragray.artifact.files import write_json
from ragray.cluster.serving.commands import running
from ragray.cluster.session import session
from ragray.cluster.train import train_rag
from ragray.config import Config, load_config
from ragray.embed.encoder import is_hash
from ragray.errors import ConfigError
from ragray.evaluate.answers import contains, token_f1
from ragray.examples import read_examples
from ragray.generate.answer.markers import with_known_numbers
from ragray.models import resolve_model
from ragray.serve.access.settings import checked_access
from ragray.serve.port import require_free_port
from ragray.stages.embed import EmbedReport
from ragray.stages.report import EvaluationReport
from ragray.types import Example

QUESTIONS = ("What is the capital of France?", "Who wrote the play Hamlet?")
QUESTION_ZH = "zh-nanjing-2"
"""Id of the question in Chinese, one of `sample.TEST_ZH`."""
MOSTLY_ENGLISH = "smollm2-135m-instruct"
"""The packaged generator: its model card says that it primarily understands and writes English."""
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
    """Run every stage on the sample, print one table, ask over HTTP in two languages; what is done already is reused."""
    config, chinese = (load_config(path, overrides) for path in (sample.QUICKSTART_CONFIG, sample.QUICKSTART_ZH_CONFIG))
    if config.serve.keys_file:
        raise ConfigError("quickstart: asks its own service without a key; leave serve.keys_file out")
    checked_access(config.serve, config.serve.host)  # as `running` does, but before minutes of training
    require_free_port(config.serve)
    with session(address):
        measured = _stages(out, config)
        _print_table(measured)
        _ask(out, config)
        _in_chinese(out / "zh", chinese)
    print(f"\nServe it yourself: ragray serve --index {out / 'index'} --run {out / 'run'}")
    print(f"       in Chinese: ragray serve --index {out / 'zh' / 'index'} retrieve.mode={chinese.retrieve.mode}")
    return measured


def _stages(out: Path, config: Config) -> Measured:
    clock = _Clock(out / MEASURED_FILE)
    embedded = _index(out, sample.CORPUS, config, clock)
    index, run = out / "index", out / "run"
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


def _index(out: Path, source: Path, config: Config, clock: _Clock, executor: str = RAY) -> EmbedReport:
    """Run the stages from a source to an index of it."""
    corpus, embeddings, index = (out / name for name in ("corpus", "embeddings", "index"))
    with ThreadPoolExecutor(1) as beside:
        generator = beside.submit(
            resolve_model, config.generate.model
        )  # converts it at its first use, which takes long
        if not is_hash(config.embed):
            resolve_model(config.embed.model)
        if generator.done():
            generator.result()  # for what it raises: a wrong name is told before anything is computed
        clock.lap("ingest", reused=ingest([str(source)], corpus, config, executor=executor).reused)
        embedded = embed_corpus(corpus, embeddings, config, executor=executor)
        clock.lap(
            "embed", reused=embedded.reused, passages_per_s=embedded.num_computed / max(embedded.encode_seconds, 1e-9)
        )
        clock.lap("index", reused=build_index(embeddings, corpus, index, config, executor=executor).reused)
        generator.result()
    clock.lap("models", reused=False)
    return embedded


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
    row("test questions", f"{measured.trained.answers.num_examples}")
    _add_stages(table, measured.embedded, measured.seconds)
    Console(width=100).print(table)


def _add_stages(table: Table, embedded: EmbedReport, seconds: dict[str, float]) -> None:
    """Add the number of passages, and the seconds of each stage that there was."""
    rate = seconds.get("embed passages_per_s", 0.0)
    table.add_row("passages embedded", f"{embedded.num_passages}", f"{rate:.0f} passages/s")
    for stage in ("models", "ingest", "embed", "index", "train"):
        if stage in seconds:
            table.add_row(f"seconds {'for' if stage == 'models' else 'to'} {stage}", f"{seconds[stage]:.1f}")


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{value:.1f} %"


def _ask(out: Path, config: Config) -> None:
    with _serving(out / "index", out / "run", config) as url:
        for question in QUESTIONS:
            _answer(url, question)


def _in_chinese(out: Path, config: Config) -> None:
    """Index the Chinese passages; look up and answer a question with the base model, as the run belongs to the other index."""
    clock = _Clock(out / MEASURED_FILE)
    embedded = _index(out, sample.CORPUS_ZH, config, clock, LOCAL)  # so few passages take less time than Ray's actors
    table = Table("", "", "", title="ragray on its Chinese sample", title_justify="left", show_header=False)
    _add_stages(table, embedded, clock.seconds)
    print()
    Console(width=100).print(table)
    [example] = [example for example in read_examples(sample.TEST_ZH) if example.id == QUESTION_ZH]
    with _serving(out / "index", None, config) as url:
        print(f"\nPOST {url}/v1/search  {example.question}")
        for rank, hit in enumerate(_post(f"{url}/v1/search", {"query": example.question})["hits"], start=1):
            print(f"  [{rank}] {hit['score']:.2f}  {hit['id']}: {_excerpt(hit['text'])}")
        answer = _answer(url, example.question)
    print(f"  {judge(answer['answer'], answer['citations'][0]['text'], example, config.generate.model)}")


def judge(answer: str, passage: str, example: Example, model: str) -> str:
    """Return how an answer and the passage cited first compare with the accepted answers, and whether the model's language is why."""
    bare = with_known_numbers(answer, 0)
    f1 = max(token_f1(bare, accepted) for accepted in example.answers)
    held = any(contains(passage, accepted) for accepted in example.answers)
    said = (
        f"expected {example.answers[0]}: F1 {100 * f1:.0f} %, passage [1] {'holds it' if held else 'does not hold it'}"
    )
    if f1 < 1 and model == MOSTLY_ENGLISH:
        said += f"; {model} was trained mostly on English: name another with generate.model=..."
    return said


@contextlib.contextmanager
def _serving(index: Path, run: Path | None, config: Config) -> Iterator[str]:
    started = monotonic()
    with running(index, run, config) as url:
        logger.info("serve: answering at %s after %.1f s", url, monotonic() - started)
        yield url


def _answer(url: str, question: str) -> dict[str, Any]:
    """Ask over HTTP; print and return the answer."""
    print(f"\nPOST {url}/v1/answer  {question}")
    answer = _post(f"{url}/v1/answer", {"question": question})
    print(f"  {answer['answer']}")
    for citation in answer["citations"]:
        print(
            f"  [{citation['number']}] {100 * citation['weight']:3.0f}%  {citation['id']}: {_excerpt(citation['text'])}"
        )
    return answer


def _excerpt(text: str) -> str:
    """Return the beginning of a text, 80 columns of a terminal wide."""
    return f"{set_cell_size(text, 80).rstrip()}…"


def _post(url: str, body: dict[str, str]) -> dict[str, Any]:
    request = urllib.request.Request(
        url, data=json.dumps(body).encode(), headers={"Content-Type": "application/json"}, method="POST"
    )
    with urllib.request.urlopen(request, timeout=120) as response:
        answer: dict[str, Any] = json.load(response)
        return answer
