"""`index tune`: what is measured equals searches with the settings, what is written is what searches use, and what undoes it."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from ragray.config import Config, IndexConfig, RetrieveConfig, load_config
from ragray.errors import InputError, SnapshotConflictError
from ragray.evaluate.encoded import encode_queries
from ragray.evaluate.fusion_grid import search_once
from ragray.evaluate.judged import JudgedQueries, judged_by_examples
from ragray.evaluate.ranking import ndcg
from ragray.evaluate.retrieval import hit_ids, unique_ids
from ragray.execute.inline import InlineExecutor
from ragray.index.check.inspect import inspect_index
from ragray.index.store.fusion_params import FusionParams
from ragray.index.store.lifecycle import list_snapshots, rollback
from ragray.index.store.snapshot import OLD_TUNED_FORMAT, TUNED_FORMAT, publish_snapshot, read_snapshot, successor
from ragray.index.write.delete import delete_passages
from ragray.retrieve.load import load_retriever
from ragray.stages import tune
from ragray.stages.compact import compact_index
from ragray.stages.tune import DEFAULT, tune_index
from ragray.types import Example, Passage
from tests.helpers import WORDS, index_of, sentence
from tests.index.made import copy_of

HYBRID = load_config(None, ["retrieve.mode=hybrid"])
NUM_QUERIES = 40


def passages() -> list[Passage]:
    """Documents of two passages; each has a code of its own among words that others have too."""
    return [
        Passage(f"d{n}#{part}", f"code{n} {sentence(3 * n + part)}" if part else sentence(3 * n), document_id=f"d{n}")
        for n in range(60)
        for part in (0, 1)
    ]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return index_of(tmp_path_factory.mktemp("tuned"), passages(), IndexConfig(lexical="english"))


@pytest.fixture
def index(made: Path, tmp_path: Path) -> Path:
    return copy_of(made, tmp_path / "index")


def judged(question: Callable[[int], str], num_queries: int = NUM_QUERIES) -> JudgedQueries:
    examples = [Example(f"q{n}", question(n), ("x",), (f"d{n}",)) for n in range(num_queries)]
    return judged_by_examples(examples, "examples")


CODES = judged(lambda n: f"code{n} {WORDS[n]} {WORDS[n + 1]}")
"""BM25 finds what they ask for by the rare word; the hashed vectors are misled by the others."""


@pytest.mark.parametrize(("weight", "depth"), [(0.0, 20), (0.35, 50), (1.0, 100)])
def test_rankings_of_the_grid_are_those_of_a_search_with_these_settings(index: Path, weight: float, depth: int) -> None:
    retriever = load_retriever(index, None, HYBRID)
    found = search_once("test", retriever, encode_queries("test", retriever, CODES), CODES.relevant, "")
    settings = ["retrieve.mode=hybrid", f"retrieve.dense_weight={weight}", f"retrieve.candidates={depth}"]
    slow = load_retriever(index, None, load_config(None, settings)).search(list(CODES.texts.values()), depth)
    wanted = [unique_ids(hit_ids(result.hits), 0)[:10] for result in slow]
    assert [ranked[:10] for ranked in found.convex(weight, depth)] == wanted


def test_rankings_by_ranks_are_those_of_a_search_by_ranks(index: Path) -> None:
    retriever = load_retriever(index, None, HYBRID)
    found = search_once("test", retriever, encode_queries("test", retriever, CODES), CODES.relevant, "")
    config = load_config(
        None, ["retrieve.mode=hybrid", "retrieve.fusion=rrf", "retrieve.rrf_k=7", "retrieve.candidates=50"]
    )
    slow = load_retriever(index, None, config).search(list(CODES.texts.values()), 50)
    wanted = [unique_ids(hit_ids(result.hits), 0)[:10] for result in slow]
    assert [ranked[:10] for ranked in found.by_ranks(7, 50)] == wanted


def test_a_clear_gain_is_written_into_a_snapshot_that_searches_use_and_rollback_undoes(index: Path) -> None:
    before = read_snapshot(index)
    report = tune_index(index, CODES, Config())
    after = read_snapshot(index)
    assert report.fit.clear
    assert report.published
    assert (after.name, after.parent, after.segments) == (report.snapshot, before.name, before.segments)
    assert after.fusion == report.chosen == FusionParams(*report.fit.best)
    assert after.fusion.dense_weight is not None
    assert after.fusion.dense_weight < DEFAULT[0]
    questions = list(CODES.texts.values())
    given = [f"retrieve.{key}={value}" for key, value in after.fusion.chosen()]
    wanted = load_retriever(index, None, load_config(None, ["retrieve.mode=hybrid", *given]), snapshot=before.name)
    tuned = load_retriever(index, None, HYBRID)
    assert [r.hits for r in tuned.search(questions, 5)] == [r.hits for r in wanted.search(questions, 5)]
    assert rollback(index) == before.name
    assert read_snapshot(index).fusion is None


def test_figures_are_those_of_the_searches(index: Path) -> None:
    report = tune_index(index, CODES, Config())
    for row, mode in (("lexical", "lexical"), ("dense", "dense"), ("default", "hybrid")):
        retriever = load_retriever(index, None, load_config(None, [f"retrieve.mode={mode}", "retrieve.candidates=100"]))
        settings = ["retrieve.dense_weight=0.45", "retrieve.candidates=100", f"retrieve.mode={mode}"]
        retriever = load_retriever(index, None, load_config(None, settings))
        results = retriever.search(list(CODES.texts.values()), 100)
        values = [
            ndcg(unique_ids(hit_ids(result.hits), 0), CODES.relevant[name], 10)
            for name, result in zip(CODES.texts, results, strict=True)
        ]
        assert report.rows[row]["ndcg@10"].mean == pytest.approx(sum(values) / len(values)), row
    assert report.rows["tuned"]["ndcg@10"].mean - report.rows["default"]["ndcg@10"].mean == pytest.approx(
        report.fit.gain
    )
    assert list(report.recall_at.values()) == sorted(report.recall_at.values())


def test_without_a_clear_gain_the_default_stays_and_nothing_is_published(index: Path) -> None:
    whole = judged(lambda n: f"code{n} {sentence(3 * n + 1)}")  # every search finds these
    report = tune_index(index, whole, Config())
    assert (report.fit.clear, report.published, report.chosen) == (False, False, None)
    assert len(list_snapshots(index)) == 1


def test_values_that_no_longer_gain_give_way_to_the_defaults_and_k_is_written_when_it_is_given(index: Path) -> None:
    whole = judged(lambda n: f"code{n} {sentence(3 * n + 1)}")
    tune_index(index, CODES, Config())
    assert tune_index(index, whole, Config(), k=7).chosen == FusionParams(k=7)
    assert load_retriever(index, None, HYBRID).k == 7
    assert load_retriever(index, None, load_config(None, ["retrieve.k=2"])).k == 2
    assert tune_index(index, whole, Config()).chosen == FusionParams(k=7)


def test_deletion_and_compaction_keep_what_was_tuned_and_lists_show_it(index: Path) -> None:
    chosen = tune_index(index, CODES, Config(), k=4).chosen
    delete_passages(index, ids=["d59"])
    assert read_snapshot(index).fusion == chosen
    compact_index(index, Config(), InlineExecutor())
    assert read_snapshot(index).fusion == chosen
    assert [info.fusion for info in list_snapshots(index)] == [None, chosen, chosen, chosen]
    assert f"hybrid     tuned to {chosen}" in inspect_index(index).lines()


@pytest.mark.parametrize("k", [None, 5])
def test_of_a_fusion_tuned_to_other_scores_only_k_still_holds(index: Path, k: int | None) -> None:
    base = read_snapshot(index)
    changes = {"fusion": FusionParams(dense_weight=0.1, candidates=30, k=k), "format_version": OLD_TUNED_FORMAT}
    old = successor(index, base, "by hand", base.segments).model_copy(update=changes)
    publish_snapshot(index, old, expected=base.name)
    assert read_snapshot(index).fusion == (FusionParams(k=5) if k else None)


def test_settings_that_are_given_win_and_the_log_names_them(index: Path, caplog: pytest.LogCaptureFixture) -> None:
    base = read_snapshot(index)
    fusion = FusionParams(dense_weight=0.1, candidates=30, k=5)
    publish_snapshot(
        index,
        successor(index, base, "by hand", base.segments).model_copy(
            update={"fusion": fusion, "format_version": TUNED_FORMAT}
        ),
        expected=base.name,
    )
    load_retriever(index, None, HYBRID)
    assert not caplog.messages
    load_retriever(
        index, None, load_config(None, ["retrieve.mode=hybrid", "retrieve.dense_weight=0.6", "retrieve.candidates=30"])
    )
    [said] = caplog.messages
    assert said.startswith("retrieve.dense_weight=0.6 is used, though snapshot 000002-")
    assert said.endswith("was tuned to dense_weight=0.1")


def test_another_writer_meanwhile_is_a_conflict(index: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    measured = tune.search_once

    def deleted_meanwhile(*args: object) -> object:
        delete_passages(index, ids=["d1"])
        return measured(*args)  # type: ignore[arg-type] # passed on as it came

    monkeypatch.setattr(tune, "search_once", deleted_meanwhile)
    with pytest.raises(SnapshotConflictError, match="another writer was faster"):
        tune_index(index, CODES, Config())


def test_what_cannot_be_tuned_is_said_before_anything_is_measured(index: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"7 queries .* at least 20 are needed; .* \+-0.05 with 246"):
        tune_index(index, judged(lambda n: f"code{n}", 7), Config())
    unknown = judged_by_examples([Example(f"q{n}", "code1", ("x",), (f"gone{n}",)) for n in range(30)], "examples")
    with pytest.raises(InputError, match="holds none of the 30 relevant documents, such as 'gone0'"):
        tune_index(index, unknown, Config())
    with pytest.raises(InputError, match=r"e\.jsonl: no example has gold ids"):
        judged_by_examples([Example("a", "b", ("c",))], "e.jsonl")


def test_a_snapshot_that_was_never_tuned_is_written_as_before(index: Path) -> None:
    raw = json.loads(next((index / "snapshots").glob("*.json")).read_text(encoding="utf-8"))
    assert "fusion" not in raw
    assert raw["format_version"] == 2


def test_the_default_is_that_of_the_settings() -> None:
    assert (RetrieveConfig().dense_weight, RetrieveConfig().candidates) == DEFAULT
