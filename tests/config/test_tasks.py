"""Presets of tasks: what belongs together is set together, and what was given stays."""

import pytest

from ragray.config import Config, known_keys, load_config
from ragray.config.tasks import PRESETS, with_task
from ragray.errors import ConfigError


@pytest.mark.parametrize("task", PRESETS)
def test_a_task_sets_instruction_limits_and_measures_by_keys_that_exist(task: str) -> None:
    assert set(PRESETS[task]) <= set(known_keys())
    config = load_config(None, [f"generate.task={task}"])
    assert config.generate.instruction == PRESETS[task]["generate.instruction"]
    assert config.generate.max_new_tokens == PRESETS[task]["generate.max_new_tokens"]
    assert list(config.evaluate.metrics) == PRESETS[task].get("evaluate.metrics", [])


def test_a_setting_that_was_given_keeps_its_value() -> None:
    config = load_config(None, ["generate.task=sentiment", "generate.max_new_tokens=9", "evaluate.metrics=[]"])
    assert (config.generate.max_new_tokens, config.evaluate.metrics) == (9, ())


def test_without_a_task_nothing_changes() -> None:
    assert load_config() == Config()
    assert with_task({"generate": {"task": ""}, "train": {"epochs": 2}}) == {
        "generate": {"task": ""},
        "train": {"epochs": 2},
    }


def test_an_unknown_task_is_refused_with_those_that_there_are() -> None:
    with pytest.raises(ConfigError, match=r"generate\.task.*'summarization'.*found 'poetry'"):
        load_config(None, ["generate.task=poetry"])
