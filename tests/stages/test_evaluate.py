"""Evaluation: scores of known answers, parts of a killed run are kept, nothing is answered twice."""

import json
import shutil
from functools import partial
from pathlib import Path

import pandas
import pytest

from ragray.artifact.manifest import unpublish
from ragray.config import load_config
from ragray.errors import ConfigError, InputError, ModelNotFoundError
from ragray.evaluate.answers import score
from ragray.examples import read_examples
from ragray.index.store.snapshot import current_name
from ragray.stages import evaluate
from ragray.stages.evaluate import DETAILS_FILE, PREDICTIONS_FILE, AnswerQuestions, SystemUnderTest, spread, unit_size
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
