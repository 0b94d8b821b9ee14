"""The command line: what its help teaches, what it prints, and the one line that bad input gets."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml
from typer.testing import CliRunner

from ragray.cli import app
from ragray.config import Config, load_config
from tests.helpers import Command, some_passages, write_corpus

GOOD = '{"id": "1", "question": "Who wrote Hamlet?", "answers": ["William Shakespeare"]}\n'


def printed(*args: str) -> str:
    """Run a command in this process and return what it prints."""
    result = CliRunner().invoke(app, args, catch_exceptions=False)
    assert result.exit_code == 0
    return result.output


Complaint = Callable[..., str]


@pytest.fixture
def complaint(run_command: Command) -> Complaint:
    """Run a command that must fail, with an exit code; return its one line."""

    def one_line(*args: object, code: int) -> str:
        ended = run_command(*args)
        assert (ended.code, ended.output) == (code, "")
        [line] = ended.logged + ended.errors
        return line

    return one_line


# Help.


def commands(group: Any = None, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Yield every command with the words that call it, groups included."""
    group = group or typer.main.get_command(app)
    yield path, group
    for name, command in getattr(group, "commands", {}).items():
        yield from commands(command, (*path, name))


COMMANDS = dict(commands())
LEAVES = {path: command for path, command in COMMANDS.items() if not hasattr(command, "commands")}
TEACHES: dict[str, str] = {
    "ingest": "documents | corpus of passages | quarantine.jsonl | URIs: jsonl, Parquet, CSV | --out",
    "embed": "passage of a corpus | vector | ragray ingest | --out | crash",
    "index build": "segments | snapshot | ragray embed | ragray ingest | --out",
    "index plan": "budget | why | --rows | --memory | 64GiB | --recall",
    "index sync": "another corpus | new or changed | ragray ingest",
    "index delete": "every search | --ids | --where | ragray index compact",
    "index compact": "without deleted rows | ragray index gc",
    "index snapshots": "oldest first | the current one",
    "index promote": "the current one",
    "index rollback": "parent of the current snapshot",
    "index gc": "nobody needs | --keep | --min-age | Hours",
    "index verify": "checksums | how to mend it | --sample",
    "index inspect": "sizes | recall | list sizes | --plots",
    "index export": "live rows | datasets | transformers | embedding-reader | --out",
    "index tune": "Fit hybrid search | 95% interval | rollback | retrieve.dense_weight | --qrels | --examples | --k",
    "index import": "made elsewhere | npy | same order | ragray index build | embed.model",
    "run import": "RAG model | transformers | hub id | ragray index build | --out",
    "run export": "RAG model | transformers | ragray train | --format | --out",
    "search": "passages nearest to a text | ragray index build | --mode | hybrid | --where | --json",
    "ask": "answer | sources | ragray index build | ragray train | --mode | --where | --json",
    "mine": "hard negatives | BM25 | gold passage | train.objective=contrastive | sentence-transformers | --out",
    "train": 'question encoder and generator | {"id", "question", "answers", "gold_ids"} | --dev-examples | --out | --restart | crash',
    "plot": "loss | dev examples | recall of gold | learning rate | ragray train | .svg | --out",
    "evaluate": "exact match | F1 | recall@k | MRR | interval | --bounds | --baseline | --shots | --closed-book | ragray train | --out",
    "evaluate retrieval": "judged documents | ndcg@10 | recall@k | mrr@10 | --mode",
    "score": 'predictions | JSON object of id to text | {"id", "answers"} | Parquet | exact_match and f1',
    "serve": "HTTP | --insecure | Ctrl-C | /v1/answer | /v1/search | /readyz | ragray train",
    "keys add": "this once | SHA-256 | --where | --requests-per-minute | --tokens-per-minute | --expires | --index",
    "keys list": "filters, limits and dates | --json",
    "keys revoke": "refused from then on",
    "quickstart": "every stage | sample | --out",
    "config show": "YAML | meaning | section.key=value",
    "config schema": "JSON schema",
}


def test_every_command_is_listed_here() -> None:
    assert {" ".join(path) for path in LEAVES} == set(TEACHES)


@pytest.mark.parametrize("command", TEACHES)
def test_help_says_what_goes_in_and_what_comes_out(command: str) -> None:
    text = " ".join(printed(*command.split(), "--help").split())
    assert [word for word in TEACHES[command].split(" | ") if word not in text] == []


@pytest.mark.parametrize("path", LEAVES, ids=" ".join)
def test_every_argument_and_option_has_a_help_text(path: tuple[str, ...]) -> None:
    assert [parameter.name for parameter in LEAVES[path].params if not parameter.help] == []


def test_the_main_help_shows_the_stages_in_order_with_flags_that_exist() -> None:
    lines = [line.split() for line in printed("--help").splitlines() if line.strip().startswith("ragray ")]
    assert [line[1] for line in lines] == ["ingest", "embed", "index", "train", "evaluate", "serve"]
    for line in lines:
        path = tuple(line[1:3]) if line[1] == "index" else (line[1],)
        known = {flag for parameter in LEAVES[path].params for flag in parameter.opts}
        assert {word for word in line if word.startswith("--")} <= known


@pytest.mark.parametrize("path", [path for path in COMMANDS if path not in LEAVES], ids=" ".join)
def test_a_group_without_command_shows_its_help(path: tuple[str, ...]) -> None:
    result = CliRunner().invoke(app, path)
    assert result.exit_code == 2
    assert all(name in result.output for name in COMMANDS[path].commands)


# Configuration.


def test_config_show_prints_what_config_reads_back(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text(printed("config", "show", "train.epochs=3", "generate.instruction=Say: yes # or no"))
    assert load_config(file) == load_config(None, ["train.epochs=3", "generate.instruction=Say: yes # or no"])
    assert printed("config", "show", "--config", str(file)) == file.read_text()


def test_config_show_prints_every_section_with_the_meaning_of_each_key() -> None:
    text = printed("config", "show")
    assert list(yaml.safe_load(text)) == list(Config.model_fields)
    assert all("  # " in line for line in text.splitlines() if line.startswith("  "))


def test_config_schema_prints_json() -> None:
    assert json.loads(printed("config", "schema")) == Config.model_json_schema()


# Scoring: a command from end to end.


def test_score_prints_exact_match_and_f1_as_json(tmp_path: Path) -> None:
    (tmp_path / "examples.jsonl").write_text(
        '{"id": "1", "answers": ["Paris"]}\n{"id": "2", "answers": ["the Bard", "x"]}\n'
    )
    (tmp_path / "predictions.json").write_text('{"1": "Paris, France", "2": "Bard."}')
    command = ["score", str(tmp_path / "predictions.json"), str(tmp_path / "examples.jsonl")]
    printed_scores = json.loads(printed(*command))
    figures = printed_scores.pop("figures")
    assert {name: (one["value"], one["num_examples"]) for name, one in figures.items()} == {
        "exact_match": (50, 2),
        "f1": (pytest.approx(100 * (2 / 3 + 1) / 2), 2),
        "accuracy": (100, 2),
    }
    assert figures["exact_match"]["low"] == 0
    assert figures["exact_match"]["high"] == 100
    assert printed_scores == {
        "exact_match": 50,
        "f1": pytest.approx(100 * (2 / 3 + 1) / 2),
        "accuracy": 100,
        "num_examples": 2,
        "num_predictions": 2,
        "num_missing": 0,
        "metrics": {"squad": 2},
    }


def test_score_reads_examples_of_other_fields_and_formats(tmp_path: Path) -> None:
    (tmp_path / "examples.csv").write_text("nr,antwort\n1,Paris\n2.0,\"['Bard', 'x']\"\n")
    (tmp_path / "predictions.jsonl").write_text('{"id": 1, "prediction": "Paris"}\n{"id": "2.0", "prediction": "x"}\n')
    files = [str(tmp_path / "predictions.jsonl"), str(tmp_path / "examples.csv")]
    scores = json.loads(printed("score", *files, "examples.id_field=nr", "examples.answers_field=antwort"))
    assert (scores["exact_match"], scores["num_examples"]) == (100, 2)


# Bad input: exactly one line, saying what, where and what to do.


@pytest.fixture
def inputs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder to run in, with good and bad files."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "broken.jsonl").write_text(GOOD + '{"id": "2", "question": "q", "answers": []}\n')
    (tmp_path / "empty.jsonl").touch()
    (tmp_path / "good.jsonl").write_text(GOOD)
    (tmp_path / "predictions.json").write_text('{"9": "x"}')
    (tmp_path / "unfinished").mkdir()
    return tmp_path


def test_a_broken_line_of_examples_is_named_with_file_line_and_field(inputs: Path, complaint: Complaint) -> None:
    expected = f"ragray: {inputs}/broken.jsonl:2: field 'answers' is empty; give at least one accepted answer"
    arguments = ["score", "predictions.json", "broken.jsonl"]
    assert complaint(*arguments, code=3) == expected
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parent.parent)}
    started = [sys.executable, "-m", "ragray.cli", *arguments]
    result = subprocess.run(started, env=environment, capture_output=True, text=True, timeout=120)
    assert (result.returncode, result.stdout, result.stderr) == (3, "", f"{expected}\n")


def test_an_example_with_half_a_character_is_named_before_anything_starts(
    inputs: Path, hash_index: Path, complaint: Complaint
) -> None:
    (inputs / "train.csv").write_text("frage,answer\nq,a\nq,a\n")
    (inputs / "half.jsonl").write_text(GOOD + '{"id": "2", "question": "q \\ud83d", "answers": "a"}\n')
    expected = f"ragray: {inputs}/half.jsonl:2: field 'question': character 3 ('\\ud83d') cannot be written as UTF-8"
    common = ["--index", hash_index, "--out", "out", "generate.model=first-sentence", "--examples"]
    for command in ("train", "evaluate"):
        assert complaint(command, *common, "half.jsonl", code=3).startswith(expected)
    line = complaint("train", *common, "train.csv", "examples.question_field=question", code=3)
    assert "no field 'question', which examples.question_field names; the fields are: frage, answer" in line


def test_a_wrong_dev_example_is_named_before_training_starts(
    inputs: Path, hash_index: Path, tiny_decoder: Path, complaint: Complaint
) -> None:
    (inputs / "train.jsonl").write_text(GOOD)
    (inputs / "dev.jsonl").write_text(GOOD + '{"id": "2", "question": "who?"}\n')
    line = complaint(
        "train", "--index", hash_index, "--out", "out", "--examples", "train.jsonl", "--dev-examples", "dev.jsonl",
        f"generate.model={tiny_decoder}", code=3,
    )  # fmt: skip
    assert line.startswith(f"ragray: {inputs}/dev.jsonl:2: ")
    assert not (inputs / "out" / "metrics.jsonl").exists()


@pytest.mark.parametrize("command", ["search", "ask"])
@pytest.mark.parametrize(
    ("question", "said"), [("Who is \udce9?", r"character 8 \('\\udce9'\)"), ("\u200b", "is blank")]
)
def test_a_question_that_is_none_is_refused_before_anything_is_opened(
    inputs: Path, command: str, question: str, said: str, complaint: Complaint
) -> None:
    assert re.search(f"^ragray: {command}: the .*: {said}", complaint(command, "unfinished", question, code=3))


def test_a_filter_that_is_not_utf8_is_bad_input_and_a_setting_a_bad_setting(inputs: Path, complaint: Complaint) -> None:
    assert "--where: character 1" in complaint("search", "unfinished", "q", "--where", "\udce9 == 1", code=3)
    assert "generate.instruction: character 2" in complaint(
        "ask", "unfinished", "q", "generate.instruction=x\udce9", code=2
    )


def test_an_empty_file_of_examples_is_answered_with_an_example(inputs: Path, complaint: Complaint) -> None:
    line = complaint("evaluate", "--closed-book", "--examples", "empty.jsonl", "--out", "report", code=3)
    assert line.startswith(f'ragray: {inputs}/empty.jsonl: is empty; expected records such as {{"id": "1", ')
    assert not (inputs / "report" / "manifest.json").exists()


def test_predictions_of_other_examples_are_answered_with_an_id_that_was_expected(
    inputs: Path, complaint: Complaint
) -> None:
    line = complaint("score", "predictions.json", "good.jsonl", code=3)
    assert line.startswith("ragray: none of the 1 predictions has the id of any of the 1 examples")


@pytest.mark.parametrize(
    ("command", "maker"),
    [
        ("embed unfinished --out e", "ragray ingest SOURCE..."),
        ("index build unfinished --corpus unfinished --out i", "ragray embed CORPUS"),
        ("search unfinished text", "ragray index build EMBEDDINGS --corpus CORPUS"),
    ],
)
def test_a_folder_without_manifest_is_answered_with_the_command_that_makes_it(
    inputs: Path, command: str, maker: str, complaint: Complaint
) -> None:
    line = complaint(*command.split(), code=4)
    assert re.fullmatch(rf"ragray: (.*/)?unfinished: .*; run: {re.escape(maker)} --out (.*/)?unfinished", line)


def test_an_unknown_key_of_a_configuration_file_is_answered_with_the_nearest(
    inputs: Path, complaint: Complaint
) -> None:
    (inputs / "mine.yaml").write_text("train:\n  epoch: 3\n")
    line = complaint("config", "show", "--config", "mine.yaml", code=2)
    assert line.startswith("ragray: mine.yaml:2: unknown key 'train.epoch', did you mean 'train.epochs'?")


def test_a_missing_model_is_answered_with_those_that_are_here(inputs: Path, complaint: Complaint) -> None:
    line = complaint("ingest", "good.jsonl", "--out", "corpus", "embed.model=nope", code=6)
    assert line.startswith("ragray: no model 'nope'; installed here: ")
    assert "local folder" in line


def test_a_reader_that_goes_away_is_answered_with_silence_but_not_with_success() -> None:
    read_end, write_end = os.pipe()
    os.close(read_end)
    command = [sys.executable, "-m", "ragray.cli", "config", "schema"]
    result = subprocess.run(command, stdout=write_end, stderr=subprocess.PIPE, text=True, timeout=120)
    os.close(write_end)
    assert (result.returncode, result.stderr) == (1, "")


def test_a_stage_that_is_told_to_end_does_so_at_once_and_quietly(tmp_path: Path) -> None:
    corpus = write_corpus(tmp_path / "corpus", some_passages(600))
    options = ["embed.model=hash:64", "embed.block_rows=1", "embed.num_workers=1"]
    command = [sys.executable, "-m", "ragray.cli", "embed", str(corpus), "--out", str(tmp_path / "out"), *options]
    running = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    try:
        while not list((tmp_path / "out").glob("blocks/block-*")) and running.poll() is None:
            time.sleep(0.05)
        running.send_signal(signal.SIGTERM)
        _, errors = running.communicate(timeout=120)
    finally:
        running.kill()
    assert running.returncode == 143
    assert "SIGTERM" not in errors and "Traceback" not in errors
    assert not (tmp_path / "out" / "manifest.json").exists()
    assert not (tmp_path / "out" / "attempts").exists()
