"""The stage `evaluate`. In: examples, an index, perhaps a run. Out: a report; answers of a killed run are kept."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from time import monotonic
from typing import Any

from ragray.artifact.digest import fingerprint
from ragray.artifact.files import write_json
from ragray.artifact.manifest import fact
from ragray.artifact.output import stage_output
from ragray.config import Config, EncoderConfig, GenerateConfig
from ragray.errors import ConfigError
from ragray.evaluate.gold import warn_of_unknown_gold_ids
from ragray.evaluate.measures.named import require_measurable
from ragray.evaluate.ranking import gold_ranks
from ragray.evaluate.report.assemble import Beside, read_baseline, read_bound
from ragray.evaluate.report.under_test import NOT_DECISIVE, SystemUnderTest, described, exemplars, given_passages
from ragray.examples import ExampleSource, read_examples
from ragray.execute.port import Executor, Resources, Task, run_task
from ragray.generate.answer.markers import with_known_numbers
from ragray.generate.check import check_questions
from ragray.generate.engine import GenerationRequest
from ragray.generate.load import FAKE, load_generator, load_template
from ragray.generate.orchestrator import NOTHING_FOUND
from ragray.index.search.reader import IndexReader
from ragray.models import resolve_model, weights_fingerprint
from ragray.retrieve.load import load_retriever, question_encoder
from ragray.retrieve.retriever import LocalRetriever
from ragray.retrieve.tuned import with_tuned
from ragray.run import Run
from ragray.stages.report import (
    SCORING_FACT,
    EvaluationReport,
    Scored,
    publish_report,
    read_lines,
    read_report,
    scoring_key,
)
from ragray.types import Example, Hit, Passage

PARTS_FOLDER = ".parts"
FORMAT = 3
"""Counts up when the lines of `details.jsonl` change, so that reports of another format are made anew."""

MOST_BATCHES, FEWEST_UNITS = 4, 16
"""A unit of work holds up to so many batches, of which those of like length are answered side by side, if so many units remain."""

RESOURCE_SETTINGS = ("evaluate.cpus_per_worker", "evaluate.gpus_per_worker")
"""What lowers the resources that one worker reserves."""


@dataclass(frozen=True, slots=True)
class QuestionBatch:
    """Questions whose answers go into one file: the unit of work; a crash loses at most one per worker.

    ``given`` holds the passages of each question where they are not to be searched for.
    """

    name: str
    examples: tuple[Example, ...]
    given: tuple[tuple[Passage, ...], ...] = ()


class AnswerQuestions(Task[QuestionBatch]):
    """Retrieves for a batch of questions, answers them, writes a file."""

    def set_up(self, system: SystemUnderTest) -> None:
        """Load the retriever and the generator."""
        config, run = system.config, system.run.folder if system.run else None
        index = None if system.gold else system.index
        threads = max(1, int(config.evaluate.cpus_per_worker))
        # OpenVINO's process loads the model while this one imports torch and loads the encoder.
        self._generator = load_generator(config.generate, run, threads=threads, wait=False)
        self._retriever = load_retriever(index, run, config, snapshot=system.snapshot) if index else None
        if torch := sys.modules.get("torch"):
            torch.set_num_threads(threads)
        self._k = self._retriever.k if self._retriever else config.retrieve.k
        self._instruction = system.instruction
        self._depth = max(self._k, *config.evaluate.recall_at)

    def do(self, unit: QuestionBatch) -> int:
        """Answer the questions of a batch."""
        write_json(self.folder / unit.name, self._answer(unit))
        return len(unit.examples)

    def describe(self, unit: QuestionBatch) -> str:
        """Name the questions of a batch."""
        return f"answering the questions with the ids {', '.join(example.id for example in unit.examples)}"

    def _found(self, unit: QuestionBatch) -> list[tuple[Hit, ...]]:
        """Return the passages of each question: those given, all alike, or what the retriever finds."""
        if unit.given:
            return [tuple(Hit(passage, 0.0, 0.0) for passage in passages) for passages in unit.given]
        questions = [example.question for example in unit.examples]
        results = (
            self._retriever.search(questions, self._depth) if self._retriever else [NOTHING_FOUND] * len(questions)
        )
        return [result.hits for result in results]

    def _answer(self, unit: QuestionBatch) -> list[dict[str, Any]]:
        examples, found = unit.examples, self._found(unit)
        questions = [example.question for example in examples]
        prompts = [
            GenerationRequest(question, hits[: self._k], instruction=self._instruction(question))
            for question, hits in zip(questions, found, strict=True)
        ]
        return [
            {
                "id": example.id,
                "question": example.question,
                "prediction": with_known_numbers(answer.text, 0) if answer.numbered else answer.text,
                "text": answer.text,
                "numbered": answer.numbered,
                "answers": list(example.answers),
                "finish_reason": answer.finish_reason,
                "gold_ids": list(example.gold_ids),
                "gold_ranks": gold_ranks(hits, example.gold_ids),
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
    gold: bool = False,
    bounds: Mapping[str, Path] | None = None,
    baseline: Path | None = None,
    executor: Executor,
) -> EvaluationReport:
    """Answer every example and score the answers; without an index, or with ``closed_book``, no passages are read.

    ``examples`` is a path or URI, a pandas DataFrame, a `datasets.Dataset`, or a list of mappings or `Example`s. With ``gold`` each
    question is answered from the passages that its gold ids name, and those without any are left out. ``bounds`` are reports of
    other systems on the same questions that are shown beside this one (`ragray.stages.bounds`), ``baseline`` is one that it is
    compared with.

    Raises:
        InputError: an example is wrong, or there is none; the message names place and field. The baseline shares no id.
        EncoderMismatchError: run and index do not belong together.
        MissingPackageError: a measure of ``evaluate.metrics`` needs a package that is not installed.
    """
    started = monotonic()
    if index is None and not closed_book:
        raise ConfigError("evaluate: give --index INDEX, or --closed-book to answer without passages")
    read = read_examples(examples, config.examples)
    require_measurable(config.evaluate, read, with_passages=not closed_book)
    questions = spread(read, config.evaluate.limit)
    system = _system(config, None if closed_book else index, run)
    system = replace(system, gold=gold, exemplars=exemplars(config))
    given = given_passages(questions, system) if gold else {}
    questions = [question for question in questions if question.id in given] if gold else questions
    beside = Beside(
        system=described(system),
        left_out={
            "examples without gold passages" if gold else "examples (evaluate.limit)": len(read) - len(questions)
        },
        bounds={name: read_bound(name, folder) for name, folder in (bounds or {}).items()},
        baseline=read_baseline(baseline) if baseline else None,
    )
    if prompts := load_template(system.config.generate, run):
        check_questions(questions, prompts, system.instruction)
    key = _key(questions, system)
    scored = Scored(system.config, system.index, system.snapshot, retrieved=not gold)
    with stage_output(out, kind="report", work=PARTS_FOLDER) as output:
        manifest = output.finished(key)
        if not manifest:
            lines = _answers(questions, given, system, output.resume(key), executor)
            unknown = warn_of_unknown_gold_ids(questions, system.index, system.snapshot) if system.index else 0
            publish_report(output, key, lines, replace(scored, num_unknown_gold_ids=unknown), beside)
        elif manifest.facts.get(SCORING_FACT) != scoring_key(config.evaluate, beside):
            unknown = fact(out, manifest, "num_unknown_gold_ids", int)
            publish_report(output, key, read_lines(out), replace(scored, num_unknown_gold_ids=unknown), beside)
    return read_report(out, monotonic() - started, reused=manifest is not None)


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
        opened.require_index(reader.snapshot.encoder, here=f"index snapshot {reader.snapshot.name}", there=f"run {run}")
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
    if system.exemplars:
        parts += ["exemplars", config.evaluate.shots, [example.content for example in system.exemplars]]
    if system.gold:
        parts += ["gold passages", system.snapshot, config.retrieve.k]
    elif system.index:
        parts.append(_weights(config.retrieve.rerank_model))
        retrieve = with_tuned(config, system.index, system.snapshot).retrieve
        parts += [system.snapshot, retrieve.model_dump(mode="json", exclude=set(NOT_DECISIVE))]
        parts.append(list(config.evaluate.recall_at))
        if "model" in config.embed.model_fields_set:
            parts.append({name: getattr(config.embed, name) for name in EncoderConfig.model_fields})
    return fingerprint(parts)


def _decisive(config: GenerateConfig) -> dict[str, Any]:
    """Return the settings of a generator; those added since reports were first written only where they are not the default."""
    later = ("strategy", "engine", "spans", "prior")
    added = {key for key in later if getattr(config, key) == GenerateConfig.model_fields[key].default}
    return config.model_dump(mode="json", exclude=added | {"task"})


def _weights(model: str) -> str:
    """Fingerprint the weights that a name stands for now."""
    return weights_fingerprint(resolve_model(model)) if model not in ("", FAKE) else model


def _answers(
    questions: list[Example],
    given: Mapping[str, tuple[Passage, ...]],
    system: SystemUnderTest,
    parts: Path,
    executor: Executor,
) -> list[dict[str, Any]]:
    """Answer the questions whose answers no earlier run left in ``parts``; return the lines of all, in order."""
    settings, size = system.config.evaluate, unit_size(len(questions), system.config.generate.batch_size)
    plan = [
        QuestionBatch(f"part-{start:08}-{size}.json", batch, tuple(given[one.id] for one in batch) if given else ())
        for start in range(0, len(questions), size)
        if (batch := tuple(questions[start : start + size]))
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


def unit_size(num_questions: int, batch_size: int) -> int:
    """Return how many questions a unit of work holds: whole batches of the generator."""
    return batch_size * max(1, min(MOST_BATCHES, num_questions // (FEWEST_UNITS * batch_size)))
