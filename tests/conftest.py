"""Fixtures that several test modules share.

The process that hands out tests imports this module too, and waits for it: `tests.tiny` takes seconds to import torch.
"""

import os

os.environ.setdefault(
    "OMP_NUM_THREADS", "1"
)  # before torch: two test processes with two threads each fight for two cores

os.environ.setdefault("HF_HUB_OFFLINE", "1")  # before huggingface_hub: no test asks the hub, nor waits for it

import functools
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ragray.cli.commands import run
from ragray.cluster.session import session
from ragray.config import EncoderConfig
from tests import helpers
from tests.helpers import Command, Ended

OWN_CLUSTERS = ("tests/cluster/test_jobs_on_ray.py", "tests/pipeline/test_readme_and_sample.py", "tests/test_cli.py")
LAST_WORDS = pytest.StashKey[list[str]]()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests that start clusters in processes of their own come first, before test processes hold clusters too."""
    items.sort(key=lambda item: not item.nodeid.startswith(OWN_CLUSTERS))


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Give the tests of a file to one test process, and the files that use `ray_session` to the same one, so that it starts once."""
    from xdist.scheduler import LoadFileScheduling

    @functools.cache
    def uses_ray_session(file: str) -> bool:
        return "ray_session" in (config.rootpath / file).read_text(encoding="utf-8")

    class OneRaySession(LoadFileScheduling):
        def _split_scope(self, nodeid: str) -> str:
            file = super()._split_scope(nodeid)
            return "ray_session" if uses_ray_session(file) else file

    return OneRaySession(config, log)


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any, error: object) -> None:
    """Keep how a test process died, and what Ray wrote of it: xdist says only that it is gone."""
    if not error:
        return
    process: subprocess.Popen[bytes] = node.gateway._io.popen
    words = [f"{node.gateway.id} (process {process.pid}) ended with status {process.wait(timeout=10)}"]
    for log in sorted(Path("/tmp/ray").glob(f"session_*_{process.pid}/logs/*")):
        if log.name in ("raylet.err", "gcs_server.err") or log.name.startswith("python-core-driver"):
            words += [f"-- {log}", *log.read_text(errors="replace").splitlines()[-10:]]
    node.config.stash.setdefault(LAST_WORDS, []).extend(words)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    if words := config.stash.get(LAST_WORDS, []):
        terminalreporter.section("processes that died")
        terminalreporter.write_line("\n".join(words))


@pytest.fixture(scope="session")
def ray_session() -> Iterator[None]:
    """One Ray cluster on this machine for all tests that need one."""
    os.environ.pop("RAY_ADDRESS", None)
    with session():
        yield


@pytest.fixture
def run_command(capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture) -> Iterator[Command]:
    """Run `ragray ...` in this process: a process of its own takes seconds to import what this one has."""
    handler = signal.getsignal(signal.SIGTERM)

    def end(*arguments: str | Path) -> Ended:
        capfd.readouterr()
        caplog.clear()
        with pytest.raises(SystemExit) as ended:
            run([str(argument) for argument in arguments])
        printed = capfd.readouterr()
        logged = [record.getMessage() for record in caplog.records if record.name == "ragray"]
        return Ended(int(ended.value.code or 0), printed.out, tuple(printed.err.splitlines()), tuple(logged))

    yield end
    signal.signal(signal.SIGTERM, handler)


@pytest.fixture(scope="session")
def tiny_decoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A decoder-only generator of random weights."""
    from tests import tiny

    return tiny.save_decoder(tmp_path_factory.mktemp("decoder"))


@pytest.fixture(scope="session")
def tiny_encoder_decoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An encoder-decoder generator of random weights."""
    from tests import tiny

    return tiny.save_encoder_decoder(tmp_path_factory.mktemp("encoder-decoder"))


@pytest.fixture(scope="session")
def tiny_bart(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An encoder-decoder generator with learned positions, of random weights."""
    from tests import tiny

    return tiny.save_bart(tmp_path_factory.mktemp("bart"))


@pytest.fixture(scope="session")
def tiny_dpr(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A question encoder of DPR, of random weights."""
    from tests import tiny

    return tiny.save_dpr(tmp_path_factory.mktemp("dpr"))


@pytest.fixture(scope="session")
def tiny_encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A text encoder of random weights."""
    from tests import tiny

    return tiny.save_encoder(tmp_path_factory.mktemp("encoder"))


@pytest.fixture(scope="session")
def tiny_encoder_index(tiny_encoder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An index of 40 passages, made with the tiny encoder."""
    folder = tmp_path_factory.mktemp("tiny-index")
    corpus = helpers.write_corpus(folder / "corpus", helpers.some_passages(40))
    config = EncoderConfig(model=str(tiny_encoder), max_length=64)
    embeddings = helpers.write_embeddings(folder / "embeddings", corpus, config=config)
    return helpers.write_index(folder / "index", embeddings, corpus)


@pytest.fixture(scope="session")
def hash_index(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An index of 40 passages, made with the fake encoder `hash:64`."""
    return helpers.index_of(tmp_path_factory.mktemp("hash-index"), helpers.some_passages(40))
