"""A run brings settings along; those that were given and are not in force are said."""

import logging
from pathlib import Path

import pytest

from ragray.config import Config, GenerateConfig, load_config
from ragray.embed.encoder import EncoderFingerprint
from ragray.run import Run, RunFacts

FACTS = RunFacts(
    generate=GenerateConfig(instruction="Short.", temperature=0.1),
    k=2,
    encoder=EncoderFingerprint(
        model="m", weights="w", dim=4, pooling="mean", normalize=True, max_length=8, passage_prefix=""
    ),
    snapshot="s",
    num_steps=1,
    num_examples=1,
    final_loss=1.0,
)
RUN = Run(Path("run"), "run-1", FACTS)


def settings(*overrides: str) -> Config:
    return RUN.settings(load_config(None, overrides))


def test_a_run_answers_with_its_own_prompt_and_number_of_passages(caplog: pytest.LogCaptureFixture) -> None:
    found = settings("generate.max_new_tokens=7")
    assert (found.generate.instruction, found.generate.temperature, found.retrieve.k) == ("Short.", 0.1, 2)
    assert found.generate.max_new_tokens == 7
    assert not caplog.records


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("generate.instruction=Long.", "generate.instruction=Long. has no effect: run run-1 answers with Short."),
        ("generate.temperature=0.5", "generate.temperature=0.5 has no effect"),
        ("generate.model=other", "generate.model=other has no effect"),
        ("generate.max_prompt_tokens=99", "generate.max_prompt_tokens=99 has no effect"),
        ("retrieve.k=5", "retrieve.k=5 is used, though run run-1 was trained with k=2"),
    ],
)
def test_a_setting_that_the_run_overrides_is_said(override: str, said: str, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, logger="ragray"):
        settings(override)
    assert [said in record.getMessage() for record in caplog.records] == [True]


def test_a_number_of_passages_that_was_given_is_used(caplog: pytest.LogCaptureFixture) -> None:
    assert settings("retrieve.k=5").retrieve.k == 5
