"""The stages where they run: the same artefacts from every executor, killed workers that cost nothing, errors in one line.

What the stages do is tested without Ray in tests/stages, processes that die or fail in tests/execute.
"""

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import ragray
from ragray.artifact.manifest import publish, read_manifest
from ragray.cluster.executor import RayExecutor
from ragray.config import Config, IndexConfig, load_config
from ragray.corpus.table import Corpus
from ragray.embed.blocks import BLOCK_FOLDER, Embeddings
from ragray.embed.encoder import HashEncoder
from ragray.embed.passage_text import passage_text
from ragray.errors import ClusterError, ConfigError, CorruptArtifactError, ModelNotFoundError, NotAnArtifactError
from ragray.execute.inline import InlineExecutor
from ragray.execute.port import Executor, Resources
from ragray.execute.processes import MODULE, ProcessExecutor
from ragray.index.search.reader import IndexReader
from ragray.index.store.snapshot import CURRENT, SEGMENTS, names, read_snapshot
from ragray.stages.build import build_index
from ragray.stages.compact import compact_index
from ragray.stages.embed import embed_corpus
from ragray.stages.evaluate import evaluate_rag
from ragray.stages.ingest import ingest
from ragray.stages.sync import sync_index
from ragray.types import Passage
from tests.embed.poisonous import ENDLESS, KILLS, RAISES, PoisonousEmbedBlocks
from tests.execute.tasks import WriteFiles
from tests.executors import Interfering
from tests.helpers import index_of, some_passages, write_corpus, write_embeddings
from tests.processes import descendants
from tests.stages.test_evaluate import Refusing

# Whenever a DataContext is made, Ray 2.60 sets options of its own that it calls deprecated.
OWN_DEPRECATION = "ignore::DeprecationWarning:ray.data.context"
pytestmark = [pytest.mark.usefixtures("ray_session"), pytest.mark.filterwarnings(OWN_DEPRECATION)]

PASSAGES = some_passages(60)
RAY = RayExecutor(wait_s=60)
LOCAL = ProcessExecutor()
TIMES = {"created_at"}
"""Keys of manifests and snapshots that hold the time: left out of the comparison, as are the checksums of files that hold it."""


SETTINGS = [
    "embed.model=hash:64", "embed.block_rows=16", "index.segment_rows=25", "generate.model=first-sentence",
    "generate.batch_size=4", "evaluate.num_workers=2",
]  # fmt: skip
SHARDS = "ingest.shard_rows=40"


def config(*overrides: str) -> Config:
    return load_config(None, [*SETTINGS, *overrides])


# Every stage on every executor.


def write_records(path: Path, passages: list[Passage]) -> Path:
    lines = [json.dumps({"id": p.id, "text": p.text, "title": p.title}) for p in passages]
    path.write_text("\n".join(lines), encoding="utf-8")
    return path


def write_examples(path: Path) -> Path:
    examples = [{"id": p.id, "question": p.text, "answers": [p.text], "gold_ids": [p.id]} for p in PASSAGES[20:30]]
    path.write_text("\n".join(map(json.dumps, examples)), encoding="utf-8")
    return path


def run_everything(sources: Path, out: Path, executor: Executor) -> Path:
    """Run the six stages; the second corpus lacks 10 of the passages of the first one and has 5 others."""
    first, second = (write_corpus_of(sources / name, out / name, executor) for name in ("first", "second"))
    embed_corpus(first, out / "embeddings", config(), executor)
    build_index(out / "embeddings", first, out / "index", config(), executor)
    sync_index(out / "index", second, config(), executor)
    compact_index(out / "index", config(), executor)
    evaluate_rag(str(sources / "examples.jsonl"), out / "report", config(), index=out / "index", executor=executor)
    return out


def write_corpus_of(source: Path, out: Path, executor: Executor) -> Path:
    assert not ingest([str(source)], out, config(SHARDS), executor).reused
    return out


def without_times(value: object) -> object:
    """Drop what holds the time, and checksums, which are compared as the bytes of the files that they are of."""
    if isinstance(value, dict):
        return {key: without_times(item) for key, item in value.items() if key not in {*TIMES, "checksum"}}
    return [without_times(item) for item in value] if isinstance(value, list) else value


def content(path: Path) -> object:
    if path.name == "manifest.json" or path.parent.name == "snapshots":
        return without_times(json.loads(path.read_text(encoding="utf-8")))
    return path.read_bytes()


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sources")
    for name, passages in (("first", PASSAGES), ("second", [*PASSAGES[10:], *some_passages(65)[60:]])):
        (folder / name).mkdir()
        write_records(folder / name / "a.jsonl", passages[:30])
        write_records(folder / name / "b.jsonl", passages[30:])
    write_examples(folder / "examples.jsonl")
    return folder


@pytest.fixture(scope="module")
def inline(sources: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return run_everything(sources, tmp_path_factory.mktemp("inline"), InlineExecutor())


def assert_same_artefacts(out: Path, expected: Path) -> None:
    """Byte for byte, but for times."""
    found, wanted = (
        {
            path.relative_to(folder): content(path)
            for path in folder.rglob("*")
            if path.is_file() and path.name != ".lock"
        }
        for folder in (out, expected)
    )
    assert found.keys() == wanted.keys()
    assert [str(name) for name in found if found[name] != wanted[name]] == []
    assert len(names(out / "index")) == 3
    assert any(name.suffix == ".faiss" for name in found)


def test_actors_and_tasks_make_the_artefacts_of_one_process(sources: Path, inline: Path, tmp_path: Path) -> None:
    assert_same_artefacts(run_everything(sources, tmp_path, RAY), inline)


LOCAL_COMMANDS = """
import os, sys
from pathlib import Path
os.environ.pop("RAY_ADDRESS", None)
from typer.testing import CliRunner
from ragray.cli import app
sources, out, *settings = sys.argv[1:]
sources, out, local = Path(sources), Path(out), ["--executor", "local"]
for command in (
    ["ingest", sources / "first", "--out", out / "first", *local],
    ["ingest", sources / "second", "--out", out / "second", *local],
    ["embed", out / "first", "--out", out / "embeddings", *local],
    ["index", "build", out / "embeddings", "--corpus", out / "first", "--out", out / "index", *local],
    ["index", "sync", out / "index", out / "second"],
    ["index", "compact", out / "index", *local],
    ["evaluate", "--index", out / "index", "--examples", sources / "examples.jsonl", "--out", out / "report", *local],
):
    result = CliRunner().invoke(app, [*map(str, command), *settings], catch_exceptions=False)
    assert result.exit_code == 0, (command, result.output)
    assert "ray" not in sys.modules, command
"""


def test_commands_on_this_machine_make_the_artefacts_of_one_process_and_never_import_ray(
    sources: Path, inline: Path, tmp_path: Path
) -> None:
    command = [sys.executable, "-c", LOCAL_COMMANDS, str(sources), str(tmp_path), *SETTINGS, SHARDS]
    done = subprocess.run(
        command,
        capture_output=True,
        text=True,
        timeout=240,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert_same_artefacts(tmp_path, inline)
    report = json.loads((tmp_path / "report" / "report.json").read_text(encoding="utf-8"))
    assert report["retrieval"]["recall"]["1"] == 100


# Workers that are killed at work.


def kill_one(title: str, is_at_work: Callable[[], bool]) -> tuple[threading.Thread, list[int]]:
    """Kill a worker once it is at work, from a thread."""
    killed: list[int] = []

    def watch() -> None:
        while not killed:
            if is_at_work() and (pids := descendants(os.getpid(), title.encode())):
                os.kill(pids[0], signal.SIGKILL)
                killed.append(pids[0])
            time.sleep(0.01)

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    return thread, killed


@pytest.mark.parametrize(("executor", "title"), [(LOCAL, MODULE), (RAY, "EmbedBlocks")], ids=["processes", "ray"])
def test_a_worker_that_is_killed_while_it_embeds_loses_nothing_and_doubles_nothing(
    executor: Executor, title: str, tmp_path: Path
) -> None:
    corpus, out = write_corpus(tmp_path / "corpus", PASSAGES, shard_rows=40), tmp_path / "embeddings"
    done: list[int] = []

    def is_at_work() -> bool:
        done[:] = [len(list((out / BLOCK_FOLDER).glob("block-*")))]
        return done[0] >= 3

    thread, killed = kill_one(title, is_at_work)
    embed_corpus(corpus, out, config("embed.block_rows=1", "embed.num_workers=1"), executor)
    thread.join(timeout=10)
    assert killed and 3 <= done[0] < len(PASSAGES)
    embeddings = Embeddings.open(out)
    assert [id_ for ids, _ in embeddings.iter_blocks() for id_ in ids] == [passage.id for passage in PASSAGES]
    expected = HashEncoder(64).encode([passage_text(passage) for passage in PASSAGES]).astype(np.float16)
    np.testing.assert_array_equal(np.concatenate([vectors for _, vectors in embeddings.iter_blocks()]), expected)


@pytest.mark.parametrize("memory_bytes", [(), (1000,) * 3], ids=["streamed", "one worker per unit"])
def test_a_unit_whose_worker_dies_is_done_again(memory_bytes: tuple[int, ...], tmp_path: Path) -> None:
    resources = Resources(2, memory_bytes=memory_bytes)
    units = ["a", "deadly once", "odd b"]
    with RAY.map(WriteFiles, units, tmp_path, stage="test", resources=resources) as finished:
        found = list(finished)
    assert sum(unit.count for unit in found) == sum(map(len, units))
    assert [warning for unit in found for warning in unit.warnings] == [("%s: looks odd", "odd b: looks odd", 1)]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.txt", "deadly once.txt", "died", "odd b.txt"]


def test_poisonous_passages_go_to_quarantine_even_if_they_kill_the_actor(tmp_path: Path) -> None:
    poison = {3: RAISES, 8: KILLS, 20: ENDLESS}
    passages = [Passage(p.id, f"{p.text} {poison.get(row, '')}") for row, p in enumerate(PASSAGES[:24])]
    corpus, out = write_corpus(tmp_path / "corpus", passages), tmp_path / "embeddings"
    settings = config("embed.block_rows=12", "embed.max_crashes=1", "embed.num_workers=1")
    report = embed_corpus(corpus, out, settings, Interfering(RAY, task=PoisonousEmbedBlocks))
    assert (report.num_passages, report.num_quarantined) == (21, 3)
    kept = [i for ids, _ in Embeddings.open(out).iter_blocks() for i in ids]
    assert kept == [p.id for row, p in enumerate(passages) if row not in poison]
    assert not (out / "attempts").exists()


# Errors that arrive as they were raised, in one line.


def test_an_encoder_that_is_at_fault_is_an_error_without_rays_trace(tmp_path: Path) -> None:
    corpus = write_corpus(tmp_path / "corpus", [Passage(f"p{n}", RAISES) for n in range(10)])
    with pytest.raises(ConfigError, match=r"^block-\S+: 10 of its 10 passages cannot be embedded, the first is 'p0'"):
        embed_corpus(
            corpus, tmp_path / "embeddings", config("embed.num_workers=1"), Interfering(RAY, task=PoisonousEmbedBlocks)
        )
    assert not (tmp_path / "embeddings" / "manifest.json").exists()


def test_an_error_in_a_segment_reaches_the_user_as_one_line(tmp_path: Path) -> None:
    corpus = write_corpus(tmp_path / "corpus", PASSAGES, shard_rows=40)
    embeddings = write_embeddings(tmp_path / "embeddings", corpus, block_rows=7)
    changed = [Passage("other", "text") if row == 40 else passage for row, passage in enumerate(PASSAGES)]
    folder = write_corpus(tmp_path / "changed", changed, shard_rows=40)
    manifest = read_manifest(folder, "corpus")
    claimed = Corpus.open(corpus).fingerprint
    publish(folder, kind="corpus", fingerprint=claimed, facts=manifest.facts, files=manifest.files)
    with pytest.raises(CorruptArtifactError, match=r"^\S+: row \d embeds passage 'p40', the corpus has 'other'.*$"):
        build_index(embeddings, folder, tmp_path / "index", config(), RAY)
    assert not (tmp_path / "index" / CURRENT).exists()


def test_an_error_in_a_task_of_a_compaction_reaches_the_user_as_one_line(tmp_path: Path) -> None:
    index = index_of(tmp_path, PASSAGES, IndexConfig(segment_rows=25, lexical="plain"), deleted=[1])
    (index / SEGMENTS / read_snapshot(index).segments[2].name / "manifest.json").unlink()
    with pytest.raises(NotAnArtifactError, match="no segment here"):
        compact_index(index, config(), RAY)
    assert len(names(index)) == 1


def test_what_goes_wrong_as_a_worker_is_set_up_arrives_in_one_line(hash_index: Path, tmp_path: Path) -> None:
    examples = str(write_examples(tmp_path / "examples.jsonl"))
    with pytest.raises(ModelNotFoundError, match=r"^no model 'x'$"):
        evaluate_rag(
            examples,
            tmp_path / "report",
            config("evaluate.num_workers=1"),
            index=hash_index,
            executor=Interfering(RAY, task=Refusing),
        )
    assert not (tmp_path / "report" / "manifest.json").exists()


def test_a_cluster_without_room_for_one_worker_is_an_error_that_says_what_to_lower(tmp_path: Path) -> None:
    corpus = write_corpus(tmp_path / "corpus", PASSAGES[:4])
    with pytest.raises(ClusterError, match=r"^embed: 1 actor x 1000 CPUs wanted, .* lower embed.cpus_per_worker"):
        embed_corpus(corpus, tmp_path / "embeddings", config("embed.cpus_per_worker=1000"), RAY)


# The public functions choose the executor.


def test_paths_may_be_relative_on_a_cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    corpus = write_corpus(tmp_path / "corpus", PASSAGES, shard_rows=40)
    write_embeddings(tmp_path / "embeddings", corpus, block_rows=7)
    monkeypatch.chdir(tmp_path)
    ragray.build_index(Path("embeddings"), Path("corpus"), Path("index"), config())
    reader = IndexReader.open(Path("index"))
    hits = reader.search(HashEncoder(64).encode([passage_text(passage) for passage in PASSAGES]), 1).hits
    assert [found[0].passage for found in hits] == PASSAGES


def test_a_sync_beside_a_cluster_uses_it_and_the_vectors_are_those_of_this_machine(tmp_path: Path) -> None:
    first = index_of(tmp_path, PASSAGES, IndexConfig(segment_rows=25, lexical="plain"))
    other = Path(shutil.copytree(first, tmp_path / "other"))
    corpus = write_corpus(tmp_path / "new", [*PASSAGES[5:], *some_passages(64)[60:]], shard_rows=20)
    on_ray, on_this_machine = (
        ragray.sync_index(index, corpus, config(), executor=executor)
        for index, executor in ((first, None), (other, "local"))
    )
    assert (on_ray.embedded, on_ray.snapshot.num_live) == (4, 59)
    assert (on_this_machine.embedded, on_this_machine.snapshot.num_live) == (4, 59)
    one, two = (IndexReader.open(folder).segments[-1].segment for folder in (first, other))
    assert one.passages.equals(two.passages)
    assert np.array_equal(one.vectors_ND, two.vectors_ND)
