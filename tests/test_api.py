"""The public functions choose where a stage runs."""

from pathlib import Path

import pytest

import ragray
from ragray.api import choose_executor
from ragray.cluster.executor import RayExecutor
from ragray.config import Config, load_config
from ragray.errors import ConfigError
from ragray.execute.processes import ProcessExecutor
from tests.helpers import index_of, some_passages, write_corpus


def test_a_name_stands_for_an_executor() -> None:
    assert isinstance(choose_executor("ray", Config(), "auto"), RayExecutor)
    assert isinstance(choose_executor("local", Config()), ProcessExecutor)


@pytest.mark.parametrize(
    ("name", "address", "message"),
    [
        ("slurm", None, "executor 'slurm' is not known; choose ray or local"),
        ("local", "auto", "--executor local uses no cluster, but --address names auto"),
    ],
)
def test_a_choice_that_has_no_effect_is_refused(name: str, address: str | None, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        choose_executor(name, Config(), address)


def test_gpus_are_refused_on_this_machine_before_any_work(tmp_path: Path) -> None:
    corpus = write_corpus(tmp_path / "corpus", some_passages(4))
    config = load_config(None, ["embed.model=hash:16", "embed.gpus_per_worker=1"])
    with pytest.raises(ConfigError, match=r"^embed: 1 GPUs .* set embed\.gpus_per_worker to 0, or use --executor ray"):
        ragray.embed_corpus(corpus, tmp_path / "out", config, executor="local")
    assert not (tmp_path / "out" / "manifest.json").exists()


def test_a_sync_without_a_cluster_embeds_on_this_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setattr("ragray.api.has_cluster", lambda address: False)  # another test may have started one
    monkeypatch.setattr("ragray.api.RayExecutor", None)
    index = index_of(tmp_path, some_passages(10))
    report = ragray.sync_index(index, write_corpus(tmp_path / "new", some_passages(12)), Config())
    assert (report.embedded, report.snapshot.num_live) == (2, 12)
