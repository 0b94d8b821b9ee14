"""Bad input on the command line: one line on stderr that says what, where and what to do; an exit code; nothing lost."""

import json
import socket
from pathlib import Path

from ragray.corpus.table import Corpus
from tests.helpers import Command, Ended, some_passages


def complaint(ended: Ended) -> tuple[int, list[str]]:
    """Return the exit code and the lines of stderr that tell of an error, progress aside."""
    return ended.code, [line for line in ended.errors if line.startswith("ragray:") or "Error" in line]


def test_a_broken_line_is_named_and_everything_else_is_kept(run_command: Command, tmp_path: Path) -> None:
    source, out = tmp_path / "docs.jsonl", tmp_path / "corpus"
    lines = [json.dumps({"id": p.id, "text": p.text}) for p in some_passages(5)]
    lines[2] = '{"id": "broken", "text": '
    source.write_text("\n".join(lines) + "\n", encoding="utf-8")

    ingest = ("ingest", source, "--out", out, "--executor", "local", "embed.model=hash:64")
    code, [error] = complaint(run_command(*ingest))
    assert code == 3
    assert f"{source}:3" in error
    assert "quarantine.jsonl" in error
    assert "ingest.max_damaged=1" in error
    assert {p.id for p in Corpus.open(out).iter_passages()} == {"p0", "p1", "p3", "p4"}
    [refused] = map(json.loads, (out / "quarantine.jsonl").read_text(encoding="utf-8").splitlines())
    assert (refused["line"], refused["excerpt"][:10]) == (3, '{"id": "br')

    accepted = run_command(*ingest, "ingest.max_damaged=1")
    assert complaint(accepted) == (0, [])


def test_an_empty_file_is_refused(run_command: Command, tmp_path: Path) -> None:
    source = tmp_path / "docs.jsonl"
    source.touch()
    out = tmp_path / "corpus"
    code, [error] = complaint(run_command("ingest", source, "--out", out, "--executor", "local", "embed.model=hash:64"))
    assert code == 3
    assert str(source) in error
    assert not (out / "manifest.json").exists()


def test_an_index_of_another_encoder_is_refused(run_command: Command, hash_index: Path) -> None:
    code, [error] = complaint(run_command("search", hash_index, "anything", "embed.model=hash:32"))
    assert code == 5
    assert "hash:64" in error and "hash:32" in error
    assert "use one encoder for both" in error


def test_a_port_in_use_is_named_with_another_to_try(run_command: Command, hash_index: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        code, [error] = complaint(
            run_command("serve", "--index", hash_index, f"serve.port={port}", "generate.model=first-sentence")
        )
    assert code == 8
    assert f"port {port} on 127.0.0.1 is in use" in error
    assert "serve.port=" in error
