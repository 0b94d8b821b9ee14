"""The examples of validations: a fixed sample, and what is refused before anything starts."""

import json
from pathlib import Path

import pytest

from ragray.config import Config, load_config
from ragray.errors import ConfigError, InputError
from ragray.index.search.reader import IndexReader
from ragray.stages.validation.dev import DevSet, dev_set, sample
from ragray.train.mined import MinedQuestions
from ragray.train.validation.judge import ValidationPlan
from ragray.types import Example
from tests.train.retriever_rig import QUESTIONS

EXAMPLES = [Example(f"e{n}", f"which is {n}?", ("red",), (f"p{n}",)) for n in range(20)]
HELD_OUT = MinedQuestions.of(QUESTIONS[:4])


def write(path: Path, *, gold: bool = True) -> Path:
    lines = [
        {"id": one.id, "question": one.question, "answers": one.answers, "gold_ids": one.gold_ids if gold else []}
        for one in EXAMPLES
    ]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    return path


def config(*overrides: str) -> Config:
    return load_config(None, ["generate.model=first-sentence", *overrides])


def chosen(index: Path, settings: Config, held_out: MinedQuestions | None = None) -> DevSet | None:
    return dev_set(settings, index, IndexReader.open(index).snapshot, EXAMPLES[:3], held_out)


def test_a_sample_is_the_same_for_a_seed_and_stands_in_the_order_of_the_file() -> None:
    drawn = sample(EXAMPLES, 5, seed=1)
    assert drawn == sample(EXAMPLES, 5, seed=1) != sample(EXAMPLES, 5, seed=2)
    assert drawn == [one for one in EXAMPLES if one in drawn] and len(drawn) == 5
    assert sample(EXAMPLES, 0, seed=1) == sample(EXAMPLES, 99, seed=1) == EXAMPLES


def test_without_dev_examples_nothing_is_validated(hash_index: Path) -> None:
    assert chosen(hash_index, config("train.validate_steps=5")) is None


def test_it_is_validated_as_often_as_checkpoints_are_written_unless_it_is_said(
    hash_index: Path, tmp_path: Path
) -> None:
    given = [f"train.dev_examples={write(tmp_path / 'dev.jsonl')}", "train.patience=3", "train.num_dev_examples=5"]
    found = chosen(hash_index, config(*given, "train.checkpoint_steps=7"))
    assert found and len(found.examples) == 5
    assert found.plan == ValidationPlan(7, "exact_match", 3, 2)
    found = chosen(hash_index, config(*given, "train.validate_steps=4", "train.best_metric=recall"))
    assert found and found.plan == ValidationPlan(4, "recall", 3, 2)


def test_the_gold_passages_of_dev_examples_are_not_those_of_training_examples_with_the_same_id(
    hash_index: Path, tmp_path: Path
) -> None:
    given = [f"train.dev_examples={write(tmp_path / 'dev.jsonl')}", "generate.strategy=together"]
    found = chosen(hash_index, config(*given))
    assert found
    assert {name: [p.id for p in passages] for name, passages in found.gold.items()} == {
        f"dev/e{n}": [f"p{n}"] for n in range(20)
    }


def test_questions_that_are_also_trained_on_are_counted(
    hash_index: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    chosen(hash_index, config(f"train.dev_examples={write(tmp_path / 'dev.jsonl')}"))
    assert "3 of 20 questions of train.dev_examples are also trained on" in caplog.text


def test_a_retriever_is_validated_with_the_questions_that_are_held_out_from_it(hash_index: Path) -> None:
    given = ["train.objective=contrastive", "train.validate_steps=5"]
    found = chosen(hash_index, config(*given), HELD_OUT)
    assert found and found.plan.metric == "recall" and found.pool is None
    assert [one.question for one in found.examples] == [one.question for one in HELD_OUT.examples]
    found = chosen(hash_index, config(*given, "train.passage_encoder=true"), HELD_OUT)
    assert found and found.pool is HELD_OUT


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["train.objective=contrastive", "train.validate_steps=5"], "no question is held out .* raise train.dev_share"),
        (["train.objective=contrastive", "train.best_metric=f1", "DEV"], "trains no generator; use recall or auto"),
        (["train.objective=contrastive", "train.passage_encoder=true", "DEV"], "the index does not fit .* that trains"),
        (["train.best_metric=recall", "NO GOLD"], "no example of .*dev.jsonl has gold ids; name their column"),
    ],
)
def test_what_cannot_be_measured_is_refused(
    hash_index: Path, tmp_path: Path, overrides: list[str], message: str
) -> None:
    path = write(tmp_path / "dev.jsonl", gold="NO GOLD" not in overrides)
    given = [f"train.dev_examples={path}" if one in ("DEV", "NO GOLD") else one for one in overrides]
    with pytest.raises((ConfigError, InputError), match=message):
        chosen(hash_index, config(*given))


def test_another_sample_or_another_rule_is_another_run(hash_index: Path, tmp_path: Path) -> None:
    given = [f"train.dev_examples={write(tmp_path / 'dev.jsonl')}", "train.num_dev_examples=5"]

    def key(*more: str) -> object:
        found = chosen(hash_index, config(*given, *more))
        assert found
        return found.key

    assert key() == key("train.keep_checkpoints=9")
    assert (
        len({str(key(*more)) for more in ([], ["train.seed=3"], ["train.patience=1"], ["train.best_metric=f1"])}) == 4
    )
