"""Artefacts of the version before `ragray/stages/`: they open, search, answer, sync, compact and serve."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient

from ragray import (
    Config,
    Pipeline,
    Run,
    collect_garbage,
    list_snapshots,
    load_config,
    load_generator,
    load_retriever,
    verify_index,
)
from ragray.artifact.manifest import open_artifact
from ragray.config import ServeConfig
from ragray.corpus.table import Corpus
from ragray.embed.blocks import Embeddings, load_block
from ragray.serve.app import create_app
from ragray.serve.local import LocalAnswerer
from ragray.stages.compact import compact_index
from ragray.stages.sync import sync_index
from ragray.types import Passage
from tests.executors import INLINE
from tests.helpers import write_corpus

BEFORE = Path(__file__).parent / "fixtures" / "before_stages"
EXPECTED = json.loads((BEFORE / "expected.json").read_text(encoding="utf-8"))
"""What that version found and answered; `make.py` beside it wrote it. BM25 has other constants since, and so other scores here."""
FIRST, SECOND = EXPECTED["search"]
MODES = ("dense", "lexical", "hybrid")
QUESTION: str = EXPECTED["answer"]["question"]


@pytest.fixture
def before(tmp_path: Path) -> Path:
    """A copy of the artefacts, in a folder with another name than they were written in."""
    return Path(shutil.copytree(BEFORE, tmp_path / "copy", ignore=shutil.ignore_patterns("*.py", "__pycache__")))


def search(index: Path, mode: str, snapshot: str | None = None) -> dict[str, list[tuple[str, float]]]:
    """Return ids and scores of the best three passages of every query that the fixture has results for."""
    queries = list(EXPECTED["search"][SECOND][mode])
    config = settings(f"retrieve.mode={mode}", "retrieve.fusion=rrf")  # the only fusion that there was then
    retriever = load_retriever(index, None, config, snapshot=snapshot, device="cpu")
    found = retriever.search(queries, 3)
    return {
        query: [(hit.passage.id, hit.score) for hit in result.hits]
        for query, result in zip(queries, found, strict=True)
    }


def settings(*overrides: str, run: Path | None = None) -> Config:
    config = load_config(None, [*overrides, "generate.max_new_tokens=8"])
    return Run.open(run).settings(config) if run else config


def models(before: Path) -> dict[str, Any]:
    """Open retriever and generator of the run."""
    config = settings(run=before / "run")
    return {
        "retriever": load_retriever(before / "index", before / "run", config, device="cpu"),
        "generator": load_generator(config.generate, before / "run", device="cpu"),
        "k": config.retrieve.k,
    }


def approximately(found: list[list[Any]]) -> list[Any]:
    return [(name, pytest.approx(score, abs=1e-4)) for name, score in found]


def test_corpus_and_embeddings_open(before: Path) -> None:
    corpus, embeddings = Corpus.open(before / "corpus"), Embeddings.open(before / "embeddings")
    passages = list(corpus.iter_passages())
    assert [passage.id for passage in passages][:2] == ["seine", "tiber"]
    assert passages[0].title == "Seine"
    assert embeddings.encoder.dim == 256
    assert [row for block in embeddings.blocks for row in load_block(block)[0]] == [p.id for p in passages]
    [refused] = (before / "corpus" / "quarantine.jsonl").read_text(encoding="utf-8").splitlines()
    assert json.loads(refused)["document_id"] == "short"


def test_a_report_opens(before: Path) -> None:
    assert open_artifact(before / "report", "report", full=True).facts["num_examples"] == 2


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("snapshot", [FIRST, SECOND])
def test_both_snapshots_find_what_they_found(snapshot: str, mode: str) -> None:
    found = search(BEFORE / "index", mode, snapshot)
    assert found == {query: approximately(hits) for query, hits in EXPECTED["search"][snapshot][mode].items()}


def test_both_snapshots_are_whole(before: Path) -> None:
    assert [(info.name, info.num_deleted, info.is_current) for info in list_snapshots(before / "index")] == [
        (FIRST, 0, False),
        (SECOND, 2, True),
    ]
    for name in (FIRST, SECOND):
        assert verify_index(before / "index", snapshot=name).problems == ()


def test_the_run_answers_as_it_did(before: Path) -> None:
    opened, expected = models(before), EXPECTED["answer"]
    [answer] = Pipeline(opened["retriever"], opened["generator"], k=opened["k"]).answer([QUESTION])
    assert (answer.text, answer.snapshot) == (expected["text"], SECOND)
    assert answer.log_prob == pytest.approx(expected["log_prob"], abs=1e-3)
    assert [(cited.hit.passage.id, cited.weight) for cited in answer.citations] == approximately(
        [[cited["hit"]["passage"]["id"], cited["weight"]] for cited in expected["citations"]]
    )


def test_the_run_is_served(before: Path) -> None:
    answerer = LocalAnswerer(**models(before), run="before")
    with TestClient(create_app(answerer, ServeConfig())) as client:
        ready = client.get("/readyz").json()
        answer = client.post("/v1/answer", json={"question": QUESTION}).json()
        found = client.post("/v1/search", json={"query": QUESTION, "k": 3}).json()
    answerer.close()
    assert (ready["status"], ready["snapshot"], ready["run"]) == ("ok", SECOND, "before")
    assert (answer["answer"], answer["snapshot"]) == (EXPECTED["answer"]["text"], SECOND)
    assert [hit["id"] for hit in found["hits"]] == [name for name, _ in EXPECTED["search"][SECOND]["dense"][QUESTION]]


def test_the_index_takes_another_corpus_and_forgets_what_is_gone(before: Path) -> None:
    index = before / "index"
    kept = [p for p in Corpus.open(before / "corpus").iter_passages() if p.id not in ("iron", "thames", "gold")]
    new = [Passage("gold", "Gold is soft.", "Gold"), Passage("rhine", "The Rhine flows through Cologne.", "Rhine")]
    corpus = write_corpus(before / "next", [*kept, *new])
    synced = sync_index(index, corpus, settings(), INLINE)
    assert (synced.added, synced.changed, synced.deleted, synced.unchanged) == (1, 1, 2, 5)
    assert (synced.embedded, synced.snapshot.parent) == (2, SECOND)
    compacted = compact_index(index, settings(), INLINE)
    assert (compacted.num_forgotten, compacted.snapshot.num_live) == (5, 7)
    for name in (synced.snapshot.name, compacted.snapshot.name):
        assert verify_index(index, snapshot=name).problems == ()
        [(first, _), *_] = search(index, "dense", name)[QUESTION]
        assert first == "tiber"
        assert "gold" in dict(search(index, "hybrid", name)["dust of gold in the sand of rivers"])
    collect_garbage(index, keep=0, min_age_s=0)
    assert search(index, "lexical").keys() == EXPECTED["search"][SECOND]["lexical"].keys()
    assert [info.name for info in list_snapshots(index)] == [compacted.snapshot.name]
