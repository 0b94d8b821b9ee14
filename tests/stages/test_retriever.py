"""What a retriever learns from, and whether its trained encoder is kept."""

from pathlib import Path

import numpy as np
import pytest

from ragray.artifact.manifest import publish
from ragray.config import Config, load_config
from ragray.errors import InputError, TrainingError
from ragray.generate.load import effective
from ragray.index.search.reader import IndexReader
from ragray.retrieve.load import load_retriever
from ragray.retrieve.mining.triples import write_triples
from ragray.run import ENCODER_FOLDER, MODEL_FOLDER, PASSAGE_ENCODER_FOLDER, Run, RunFacts
from ragray.stages.retriever import REJECTED, conclude, plan_retriever, verdict
from tests.train.retriever_rig import QUESTIONS, RetrieverRig, triples


@pytest.fixture
def mined(tmp_path: Path) -> Path:
    path = tmp_path / "triples.jsonl"
    write_triples(path, [triple for question in QUESTIONS for triple in question])
    return path


@pytest.fixture
def rig(tiny_encoder: Path) -> RetrieverRig:
    return RetrieverRig(tiny_encoder)


def settings(*overrides: str) -> Config:
    return load_config(None, ["train.objective=contrastive", "train.dev_share=0.3", "retrieve.k=1", *overrides])


def concluded(index: Path, mined: Path, out: Path, *overrides: str) -> RunFacts:
    config = settings(*overrides)
    return conclude(plan_retriever(index, mined, config), out, config, num_steps=3, final_loss=0.5)


def test_the_plan_holds_some_questions_out_and_has_the_vectors_of_the_index(
    tiny_encoder_index: Path, mined: Path
) -> None:
    plan = plan_retriever(tiny_encoder_index, mined, settings())
    assert plan.held_out is not None
    ids = {example.id for part in (plan.learnt, plan.held_out) for example in part.examples}
    assert ids == {f"q{n}" for n in range(10)}
    assert plan.learnt.vectors_MD is not None
    vectors = IndexReader.open(tiny_encoder_index).segments[0].segment.vectors_ND
    for name, vector in zip(plan.learnt.passage_ids, plan.learnt.vectors_MD, strict=True):
        assert np.array_equal(vector, vectors[int(name[1:])])


def test_an_encoder_that_finds_no_more_is_not_kept_and_the_run_searches_with_that_of_the_index(
    tiny_encoder_index: Path, mined: Path, rig: RetrieverRig, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    rig.objective()[0].save(out / MODEL_FOLDER)  # not trained at all
    facts = concluded(tiny_encoder_index, mined, out)
    assert (facts.kept, facts.objective) == ("base", "contrastive")
    assert facts.dev is not None
    assert facts.dev.before == facts.dev.after
    assert verdict(facts).startswith("base kept: no gain on dev: recall@1 of 4 held-out questions")
    assert [path.name for path in (out / MODEL_FOLDER).iterdir()] == [REJECTED + ENCODER_FOLDER]
    publish(out, kind="run", fingerprint="f", facts=facts.model_dump(mode="json"), files=[])
    query = QUESTIONS[0][0].question
    found = [load_retriever(tiny_encoder_index, run, Config()).search([query], 3) for run in (out, None)]
    assert found[0] == found[1]


def test_an_encoder_that_finds_more_is_kept_and_the_run_leaves_answers_to_the_settings(
    tiny_encoder_index: Path, mined: Path, rig: RetrieverRig, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    loop = rig.loop(epochs=25, batch_size=10, encoder_lr=5e-3)  # on all questions, those that are held out below too
    loop.run(lambda step: None)
    loop.components.save(out / MODEL_FOLDER)
    facts = concluded(tiny_encoder_index, mined, out)
    assert facts.kept == "trained"
    assert facts.dev is not None
    assert facts.dev.after > facts.dev.before
    assert verdict(facts).startswith("trained encoder kept: recall@1 of 4 held-out questions")
    files = [path for path in out.rglob("*") if path.is_file()]
    publish(out, kind="run", fingerprint="f", facts=facts.model_dump(mode="json"), files=files)
    config = load_config(None, ["generate.instruction=Short.", "retrieve.mode=lexical"])
    assert Run.open(out).settings(config) is config
    assert effective(config.generate, out) == (config.generate, None)


def test_a_run_with_a_passage_encoder_fits_an_index_that_is_built_with_it(
    tiny_encoder_index: Path, mined: Path, rig: RetrieverRig, tmp_path: Path
) -> None:
    rig.objective(passage_encoder=True)[0].save(tmp_path / "run" / MODEL_FOLDER)
    facts = concluded(tiny_encoder_index, mined, tmp_path / "run", "train.passage_encoder=true", "train.dev_share=0")
    assert facts.rebuild_index
    assert facts.encoder.model == str(tmp_path / "run" / MODEL_FOLDER / PASSAGE_ENCODER_FOLDER)
    assert verdict(facts).endswith("searches need an index built with its model/passage_encoder")


def test_a_passage_encoder_is_measured_among_the_passages_of_the_held_out_questions(
    tiny_encoder_index: Path, mined: Path, rig: RetrieverRig, tmp_path: Path
) -> None:
    rig.objective(passage_encoder=True)[0].save(tmp_path / "run" / MODEL_FOLDER)
    facts = concluded(tiny_encoder_index, mined, tmp_path / "run", "train.passage_encoder=true")
    assert facts.dev is not None
    assert (facts.dev.among, facts.dev.before, facts.kept) == ("pool", facts.dev.after, "base")
    assert not facts.rebuild_index


def test_what_cannot_be_learnt_from_is_named(
    tiny_encoder_index: Path, hash_index: Path, mined: Path, tmp_path: Path
) -> None:
    with pytest.raises(TrainingError, match="'hash:64' has no weights to train"):
        plan_retriever(hash_index, mined, settings())
    write_triples(tmp_path / "one.jsonl", QUESTIONS[0])
    with pytest.raises(InputError, match="no question is left to train on"):
        plan_retriever(tiny_encoder_index, tmp_path / "one.jsonl", settings("train.dev_share=0.9"))
    lost = triples(0, 0, 1)[0].model_copy(update={"negative_id": "p99"})
    write_triples(tmp_path / "lost.jsonl", [lost])
    with pytest.raises(InputError, match=r"does not hold 1 of its passages \(the first: 'p99'\); mine again"):
        plan_retriever(tiny_encoder_index, tmp_path / "lost.jsonl", settings("train.dev_share=0"))
