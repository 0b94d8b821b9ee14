"""The README's example and the bundled sample. (The thread with training and HTTP: tests/cluster/test_jobs_on_ray.py.)"""

import json
from pathlib import Path

import pytest

from ragray.examples import read_examples
from ragray.sample import CORPUS, CORPUS_ZH, CROSS_ZH, TEST, TEST_ZH, TRAIN, TRAIN_ZH

ROOT = Path(__file__).resolve().parents[2]


NUM_ARTICLES = 24


def test_the_readme_example_runs(
    ray_session: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """To the letter, where the file that it names holds the first articles of the sample, which the encoder is done with sooner."""
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    code = readme.partition("```python\n")[2].partition("```")[0]
    assert len([line for line in code.splitlines() if line]) == 8
    path = CORPUS.relative_to(ROOT)
    assert f'"{path}"' in code
    (tmp_path / path).parent.mkdir(parents=True)
    lines = CORPUS.read_text(encoding="utf-8").splitlines(keepends=True)
    (tmp_path / path).write_text("".join(lines[:NUM_ARTICLES]), encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    exec(code, {"out": tmp_path / "out"})
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


def test_the_chinese_sample_keeps_its_promises() -> None:
    """100 passages with two questions each; 34 English questions; answers stand in their passage; no passage serves both parts."""
    articles = {row["id"]: row for row in map(json.loads, CORPUS_ZH.read_text(encoding="utf-8").splitlines())}
    train, test, english = (read_examples(path) for path in (TRAIN_ZH, TEST_ZH, CROSS_ZH))
    assert (len(articles), len(train), len(test), len(english)) == (100, 140, 60, 34)
    assert all(100 <= len(row["text"]) <= 300 for row in articles.values())
    gold = [{passage for example in part for passage in example.gold_ids} for part in (train, test)]
    assert not gold[0] & gold[1]
    assert gold[0] | gold[1] == articles.keys()
    asked = [example.question for example in (*train, *test, *english)]
    assert len(set(asked)) == len(asked)
    for example in (*train, *test, *english):
        assert example.answers[0] in articles[example.gold_ids[0]]["text"], example.id


def test_the_chinese_sample_is_written_in_simplified_characters() -> None:
    """Of the variants that opencc maps, one is part of a name: 毕昇."""
    import opencc

    texts = [path.read_text(encoding="utf-8") for path in (CORPUS_ZH, TRAIN_ZH, TEST_ZH, CROSS_ZH)]
    simplified = opencc.OpenCC("t2s").convert("\n".join(texts))
    changed = {old for old, new in zip("\n".join(texts), simplified, strict=True) if old != new}
    assert changed <= {"昇"}
