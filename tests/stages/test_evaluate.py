"""Evaluation: scores of known answers, parts of a killed run are kept, nothing is answered twice."""

import json
import logging
import os
import shutil
import signal
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import pandas
import pytest

from ragray import sample
from ragray.artifact.manifest import unpublish
from ragray.config import load_config
from ragray.errors import ConfigError, InputError, ModelNotFoundError
from ragray.evaluate.answers import score
from ragray.evaluate.report.assemble import DETAILS_FILE, REPORT_FILE
from ragray.examples import read_examples
from ragray.execute.processes import ProcessExecutor
from ragray.generate.engine import Generation, GenerationRequest, Runner, Sampling
from ragray.generate.generator import Generator
from ragray.index.store.snapshot import current_name
from ragray.stages import evaluate
from ragray.stages.bounds import BOUNDS_FOLDER, bounds_of, evaluate_with_bounds
from ragray.stages.evaluate import AnswerQuestions, SystemUnderTest, spread, unit_size
from ragray.stages.report import PAGE_FILE, PREDICTIONS_FILE
from ragray.types import Example
from tests.executors import INLINE, UNUSED, Interfering
from tests.helpers import index_of, some_passages, write_index

evaluate_rag = partial(evaluate.evaluate_rag, executor=INLINE)
FAKE = ["generate.model=first-sentence", "generate.batch_size=4", "evaluate.num_workers=2"]
CONFIG = load_config(None, FAKE)


@pytest.fixture(scope="module")
def examples(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twenty questions that are passages themselves; the fake generator answers every second one as expected."""
    path = tmp_path_factory.mktemp("examples") / "test.jsonl"
    with path.open("w", encoding="utf-8") as file:
        for number, passage in enumerate(some_passages(20)):
            answer = passage.text if number % 2 else "something else"
            line = {"id": f"q{number}", "question": passage.text, "answers": [answer], "gold_ids": [passage.id]}
            file.write(json.dumps(line) + "\n")
    return path


@pytest.fixture(scope="module")
def report(hash_index: Path, examples: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("reports") / "open"
    evaluate_rag(examples, out, CONFIG, index=hash_index)
    return out


def test_every_question_is_answered_once_and_scored(report: Path, hash_index: Path, examples: Path) -> None:
    again = evaluate_rag(examples, report, CONFIG, index=hash_index, executor=UNUSED)
    assert again.reused
    assert again.answers.exact_match == 50.0
    assert again.ranking is not None
    assert again.ranking.recall[1] == 100.0
    predictions = json.loads((report / PREDICTIONS_FILE).read_text(encoding="utf-8"))
    assert list(predictions) == [example.id for example in read_examples(examples)]
    assert score(predictions, read_examples(examples)).exact_match == 50.0


def test_numbers_that_cite_are_no_part_of_a_prediction(hash_index: Path, examples: Path, tmp_path: Path) -> None:
    """They name passages of the prompt; with them no answer would be an exact match."""
    together = load_config(None, [*FAKE, "generate.strategy=together"])
    assert evaluate_rag(examples, tmp_path, together, index=hash_index).answers.exact_match == 50.0
    assert "[" not in (tmp_path / PREDICTIONS_FILE).read_text(encoding="utf-8")


def test_the_same_questions_from_a_table_are_not_answered_again(
    report: Path, hash_index: Path, examples: Path, tmp_path: Path
) -> None:
    frame = pandas.read_json(examples, lines=True)
    frame.to_csv(tmp_path / "test.csv", index=False)
    for source in (frame, tmp_path / "test.csv", str(examples), read_examples(examples)):
        assert evaluate_rag(source, report, CONFIG, index=hash_index, executor=UNUSED).reused


def test_a_closed_book_has_no_ranking_and_no_sources(examples: Path, tmp_path: Path) -> None:
    found = evaluate_rag(examples, tmp_path, CONFIG, index=None, closed_book=True)
    assert found.ranking is None
    assert found.answers.exact_match == 0.0
    assert all(not json.loads(line)["sources"] for line in (tmp_path / DETAILS_FILE).read_text().splitlines())


def test_answers_of_a_killed_run_are_kept(report: Path, hash_index: Path, examples: Path, tmp_path: Path) -> None:
    """Parts that are there are used as they are: planted answers come through, the missing ones are computed."""
    key = json.loads((report / "manifest.json").read_text())["fingerprint"]
    lines = [json.loads(line) for line in (report / DETAILS_FILE).read_text().splitlines()]
    parts = tmp_path / ".parts" / key
    parts.mkdir(parents=True)
    (tmp_path / ".lock").touch()
    planted = [{**line, "prediction": "planted"} for line in lines[4:8]]
    (parts / "part-00000004-4.json").write_text(json.dumps(planted), encoding="utf-8")
    evaluate_rag(examples, tmp_path, CONFIG, index=hash_index)
    predictions = json.loads((tmp_path / PREDICTIONS_FILE).read_text())
    assert [name for name, text in predictions.items() if text == "planted"] == ["q4", "q5", "q6", "q7"]


@pytest.mark.parametrize(("num_questions", "size"), [(1, 8), (70, 8), (256, 16), (300, 16), (512, 32), (9999, 32)])
def test_many_questions_are_handed_out_in_units_of_several_batches(num_questions: int, size: int) -> None:
    """Of 32 questions those of like length are answered side by side; of few questions every worker gets some."""
    assert unit_size(num_questions, batch_size=8) == size


def test_other_settings_are_evaluated_anew(report: Path, hash_index: Path, examples: Path, tmp_path: Path) -> None:
    shutil.copytree(report, tmp_path / "report")
    other = load_config(None, [*FAKE, "retrieve.k=1"])
    assert not evaluate_rag(examples, tmp_path / "report", other, index=hash_index).reused


def test_the_key_holds_what_decides_the_answers_and_nothing_else(hash_index: Path) -> None:
    def key_of(*overrides: str) -> str:
        return evaluate._key([], evaluate._system(load_config(None, [*FAKE, *overrides]), hash_index, None))

    others = ["retrieve.candidates=7", "retrieve.where=n == 1", "embed.model=hash:64", "evaluate.recall_at=[2]"]
    assert len({key_of(), *map(key_of, others)}) == 5
    assert key_of("evaluate.num_workers=1", "retrieve.threads=2", "embed.num_workers=7") == key_of()


def test_what_is_wrong_with_the_settings_is_said_before_a_worker_starts(
    hash_index: Path, examples: Path, tmp_path: Path
) -> None:
    evaluate_rag = partial(evaluate.evaluate_rag, executor=UNUSED)
    with pytest.raises(ModelNotFoundError, match="no model 'gpt-9'"):
        evaluate_rag(examples, tmp_path, load_config(None, ["generate.model=gpt-9"]), index=hash_index)
    with pytest.raises(InputError, match="n =="):
        evaluate_rag(examples, tmp_path, load_config(None, [*FAKE, "retrieve.where=n =="]), index=hash_index)


class Refusing(AnswerQuestions):
    def set_up(self, system: SystemUnderTest) -> None:
        raise ModelNotFoundError("no model 'x'")


def test_what_goes_wrong_in_a_worker_arrives_in_one_line(hash_index: Path, examples: Path, tmp_path: Path) -> None:
    executor = Interfering(task=Refusing)
    with pytest.raises(ModelNotFoundError, match=r"^no model 'x'$"):
        evaluate_rag(examples, tmp_path, CONFIG, index=hash_index, executor=executor)
    assert not (tmp_path / "manifest.json").exists()


def test_a_snapshot_published_meanwhile_answers_nothing(examples: Path, tmp_path: Path) -> None:
    index = index_of(tmp_path, some_passages(40))

    def publish() -> None:
        write_index(index, tmp_path / "embeddings", tmp_path / "corpus", name="000002-empty", deleted=range(20))

    executor = Interfering(first=publish)
    found = evaluate_rag(examples, tmp_path / "report", CONFIG, index=index, executor=executor).ranking
    assert found and found.recall[1] == 100
    assert current_name(index) == "000002-empty"


def test_a_report_without_manifest_is_made_again(
    report: Path, hash_index: Path, examples: Path, tmp_path: Path
) -> None:
    shutil.copytree(report, tmp_path / "report")
    unpublish(tmp_path / "report")
    assert not evaluate_rag(examples, tmp_path / "report", CONFIG, index=hash_index).reused


def test_an_index_or_closed_book_must_be_named(examples: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="--closed-book"):
        evaluate_rag(examples, tmp_path, CONFIG, index=None)


def test_a_limit_is_spread_over_the_file() -> None:
    examples = [Example(str(number), "?", ("a",)) for number in range(100)]
    assert [example.id for example in spread(examples, 4)] == ["0", "25", "50", "75"]
    assert spread(examples, 0) == examples


FILES = (REPORT_FILE, PAGE_FILE, PREDICTIONS_FILE, DETAILS_FILE)


def test_a_report_of_two_processes_one_killed_on_the_way_is_that_of_one(
    report: Path, hash_index: Path, examples: Path, tmp_path: Path
) -> None:
    executor = Interfering(executor=ProcessExecutor(), task=DyingOnce)
    evaluate_rag(examples, tmp_path / "report", CONFIG, index=hash_index, executor=executor)
    assert {name: (tmp_path / "report" / name).read_bytes() for name in FILES} == {
        name: (report / name).read_bytes() for name in FILES
    }


class DyingOnce(AnswerQuestions):
    """The first process that does the second batch dies as by kill -9."""

    def do(self, unit: evaluate.QuestionBatch) -> int:
        mark = self.folder.parent / "died"
        if unit.examples[0].id == "q4" and not mark.exists():
            mark.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return super().do(unit)


def test_an_interrupted_evaluation_goes_on_to_the_same_report(
    report: Path, hash_index: Path, examples: Path, tmp_path: Path
) -> None:
    out = tmp_path / "report"
    with pytest.raises(KeyboardInterrupt):
        evaluate_rag(examples, out, CONFIG, index=hash_index, executor=Interfering(stop_after=2))
    kept = {path: path.stat().st_mtime_ns for path in (out / ".parts").glob("*/part-*.json")}
    assert len(kept) == 2
    evaluate_rag(examples, out, CONFIG, index=hash_index)
    assert all((out / name).read_bytes() == (report / name).read_bytes() for name in FILES)


def test_a_finished_report_is_scored_again_by_other_measures_and_no_question_answered_again(
    report: Path, hash_index: Path, examples: Path, tmp_path: Path
) -> None:
    out = Path(shutil.copytree(report, tmp_path / "report"))
    asked = load_config(None, [*FAKE, "evaluate.metrics=macro_f1,citation_recall"])
    found = evaluate_rag(examples, out, asked, index=hash_index, executor=UNUSED)
    assert found.reused
    assert {"macro_f1", "citation_recall"} <= found.figures.keys()
    assert found.figures["exact_match"].low < found.answers.exact_match < found.figures["exact_match"].high
    again = evaluate_rag(examples, out, CONFIG, index=hash_index, executor=UNUSED)
    assert "macro_f1" not in again.figures


def test_citations_are_those_that_the_answer_was_written_with(hash_index: Path, examples: Path, tmp_path: Path) -> None:
    config = load_config(
        None, [*FAKE, "generate.strategy=together", "evaluate.metrics=citation_recall,citation_precision"]
    )
    found = evaluate_rag(examples, tmp_path, config, index=hash_index)
    assert (found.figures["citation_recall"].value, found.figures["citation_precision"].value) == (100, 100)
    [first, *_] = map(json.loads, (tmp_path / DETAILS_FILE).read_text().splitlines())
    assert first["text"].endswith(" [1]")
    assert "[1]" not in first["prediction"]


def test_measures_that_cannot_be_taken_are_refused_before_anything_starts(examples: Path, tmp_path: Path) -> None:
    config = load_config(None, [*FAKE, "evaluate.metrics=citation_recall"])
    with pytest.raises(ConfigError, match="citation_recall needs passages"):
        evaluate_rag(examples, tmp_path / "report", config, index=None, closed_book=True, executor=UNUSED)
    assert not (tmp_path / "report").exists()


def test_a_baseline_is_compared_question_by_question(
    report: Path, hash_index: Path, examples: Path, tmp_path: Path
) -> None:
    fewer = read_examples(examples)[:10]
    evaluate_rag(fewer, tmp_path, CONFIG, index=None, closed_book=True, baseline=report)
    raw = json.loads((tmp_path / REPORT_FILE).read_text())["baseline"]
    assert (raw["num_shared"], len(raw["only_here"]), len(raw["only_baseline"])) == (10, 0, 10)
    exact = raw["figures"]["exact_match"]
    assert (exact["here"], exact["baseline"], exact["difference"]) == (0, 50, -50)
    assert exact["high"] < 0
    assert "Against the baseline" in (tmp_path / PAGE_FILE).read_text()


def test_bounds_are_reports_of_their_own_beside_the_figures(hash_index: Path, examples: Path, tmp_path: Path) -> None:
    found = evaluate_with_bounds(examples, tmp_path, CONFIG, index=hash_index, executor=INLINE)
    assert {name: one["exact_match"].value for name, one in found.bounds.items()} == {
        "closed_book": 0,
        "gold_passage": 50,
    }
    gold = tmp_path / BOUNDS_FOLDER / "gold_passage"
    lines = [json.loads(line) for line in (gold / DETAILS_FILE).read_text().splitlines()]
    assert [line["sources"] for line in lines] == [line["gold_ids"] for line in lines]
    assert json.loads((gold / REPORT_FILE).read_text())["retrieval"] is None
    again = evaluate_with_bounds(examples, tmp_path, CONFIG, index=hash_index, executor=UNUSED)
    assert again.reused


def test_a_gold_bound_is_over_the_questions_that_have_a_gold_passage(
    hash_index: Path, examples: Path, tmp_path: Path
) -> None:
    read = read_examples(examples)
    some = [
        replace(read[0], gold_ids=("nowhere",)),
        replace(read[1], gold_ids=("d0", "p1")),
        replace(read[2], gold_ids=()),
    ]
    found = evaluate_rag(some, tmp_path / "some", CONFIG, index=hash_index, gold=True)
    assert found.answers.num_examples == 1
    [line] = (tmp_path / "some" / DETAILS_FILE).read_text().splitlines()
    assert json.loads(line)["sources"] == ["p0", "p1"]
    with pytest.raises(InputError, match="no gold passage to read"):
        evaluate_rag(some[:1], tmp_path / "none", CONFIG, index=hash_index, gold=True)


def test_examples_without_gold_ids_have_no_gold_bound(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, logger="ragray"):
        assert list(bounds_of(CONFIG, None, has_gold=False)) == ["closed_book"]
    assert "no bound with gold passages" in caplog.text


# Solved examples in prompts.


def test_solved_examples_are_shown_in_every_prompt_but_for_the_question_itself(
    hash_index: Path, examples: Path, tmp_path: Path
) -> None:
    shown = tmp_path / "train.jsonl"
    asked = read_examples(examples)
    texts = [asked[0].question, "Where does it end?", "Why?"]
    shown.write_text("".join(json.dumps({"question": text, "answers": [f"<{text}>"]}) + "\n" for text in texts))
    config = load_config(None, [*FAKE, "evaluate.shots=2", f"evaluate.exemplars={shown}"])
    executor = Interfering(task=Telling)
    found = evaluate_rag(examples, tmp_path / "report", config, index=hash_index, executor=executor)
    told = [json.loads(line)["prediction"] for line in (tmp_path / "report" / DETAILS_FILE).read_text().splitlines()]
    assert f"<{texts[0]}>" not in told[0]
    assert all(f"<{texts[0]}>" in text for text in told[1:])
    assert all(text.count("Question:") == 2 and text.endswith("Answer with a few words.") for text in told)
    assert found.answers.num_examples == 20


class Telling(AnswerQuestions):
    """Answers with the instruction."""

    def set_up(self, system: SystemUnderTest) -> None:
        super().set_up(system)
        self._generator = Instructed()


class Instructed(Generator):
    def check(self, question: str, instruction: str = "") -> None:
        """Accept every question."""

    def open_runner(self) -> Runner:
        raise AssertionError("is not used")

    def generate(self, requests: Sequence[GenerationRequest], samplings: Sequence[Sampling] = ()) -> list[Generation]:
        return [Generation(request.instruction, (1.0,)) for request in requests]


def test_other_solved_examples_are_evaluated_anew(hash_index: Path, examples: Path) -> None:
    system = evaluate._system(CONFIG, hash_index, None)
    shown = [replace(system, exemplars=(Example(name, name, ("x",)),)) for name in "ab"]
    assert len({evaluate._key([], one) for one in (system, *shown)}) == 3


def test_shots_need_exemplars(hash_index: Path, examples: Path, tmp_path: Path) -> None:
    config = load_config(None, [*FAKE, "evaluate.shots=1"])
    with pytest.raises(ConfigError, match=r"evaluate\.shots=1 needs evaluate\.exemplars"):
        evaluate_rag(examples, tmp_path / "report", config, index=hash_index, executor=UNUSED)


@pytest.mark.parametrize("task", ["question_answering", "sentiment"])
def test_a_task_is_evaluated_by_its_measures(task: str, tmp_path: Path) -> None:
    """The fake generator's answer without passages has no label."""
    config = load_config(
        None,
        [*FAKE, f"generate.task={task}", "examples.question_field=input", "examples.answers_field=target"],
    )
    found = evaluate_rag(sample.FOLDER / "sentiment.jsonl", tmp_path, config, index=None, closed_book=True)
    assert set(found.figures) == {"exact_match", "f1", "accuracy", *config.evaluate.metrics}
    if task == "sentiment":
        assert found.figures["macro_f1"].value == 0
