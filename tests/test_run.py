"""A run brings settings along; those that were given and differ from the run's are named in the log."""

import logging
import shutil
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest

from ragray.artifact.manifest import publish
from ragray.config import Config, GenerateConfig, load_config
from ragray.embed.encoder import EncoderFingerprint
from ragray.errors import CorruptArtifactError, EncoderMismatchError
from ragray.generate.load import effective, load_generator
from ragray.generate.pipeline import Pipeline
from ragray.index.search.reader import IndexReader
from ragray.retrieve.load import load_retriever
from ragray.run import Run, RunFacts

FACTS = RunFacts(
    generate=GenerateConfig(instruction="Short.", passage_temperature=0.1),
    k=2,
    mode="hybrid",
    where="lang == en",
    rerank_model="judge",
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


def test_a_run_answers_with_its_own_prompt_and_retrieval(caplog: pytest.LogCaptureFixture) -> None:
    found = settings("generate.max_new_tokens=7", "retrieve.threads=3")
    assert (found.generate.instruction, found.generate.passage_temperature) == ("Short.", 0.1)
    assert (found.retrieve.k, found.retrieve.mode, found.retrieve.where) == (2, "hybrid", "lang == en")
    assert found.retrieve.rerank_model == "judge"
    assert (found.generate.max_new_tokens, found.retrieve.threads) == (7, 3)
    assert not caplog.records


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("generate.instruction=Long.", "generate.instruction=Long. has no effect: run run-1 answers with Short."),
        ("generate.model=other", "generate.model=other has no effect"),
        ("generate.max_prompt_tokens=99", "generate.max_prompt_tokens=99 has no effect"),
        ("generate.passage_temperature=0.5", "0.5 is used, though run run-1 was trained with passage_temperature=0.1"),
        ("retrieve.k=5", "retrieve.k=5 is used, though run run-1 was trained with k=2"),
        ("retrieve.mode=dense", "retrieve.mode=dense is used, though run run-1 was trained with mode=hybrid"),
        ("retrieve.where=", "retrieve.where= is used, though run run-1 was trained with where=lang == en"),
        ("retrieve.rerank_model=", "retrieve.rerank_model= is used, though run run-1 was trained with rerank_model=judge"),
    ],
)  # fmt: skip
def test_a_setting_that_differs_from_the_runs_is_said(
    override: str, said: str, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING, logger="ragray"):
        found = settings(override)
        RUN.settings(found)
    used = [record for record in caplog.records if said in record.getMessage()]
    assert [said in record.getMessage() for record in caplog.records][:1] == [True]
    assert len(used) == len(caplog.records)


@pytest.mark.parametrize(
    ("override", "section", "key", "value"),
    [
        ("generate.passage_temperature=0.5", "generate", "passage_temperature", 0.5),
        ("retrieve.k=5", "retrieve", "k", 5),
        ("retrieve.mode=dense", "retrieve", "mode", "dense"),
        ("retrieve.where=", "retrieve", "where", ""),
        ("retrieve.rerank_model=", "retrieve", "rerank_model", ""),
    ],
)
def test_retrieval_and_temperature_that_were_given_are_used_also_where_they_are_the_defaults(
    override: str, section: str, key: str, value: object
) -> None:
    found = settings(override)
    assert getattr(getattr(found, section), key) == value
    assert getattr(getattr(RUN.settings(found), section), key) == value


def test_settings_are_the_same_when_a_run_is_asked_twice() -> None:
    found = settings("retrieve.k=5", "generate.max_new_tokens=9")
    assert RUN.settings(found) == found


# Runs on disk.


def written(folder: Path, *, without: Sequence[str] = (), **changes: Any) -> Path:
    """A run folder that records FACTS with changes, and holds no weights."""
    facts = {**FACTS.model_dump(mode="json"), **changes}
    recorded = {key: value for key, value in facts.items() if key not in without}
    publish(folder, kind="run", fingerprint="0123456789", facts=recorded, files=[])
    return folder


def test_what_a_run_records_is_read_back(tmp_path: Path) -> None:
    assert Run.open(written(tmp_path)).facts == FACTS


def test_a_run_of_the_version_before_opens_and_answers_as_it_was_trained(tmp_path: Path) -> None:
    """It recorded `generate.temperature`, no retrieval but k, and found its passages by vectors among all."""
    generate = FACTS.generate.model_dump(mode="json")
    generate["temperature"] = generate.pop("passage_temperature")
    folder = written(tmp_path, without=("mode", "where", "rerank_model"), generate=generate)
    found = Run.open(folder).settings(load_config())
    assert (found.generate.passage_temperature, found.retrieve.k) == (0.1, 2)
    assert (found.retrieve.mode, found.retrieve.where, found.retrieve.rerank_model) == ("dense", "", "")
    assert effective(GenerateConfig(), folder)[0].passage_temperature == 0.1


def test_a_run_of_the_version_before_answers_as_one_of_this_version(
    tmp_path: Path, tiny_decoder: Path, tiny_encoder_index: Path
) -> None:
    generate = GenerateConfig(model=str(tiny_decoder), instruction="Short.", max_new_tokens=4, passage_temperature=0.5)
    recorded = generate.model_dump(mode="json")
    earlier = {key: value for key, value in recorded.items() if key != "passage_temperature"} | {"temperature": 0.5}
    encoder = asdict(IndexReader.open(tiny_encoder_index).snapshot.encoder)
    present = {"encoder": encoder, "generate": recorded, "mode": "dense", "where": "", "rerank_model": ""}
    answers = []
    for name, without, section in (("now", (), recorded), ("before", ("mode", "where", "rerank_model"), earlier)):
        shutil.copytree(tiny_decoder, tmp_path / name / "model" / "generator")
        run = written(tmp_path / name, without=without, **(present | {"generate": section}))
        settings = Run.open(run).settings(load_config(None, ["generate.max_new_tokens=4"]))
        retriever = load_retriever(tiny_encoder_index, run, settings, device="cpu")
        generator = load_generator(settings.generate, run, device="cpu")
        [answer] = Pipeline(retriever, generator, k=settings.retrieve.k).answer(["what is the colour of number 3?"])
        answers.append(answer)
    assert answers[0] == answers[1]
    assert len(answers[0].citations) == 2


def test_a_setting_that_no_version_recorded_is_refused(tmp_path: Path) -> None:
    generate = FACTS.generate.model_dump(mode="json") | {"sampling": 1}
    with pytest.raises(CorruptArtifactError, match=r"manifest\.json: facts are malformed"):
        Run.open(written(tmp_path, generate=generate))


def test_the_generator_of_a_run_takes_a_temperature_that_was_given(tmp_path: Path) -> None:
    folder = written(tmp_path)
    given, weights = effective(GenerateConfig(passage_temperature=0.7, instruction="Long.", max_new_tokens=5), folder)
    assert (given.passage_temperature, given.instruction, given.max_new_tokens) == (0.7, "Short.", 5)
    assert weights == folder / "model" / "generator"


@pytest.mark.parametrize(
    ("own", "advice"), [(True, "use the index of this run: {run}/index"), (False, "use one encoder")]
)
def test_an_index_of_other_weights_is_refused_with_the_index_that_fits(tmp_path: Path, own: bool, advice: str) -> None:
    run = Run.open(written(tmp_path / "run", own_index=own))
    other = replace(FACTS.encoder, weights="others")
    with pytest.raises(EncoderMismatchError) as caught:
        run.require_index(other, here="index snapshot 000001", there="the run")
    assert advice.format(run=tmp_path / "run") in str(caught.value) and "\n" not in str(caught.value)
    run.require_index(FACTS.encoder, here="index snapshot 000001", there="the run")
