"""The whole thread: sources to an HTTP answer, through every stage on real Ray, with a trained run."""

import json
import urllib.request
from pathlib import Path

import pytest

import ragray
from ragray.cluster.serve import running
from ragray.examples import read_examples
from ragray.sample import CORPUS, TEST, TRAIN
from tests.cluster.test_jobs_on_ray import free_port

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The first forty articles of the sample, in a folder of their own."""
    folder = tmp_path_factory.mktemp("sources")
    lines = CORPUS.read_text(encoding="utf-8").splitlines(keepends=True)[:40]
    (folder / "docs.jsonl").write_text("".join(lines), encoding="utf-8")
    return folder


def test_a_corpus_becomes_an_answer_over_http(
    ray_session: None, sources: Path, tiny_decoder: Path, tmp_path: Path
) -> None:
    config = ragray.load_config(
        overrides=[
            "embed.model=hash:256", "embed.block_rows=16", f"generate.model={tiny_decoder}", "generate.max_new_tokens=4",
            "train.max_steps=2", "train.batch_size=2", "train.cpus_per_worker=0.5", "retrieve.k=2",
            "evaluate.limit=6", "evaluate.num_workers=1", f"serve.port={free_port()}",
        ]
    )  # fmt: skip
    corpus, embeddings, index, run = (tmp_path / name for name in ("corpus", "embeddings", "index", "run"))
    assert ragray.ingest([str(sources)], corpus, config).documents == 40
    assert ragray.embed_corpus(corpus, embeddings, config).num_computed == 40
    snapshot = ragray.build_index(embeddings, corpus, index, config).snapshot
    assert ragray.train_rag(index, TRAIN, run, config).num_steps == 2
    report = ragray.evaluate_rag(TEST, tmp_path / "report", config, index=index, run=run)
    assert report.answers.num_examples == 6
    assert report.ranking is not None

    with running(index, run, config) as url:
        body = json.dumps({"question": "the capital of France straddles the river Seine"}).encode()
        request = urllib.request.Request(f"{url}/v1/answer", data=body, headers={"Content-Type": "application/json"})
        with urllib.request.urlopen(request, timeout=60) as response:
            answer = json.load(response)
    assert answer["snapshot"] == snapshot.name
    assert "france" in [citation["id"] for citation in answer["citations"]]
    assert sum(citation["weight"] for citation in answer["citations"]) == pytest.approx(1, abs=1e-3)


def test_the_readme_example_runs(ray_session: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    code = readme.partition("```python\n")[2].partition("```")[0]
    assert len([line for line in code.splitlines() if line]) == 8
    exec(code, {"out": tmp_path})
    assert "Paris" in capsys.readouterr().out


def test_the_sample_keeps_its_promises() -> None:
    """At least 300 passages and 600 questions; answers stand in their passage; no passage serves training and test."""
    articles = {row["id"]: row for row in map(json.loads, CORPUS.read_text(encoding="utf-8").splitlines())}
    train, test = read_examples(TRAIN), read_examples(TEST)
    assert len(articles) >= 300
    assert len(train) + len(test) >= 600
    gold = [{passage for example in part for passage in example.gold_ids} for part in (train, test)]
    assert not gold[0] & gold[1]
    assert gold[0] | gold[1] <= articles.keys()
    for example in (*train, *test):
        assert example.answers[0].lower() in articles[example.gold_ids[0]]["text"].lower(), example.id
    asked = {example.question for example in test}
    assert {"What is the capital of France?", "Who wrote the play Hamlet?"} <= asked
    for task in ("sentiment", "summarization", "translation"):
        assert len((CORPUS.parent / f"{task}.jsonl").read_text(encoding="utf-8").splitlines()) >= 30
