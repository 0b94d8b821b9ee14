"""Following `CURRENT`: what it names is opened beside, checked and served; what is refused changes nothing, until it is written again."""

import shutil
from collections.abc import Callable
from pathlib import Path

import faiss
import numpy as np
import pytest

from ragray.artifact.manifest import publish, read_manifest
from ragray.config import Config
from ragray.errors import ConfigError, CorruptArtifactError, ServingError
from ragray.index.store.lifecycle import promote, rollback
from ragray.index.store.segment import FAISS_FILE
from ragray.index.store.snapshot import SEGMENTS, publish_snapshot, read_snapshot, successor, write_current
from ragray.retrieve.follow import FollowedRetriever, Follower
from ragray.retrieve.load import SnapshotOpener
from ragray.retrieve.shelf import IndexSource
from tests.helpers import index_of, some_passages, write_embeddings, write_index

FIRST, SECOND, FOREIGN, GARBLED = "000001-test", "000002-test", "000003-foreign", "000004-garbled"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Snapshots of forty rows; the second hides ten, the third is by another encoder, in the fourth FAISS has other vectors."""
    folder = tmp_path_factory.mktemp("followed")
    path = index_of(folder, some_passages(40))
    corpus, embeddings = folder / "corpus", folder / "embeddings"
    write_index(path, embeddings, corpus, name=SECOND, deleted=range(10))
    write_index(path, write_embeddings(folder / "other", corpus, dim=32), corpus, name=FOREIGN)
    write_index(path, embeddings, corpus, name=GARBLED)
    garble(next((path / SEGMENTS).glob(f"{GARBLED}*")))
    write_current(path, FIRST)
    return path


def garble(segment: Path) -> None:
    """Let FAISS hold vectors that no row has; the manifest names what is there now."""
    manifest = read_manifest(segment, "segment")
    index = faiss.IndexIVFFlat(faiss.IndexFlatIP(64), 64, 4, faiss.METRIC_INNER_PRODUCT)
    vectors = np.random.default_rng(0).normal(size=(40, 64)).astype(np.float32)
    index.train(vectors)
    index.add(vectors)
    faiss.write_index(index, str(segment / FAISS_FILE))
    files = [segment / entry.path for entry in manifest.files]
    publish(segment, kind="segment", fingerprint=manifest.fingerprint, facts=manifest.facts, files=files)


@pytest.fixture
def index(made: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(made, tmp_path / "index"))


def followed(index: Path, *, once: bool = False) -> FollowedRetriever:
    return FollowedRetriever(IndexSource(str(index)), SnapshotOpener(Config()), once=once)


def served(retriever: FollowedRetriever) -> str:
    """The snapshot that a search is answered from."""
    [found] = retriever.search(["something"], 1)
    assert found.snapshot == retriever.snapshot
    return found.snapshot


def test_what_is_promoted_and_rolled_back_is_served(index: Path) -> None:
    publish_snapshot(
        index,
        successor(index, read_snapshot(index, SECOND), "x", read_snapshot(index, SECOND).segments),
        expected=FIRST,
    )
    child = (index / "CURRENT").read_text(encoding="utf-8").strip()
    retriever = followed(index)
    assert served(retriever) == child
    for move, expected in ((lambda: rollback(index), SECOND), (lambda: promote(index, FIRST), FIRST)):
        move()
        assert served(retriever) != expected
        retriever.follower.poll()
        assert (served(retriever), retriever.follower.last_error) == (expected, "")


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        (GARBLED, "of 8 stored passages do not find themselves"),
        ("000009-none", "has no snapshot '000009-none'"),
    ],
)
def test_a_snapshot_that_is_refused_is_named_and_the_old_one_served_until_current_is_written_again(
    index: Path, bad: str, reason: str
) -> None:
    retriever = followed(index)
    write_current(index, bad)
    for _ in range(2):
        retriever.follower.poll()
        assert served(retriever) == FIRST
        assert reason in retriever.follower.last_error
    write_current(index, FIRST)
    retriever.follower.poll()
    assert (served(retriever), retriever.follower.last_error) == (FIRST, "")


def test_models_are_loaded_once_as_long_as_the_encoder_stays(index: Path) -> None:
    opener = SnapshotOpener(Config())
    first, second, foreign = (opener(IndexSource(str(index), "", name)) for name in (FIRST, SECOND, FOREIGN))
    assert first._encoder is second._encoder
    assert foreign.models.encoder == "hash:32"


class Recorder:
    """A keeper that notes what it is told; ``prepare`` does what a test wants."""

    def __init__(self, prepare: Callable[[IndexSource], None] = lambda source: None) -> None:
        self.told: list[str] = []
        self._prepare = prepare

    def held(self) -> IndexSource | None:
        return None if not self.told else IndexSource("index", "", FIRST)

    def prepare(self, source: IndexSource) -> None:
        self.told.append(f"prepare {source.snapshot}")
        self._prepare(source)

    def keep(self, source: IndexSource) -> None:
        self.told.append(f"keep {source.snapshot}")


def test_a_snapshot_is_tried_once_per_writing_of_current_but_again_where_a_process_ended(index: Path) -> None:
    errors: list[Exception] = [CorruptArtifactError("bad"), ServingError("died"), ServingError("died")]

    def prepare(source: IndexSource) -> None:
        if errors:
            raise errors.pop(0)

    keeper = Recorder(prepare)
    first = IndexSource(str(index), "", FIRST)
    follower = Follower(IndexSource(str(index)), keeper, first)
    write_current(index, SECOND)
    for _ in range(3):
        follower.poll()
    assert keeper.told == [f"prepare {SECOND}", f"keep {FIRST}"]
    assert follower.last_error == "bad"
    write_current(index, SECOND)
    for _ in range(5):
        follower.poll()
    assert keeper.told[2:] == [f"prepare {SECOND}", f"keep {FIRST}"] * 2 + [f"prepare {SECOND}", f"keep {SECOND}"]
    assert (follower.served, follower.last_error) == (IndexSource(str(index), "", SECOND), "")


def test_of_several_writings_between_two_looks_only_the_last_is_opened(index: Path) -> None:
    keeper = Recorder()
    follower = Follower(IndexSource(str(index)), keeper, IndexSource(str(index), "", FIRST))
    for name in (SECOND, FOREIGN, SECOND, FOREIGN):
        write_current(index, name)
    follower.poll()
    assert keeper.told == [f"prepare {FOREIGN}", f"keep {FOREIGN}"]


def test_nothing_is_followed_before_it_is_known_what_is_held(index: Path) -> None:
    keeper = Recorder()
    follower = Follower(IndexSource(str(index)), keeper)
    follower.poll()
    assert (follower.served, keeper.told) == (None, [])


def test_without_following_only_what_is_asked_for_is_opened(index: Path) -> None:
    retriever = followed(index, once=True)
    retriever.follower.poll()
    promote(index, SECOND)
    retriever.follower.poll()
    assert served(retriever) == FIRST
    retriever.follower.want_config({"index": str(index)})
    retriever.follower.poll()
    assert served(retriever) == SECOND


def test_a_snapshot_that_user_config_names_is_served_whatever_is_current(index: Path) -> None:
    retriever = followed(index)
    retriever.follower.want_config({"index": str(index), "snapshot": SECOND})
    retriever.follower.poll()
    promote(index, FIRST)
    retriever.follower.poll()
    assert served(retriever) == SECOND


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        ({"index": "nowhere"}, "nowhere/CURRENT: cannot be read"),
        ({"indx": "two"}, "unknown key 'indx'"),
        ({}, "no 'index'"),
        ({"index": 3}, "expected a string"),
    ],
)
def test_a_user_config_that_cannot_be_served_changes_nothing_and_says_why(
    index: Path, bad: dict[str, str], reason: str
) -> None:
    retriever = followed(index)
    retriever.follower.poll()
    retriever.follower.want_config(bad)
    retriever.follower.poll()
    assert served(retriever) == FIRST
    assert reason in retriever.follower.last_error


def test_an_unknown_key_of_user_config_is_named() -> None:
    with pytest.raises(ConfigError, match="unknown key 'snapshots'"):
        IndexSource.parse({"index": "one", "snapshots": "1"})
