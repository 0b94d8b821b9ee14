"""The stage `evaluate`. In: examples, an index, perhaps a run. Out: a report; answers of a killed run are kept."""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from time import monotonic
from typing import Any

from ragray.artifact.digest import fingerprint
from ragray.artifact.files import atomic_path, write_json
from ragray.artifact.manifest import fact, read_manifest
from ragray.artifact.output import StageOutput, stage_output
from ragray.config import Config, EncoderConfig, GenerateConfig
from ragray.errors import ConfigError
from ragray.evaluate.answers import AnswerScores, score
from ragray.evaluate.gold import warn_of_unknown_gold_ids
from ragray.evaluate.ranking import RankingScores, gold_rank, ranking_scores
from ragray.examples import ExampleSource, read_examples
from ragray.execute.port import Executor, Resources, Task, run_task
from ragray.generate.answer.markers import with_known_numbers
from ragray.generate.check import check_questions
from ragray.generate.engine import GenerationRequest
from ragray.generate.load import FAKE, load_generator, load_template
from ragray.generate.orchestrator import NOTHING_FOUND
from ragray.index.search.reader import IndexReader
from ragray.jsontext import to_json
from ragray.models import resolve_model, weights_fingerprint
from ragray.retrieve.load import load_retriever, question_encoder
from ragray.retrieve.retriever import LocalRetriever
from ragray.retrieve.tuned import with_tuned
from ragray.run import Run
from ragray.types import Example

logger = logging.getLogger("ragray")

PARTS_FOLDER = ".parts"
REPORT_FILE = "report.json"
PREDICTIONS_FILE = "predictions.json"
DETAILS_FILE = "details.jsonl"
FORMAT = 2
"""Counts up when the lines of `details.jsonl` change, so that reports of another format are made anew."""

NOT_DECISIVE = ("num_shards", "num_replicas", "cpus_per_actor", "threads")
"""Keys of `RetrieveConfig` that do not change what is found."""


RESOURCE_SETTINGS = ("evaluate.cpus_per_worker", "evaluate.gpus_per_worker")
"""What lowers the resources that one worker reserves."""


@dataclass(frozen=True, slots=True)
class EvaluationReport:
    """How good a system's answers and its retrieval are (``ranking`` is None for a closed book), and how many answers were cut."""

    answers: AnswerScores
    ranking: RankingScores | None
    num_cut: int
    seconds: float
    reused: bool


@dataclass(frozen=True, slots=True)
class SystemUnderTest:
    """What answers the questions: a closed book has no index; of an index it is one snapshot, whatever is published meanwhile."""

    config: Config
    run: Run | None
    index: Path | None = None
    snapshot: str = ""


@dataclass(frozen=True, slots=True)
class QuestionBatch:
    """Questions whose answers go into one file: the unit of work; a crash loses at most one batch per worker."""

    name: str
    examples: tuple[Example, ...]


class AnswerQuestions(Task[QuestionBatch]):
    """Retrieves for a batch of questions, answers them, writes a file."""

    def set_up(self, system: SystemUnderTest) -> None:
        """Load the retriever and the generator."""
        config, run = system.config, system.run.folder if system.run else None
        if config.generate.model != FAKE:
            import torch

            torch.set_num_threads(max(1, int(config.evaluate.cpus_per_worker)))
        self._retriever = load_retriever(system.index, run, config, snapshot=system.snapshot) if system.index else None
        threads = max(1, int(config.evaluate.cpus_per_worker))
        self._generator = load_generator(config.generate, run, threads=threads)
        self._k = self._retriever.k if self._retriever else config.retrieve.k
        self._depth = max(self._k, *config.evaluate.recall_at)

    def do(self, unit: QuestionBatch) -> int:
        """Answer the questions of a batch."""
        write_json(self.folder / unit.name, self._answer(unit.examples))
        return len(unit.examples)

    def describe(self, unit: QuestionBatch) -> str:
        """Name the questions of a batch."""
        return f"answering the questions with the ids {', '.join(example.id for example in unit.examples)}"

    def _answer(self, examples: Sequence[Example]) -> list[dict[str, Any]]:
        questions = [example.question for example in examples]
        results = (
            self._retriever.search(questions, self._depth) if self._retriever else [NOTHING_FOUND] * len(questions)
        )
        found = [result.hits for result in results]
        prompts = [GenerationRequest(q, hits[: self._k]) for q, hits in zip(questions, found, strict=True)]
        return [
            {
                "id": example.id,
                "question": example.question,
                "prediction": with_known_numbers(answer.text, 0) if answer.numbered else answer.text,
                "answers": list(example.answers),
                "finish_reason": answer.finish_reason,
                "gold_ids": list(example.gold_ids),
                "gold_rank": gold_rank(hits, example.gold_ids),
                "sources": [hit.passage.id for hit in prompt.hits[: len(answer.weights)]],
                "weights": [round(weight, 4) for weight in answer.weights],
                "log_prob": round(answer.log_prob, 4),
            }
            for example, hits, prompt, answer in zip(
                examples, found, prompts, self._generator.generate(prompts), strict=True
            )
        ]


def evaluate_rag(
    examples: ExampleSource,
    out: Path,
    config: Config,
    *,
    index: Path | None,
    run: Path | None = None,
    closed_book: bool = False,
    executor: Executor,
) -> EvaluationReport:
    """Answer every example and score the answers; without an index, or with ``closed_book``, no passages are read.

    ``examples`` is a path or URI, a pandas DataFrame, a `datasets.Dataset`, or a list of mappings or `Example`s.

    Raises:
        InputError: an example is wrong, or there is none; the message names place and field.
        EncoderMismatchError: run and index do not belong together.
    """
    started = monotonic()
    if index is None and not closed_book:
        raise ConfigError("evaluate: give --index INDEX, or --closed-book to answer without passages")
    questions = spread(read_examples(examples, config.examples), config.evaluate.limit)
    system = _system(config, None if closed_book else index, run)
    if prompts := load_template(system.config.generate, run):
        check_questions(questions, prompts)
    key = _key(questions, system)
    with stage_output(out, kind="report", work=PARTS_FOLDER) as output:
        reused = output.finished(key) is not None
        if not reused:
            lines = _answers(questions, system, output.resume(key), executor)
            unknown = warn_of_unknown_gold_ids(questions, system.index, system.snapshot) if system.index else 0
            _publish(output, key, lines, config, unknown)
        elif json.loads(json.dumps(_report(*_scores(out, config)))) != json.loads((out / REPORT_FILE).read_bytes()):
            unknown = fact(out, read_manifest(out, "report"), "num_unknown_gold_ids", int)
            _publish(output, key, _lines(out), config, unknown)  # the same answers, scored by another metric
    return EvaluationReport(*_scores(out, config), monotonic() - started, reused)


def spread(examples: list[Example], limit: int) -> list[Example]:
    """Choose ``limit`` examples spread evenly over the list; all of them with 0."""
    if not limit or limit >= len(examples):
        return examples
    return [examples[number * len(examples) // limit] for number in range(limit)]


def _system(config: Config, index: Path | None, run: Path | None) -> SystemUnderTest:
    """Open index and run once, so that what is wrong with them is said before any worker starts."""
    opened = Run.open(run.resolve()) if run else None
    config = opened.settings(config) if opened else config
    if index is None:
        return SystemUnderTest(config, opened)
    reader = IndexReader.open(index)
    LocalRetriever(reader, None, config.retrieve)  # for what it raises
    if opened:
        reader.require_encoder(opened.facts.encoder, f"run {run}")
    elif "model" in config.embed.model_fields_set:
        question_encoder(reader, None, config, device="cpu")
    return SystemUnderTest(config, opened, index.resolve(), reader.snapshot.name)


def _key(questions: Sequence[Example], system: SystemUnderTest) -> str:
    """Hash what decides the answers."""
    config = system.config
    parts: list[Any] = [FORMAT, [question.content for question in questions], _decisive(config.generate)]
    if system.run:
        parts.append(system.run.name)
    if not (system.run and system.run.has_generator):
        parts.append(_weights(config.generate.model))
    if system.index:
        parts.append(_weights(config.retrieve.rerank_model))
        retrieve = with_tuned(config, system.index, system.snapshot).retrieve
        parts += [system.snapshot, retrieve.model_dump(mode="json", exclude=set(NOT_DECISIVE))]
        parts.append(list(config.evaluate.recall_at))
        if "model" in config.embed.model_fields_set:
            parts.append({name: getattr(config.embed, name) for name in EncoderConfig.model_fields})
    return fingerprint(parts)


def _decisive(config: GenerateConfig) -> dict[str, Any]:
    """Return the settings of a generator; those added since reports were first written only where they are not the default."""
    added = {key for key in ("strategy", "engine") if getattr(config, key) == GenerateConfig.model_fields[key].default}
    return config.model_dump(mode="json", exclude=added)


def _weights(model: str) -> str:
    """Fingerprint the weights that a name stands for now."""
    return weights_fingerprint(resolve_model(model)) if model not in ("", FAKE) else model


def _answers(
    questions: list[Example], system: SystemUnderTest, parts: Path, executor: Executor
) -> list[dict[str, Any]]:
    """Answer the questions whose answers no earlier run left in ``parts``; return the lines of all, in order."""
    settings, size = system.config.evaluate, system.config.generate.batch_size
    plan = [
        QuestionBatch(f"part-{start:08}.json", tuple(questions[start : start + size]))
        for start in range(0, len(questions), size)
    ]
    todo = [batch for batch in plan if not (parts / batch.name).is_file()]
    run_task(
        executor,
        AnswerQuestions,
        todo,
        parts,
        system,
        stage="evaluate",
        total=sum(len(batch.examples) for batch in todo),
        counted="questions",
        resources=Resources(
            settings.num_workers, settings.cpus_per_worker, settings.gpus_per_worker, RESOURCE_SETTINGS
        ),
    )
    return [line for batch in plan for line in json.loads((parts / batch.name).read_text(encoding="utf-8"))]


def _publish(
    output: StageOutput, key: str, lines: list[dict[str, Any]], config: Config, num_unknown_gold_ids: int
) -> None:
    out = output.folder
    output.withdraw()
    write_json(out / PREDICTIONS_FILE, {line["id"]: line["prediction"] for line in lines})
    with atomic_path(out / DETAILS_FILE) as path:
        path.write_text("".join(to_json(line, DETAILS_FILE) + "\n" for line in lines), encoding="utf-8")
    answers, ranking, num_cut = _scores(out, config, num_unknown_gold_ids)
    if num_cut:
        logger.warning(
            "evaluate: %d of %d answers were cut at generate.max_new_tokens=%d",
            num_cut,
            len(lines),
            config.generate.max_new_tokens,
        )
    write_json(out / REPORT_FILE, _report(answers, ranking, num_cut))
    files = [out / REPORT_FILE, out / PREDICTIONS_FILE, out / DETAILS_FILE]
    facts = {"num_examples": len(lines), "num_unknown_gold_ids": num_unknown_gold_ids}
    output.publish(key, facts, files)


def _report(answers: AnswerScores, ranking: RankingScores | None, num_cut: int) -> dict[str, Any]:
    retrieval = asdict(ranking) if ranking else None
    return {"answers": asdict(answers), "retrieval": retrieval, "num_cut_answers": num_cut}


def _lines(out: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (out / DETAILS_FILE).read_text(encoding="utf-8").rstrip("\n").split("\n")]


def _scores(
    out: Path, config: Config, num_unknown_gold_ids: int | None = None
) -> tuple[AnswerScores, RankingScores | None, int]:
    """Score what stands in the folder: answers, retrieval, and how many answers were cut."""
    lines = _lines(out)
    examples = [Example(line["id"], line["question"], tuple(line["answers"])) for line in lines]
    answers = score({line["id"]: line["prediction"] for line in lines}, examples, metric=config.evaluate.metric)
    num_cut = sum(line["finish_reason"] == "length" for line in lines)
    if not any(line["sources"] for line in lines):
        return answers, None, num_cut
    if num_unknown_gold_ids is None:
        num_unknown_gold_ids = fact(out, read_manifest(out, "report"), "num_unknown_gold_ids", int)
    ranks = [line["gold_rank"] for line in lines if line["gold_ids"]]
    ranking = ranking_scores(ranks, config.evaluate.recall_at, num_unknown_gold_ids=num_unknown_gold_ids)
    return answers, ranking, num_cut
