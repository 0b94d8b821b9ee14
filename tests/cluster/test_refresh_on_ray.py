"""A run on Ray that trains the passage encoder too: a refresh that is killed harms nothing, and the run has an index of its own."""

import json
import logging
import os
import signal
import threading
import time
from pathlib import Path

import pytest

from ragray.cluster.fit import STATE_FOLDER
from ragray.cluster.refresh import REFRESH_FOLDER
from ragray.cluster.train import train_rag
from ragray.config import load_config
from ragray.errors import ConfigError, EncoderMismatchError, TrainingError
from ragray.index.store.snapshot import read_snapshot
from ragray.retrieve.load import load_retriever
from ragray.run import Run
from ragray.train.metrics import read_metrics
from ragray.train.refresh.exchange import REQUEST
from tests.processes import actors_of_this_process


class Killer(threading.Thread):
    """Kills the process that makes the first index, once it works."""

    def __init__(self, out: Path) -> None:
        super().__init__(daemon=True)
        self._request = out / STATE_FOLDER / REFRESH_FOLDER / REQUEST
        self.killed = 0
        self.start()

    def run(self) -> None:
        deadline = time.monotonic() + 240
        while time.monotonic() < deadline and not self.killed:
            time.sleep(0.05)
            for process in actors_of_this_process("reindex_yielding"):
                os.kill(process, signal.SIGKILL)
                self.killed = process


def settings(generator: Path, *more: str) -> list[str]:
    return [
        f"generate.model={generator}", "train.max_steps=9", "train.epochs=10", "retrieve.k=2", "train.batch_size=2",
        "train.generator_lr=0.01", "train.encoder_lr=0.001", "train.logging_steps=1", "train.checkpoint_steps=3",
        "train.cpus_per_worker=0.5", "train.threads_per_worker=1", "train.passage_encoder=true", *more,
    ]  # fmt: skip


@pytest.fixture(scope="module")
def examples(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("examples") / "train.jsonl"
    lines = [{"id": str(n), "question": f"where does number {n} live?", "answers": [f"at {n}"]} for n in range(8)]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    return path


def test_a_killed_refresh_harms_nothing_and_the_run_answers_from_its_own_index_alone(
    ray_session: None,
    tiny_decoder: Path,
    tiny_encoder_index: Path,
    examples: Path,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    before, out, killer = read_snapshot(tiny_encoder_index), tmp_path / "run", Killer(tmp_path / "run")
    config = load_config(None, settings(tiny_decoder, "train.refresh_steps=3", "train.refresh_wait=true"))
    with caplog.at_level(logging.WARNING, "ragray"):
        train_rag(tiny_encoder_index, examples, out, config)
    assert killer.killed
    assert "no index was made of step 3's weights" in caplog.text
    assert [line["index_age_steps"] for line in read_metrics(out)] == [1, 2, 3, 4, 5, 0, 1, 2, 3]
    assert read_snapshot(tiny_encoder_index) == before
    run, own = Run.open(out), read_snapshot(out / "index")
    assert run.facts.own_index and run.facts.encoder == own.encoder != before.encoder
    assert own.num_live == before.num_live
    [found] = load_retriever(out / "index", out, config).search(["where?"], 3)
    assert len(found.hits) == 3
    with pytest.raises(EncoderMismatchError, match=rf"weights=.*use the index of this run: {out / 'index'}"):
        load_retriever(tiny_encoder_index, out, config)
    assert not (out / STATE_FOLDER).exists()


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("generate.strategy=together", "generate.strategy=together no encoder is trained"),
        ("train.encoder_lr=0", "no effect with train.encoder_lr=0"),
    ],
)
def test_settings_that_train_no_passage_encoder_are_refused(
    tiny_decoder: Path, tiny_encoder_index: Path, examples: Path, tmp_path: Path, override: str, message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        train_rag(tiny_encoder_index, examples, tmp_path / "run", load_config(None, settings(tiny_decoder, override)))


def test_an_encoder_without_weights_is_refused(
    tiny_decoder: Path, hash_index: Path, examples: Path, tmp_path: Path
) -> None:
    with pytest.raises(TrainingError, match=r"'hash:64' has no weights"):
        train_rag(hash_index, examples, tmp_path / "run", load_config(None, settings(tiny_decoder)))
