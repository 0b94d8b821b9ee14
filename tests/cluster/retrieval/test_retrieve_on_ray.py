"""The retriever pool on a real cluster finds exactly what one local index finds, whoever dies and whatever is swapped meanwhile."""

import os
import pickle
import shutil
import signal
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import ray

from ragray.cluster.retrieval.pool import RetrieverPool
from ragray.cluster.retrieval.sharded import ShardedOpener
from ragray.cluster.retrieval.start import PoolRetriever, retriever_pool
from ragray.config import Config, IndexConfig, RetrieveConfig
from ragray.embed.encoder import HashEncoder
from ragray.errors import ArtifactError, ClusterError, EncoderMismatchError, InputError, NotAnArtifactError, RagrayError
from ragray.index.search.reader import IndexReader
from ragray.index.search.result import SearchResult
from ragray.index.store.segment import FAISS_FILE
from ragray.index.store.snapshot import SEGMENTS, SNAPSHOTS
from ragray.retrieve.load import SnapshotOpener
from ragray.retrieve.retriever import LocalRetriever
from ragray.retrieve.shelf import IndexSource
from tests.helpers import index_of, sentence, some_passages, write_embeddings, write_index

pytestmark = pytest.mark.usefixtures("ray_session")

ENCODER = HashEncoder(64)
QUESTIONS = [sentence(10_000 + number) for number in range(20)]
VECTORS = ENCODER.encode_questions(QUESTIONS)
TWO_BY_TWO = RetrieveConfig(num_shards=2, num_replicas=2, cpus_per_actor=0.1)
SEGMENTED = IndexConfig(segment_rows=25, lexical="plain")
FIRST, SECOND, OTHER, DAMAGED = "000001-test", "000002-test", "000003-other", "000004-damaged"


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Snapshots of the same rows: the first, which is current, hides twenty of them, the second thirty others; and two bad ones."""
    folder = tmp_path_factory.mktemp("index")
    path = index_of(folder, some_passages(110), SEGMENTED, deleted=range(40, 60))
    corpus, embeddings = folder / "corpus", folder / "embeddings"
    write_index(path, embeddings, corpus, SEGMENTED, name=SECOND, deleted=range(60, 90))
    write_index(path, write_embeddings(folder / "other", corpus, dim=32), corpus, name=OTHER)
    write_index(path, embeddings, corpus, name=DAMAGED)
    next((path / SEGMENTS).glob(f"{DAMAGED}*")).joinpath(FAISS_FILE).unlink()
    (path / "CURRENT").write_text(FIRST + "\n", encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def pool(index: Path, ray_session: None) -> Iterator[RetrieverPool]:
    with retriever_pool(index, TWO_BY_TWO) as started:
        yield started


@pytest.fixture
def expected(index: Path) -> dict[str, SearchResult]:
    """What the one and the other snapshot answer."""
    return {
        name: IndexReader.open(index, snapshot=name).search(VECTORS, 5, with_vectors=True) for name in (FIRST, SECOND)
    }


@pytest.fixture
def local(expected: dict[str, SearchResult]) -> SearchResult:
    return expected[FIRST]


def assert_same(found: SearchResult, expected: SearchResult) -> None:
    assert found.hits == expected.hits
    assert found.rows_NK.tobytes() == expected.rows_NK.tobytes()
    assert found.scores_NK.tobytes() == expected.scores_NK.tobytes()
    assert found.vectors_NKD.tobytes() == expected.vectors_NKD.tobytes()


def inside(actor: Any, function: Callable[[Any], Any]) -> Any:
    """Call a function with what runs in an actor; wait where the actor is being started again."""
    return ray.get(actor.__ray_call__.options(max_task_retries=-1).remote(function))


def eventually(condition: Callable[[], bool], seconds: float = 60) -> bool:
    """Whether something comes to hold: what replies set in motion ends some time after they are read."""
    until = time.monotonic() + seconds
    while not condition() and time.monotonic() < until:
        time.sleep(0.01)
    return condition()


def pid_of(actor: Any) -> int:
    return int(inside(actor, lambda self: os.getpid()))


def open_snapshots(pool: RetrieverPool) -> list[list[str]]:
    return [inside(actor, lambda self: self.open_snapshots()) for actor in pool.actors]


def test_every_replica_finds_what_the_local_index_finds(pool: RetrieverPool, local: SearchResult) -> None:
    assert [len(replica) for replica in pool.replicas] == [2, 2]
    assert len({pid_of(actor) for actor in pool.actors}) == 4
    in_flight = [pool.submit(VECTORS, 5) for _ in range(6)]
    for search in reversed(in_flight):
        assert_same(search.result(), local)
        assert search.snapshot.name == FIRST


@pytest.mark.parametrize("where", ["", "n >= 30", "n == 5"])
def test_words_and_filters_find_what_they_find_locally(pool: RetrieverPool, index: Path, where: str) -> None:
    local = IndexReader.open(index)
    assert_same(pool.search(VECTORS, 5, where=where), local.search(VECTORS, 5, where=where))
    for vectors in (None, VECTORS):
        found = pool.search_text(QUESTIONS, 5, where=where, vectors_ND=vectors)
        assert_same(found, local.search_text(QUESTIONS, 5, where=where, vectors_ND=vectors))
    assert any(found.hits) or where == "n == 5"


@pytest.mark.parametrize("mode", ["dense", "lexical", "hybrid"])
def test_questions_find_what_the_local_retriever_finds(pool: RetrieverPool, index: Path, mode: Any) -> None:
    settings = RetrieveConfig(mode=mode, candidates=30)
    remote = PoolRetriever(pool, ENCODER, settings)
    local = LocalRetriever(IndexReader.open(index), ENCODER, settings)
    for k in (1, 7, 1000):
        assert remote.search(QUESTIONS, k) == local.search(QUESTIONS, k)
    assert remote.search([], 3) == []
    assert remote.snapshot == local.snapshot == FIRST


def test_what_is_wrong_with_a_search_is_said_in_one_line(pool: RetrieverPool) -> None:
    with pytest.raises(InputError) as error:
        pool.search(VECTORS, 5, where="n ==")
    assert len(str(error.value).splitlines()) == 1
    with pytest.raises(EncoderMismatchError, match="has 64 dimensions"):
        pool.search(VECTORS[:, :3], 5)


def test_a_pool_can_be_searched_but_not_swapped_from_inside_a_task(pool: RetrieverPool, local: SearchResult) -> None:
    def search(pool: RetrieverPool) -> list[SearchResult]:
        with pytest.raises(RagrayError, match="started by another process"):
            pool.swap(SECOND)
        return [pool.search(VECTORS, 5, with_vectors=True) for _ in range(2)]

    for found in ray.get(ray.remote(search).remote(pool)):
        assert_same(found, local)


def test_killed_actors_are_started_again_and_no_search_is_lost(pool: RetrieverPool, local: SearchResult) -> None:
    before = [pid_of(pool.replicas[0][1]), pid_of(pool.replicas[1][0])]
    in_flight = [pool.submit(VECTORS, 5) for _ in range(20)]
    for pid in before:
        os.kill(pid, signal.SIGKILL)
    in_flight += [pool.submit(VECTORS, 5) for _ in range(20)]
    for search in in_flight:
        assert_same(search.result(), local)
    assert not {pid_of(actor) for actor in pool.actors} & set(before)
    assert eventually(lambda: pool._in_flight == [[0, 0], [0, 0]]), pool._in_flight


def test_searches_go_to_the_replica_that_has_fewer_in_flight_and_where_one_hangs_a_second_is_queried(
    pool: RetrieverPool, local: SearchResult
) -> None:
    hanging, hedge_s = pid_of(pool.replicas[0][0]), pool.hedge_s
    os.kill(hanging, signal.SIGSTOP)
    try:
        while not pool._in_flight[0][0]:  # one of the first searches meets the replica that hangs
            assert_same(pool.search(VECTORS, 5, with_vectors=True), local)
        sent = pool._sent[0][0]
        pool.hedge_s = 60.0  # on a busy machine the other one may be slow, too
        for _ in range(10):
            assert_same(pool.search(VECTORS, 5, with_vectors=True), local)
        assert pool._sent[0][0] == sent
        assert eventually(lambda: pool._in_flight == [[1, 0], [0, 0]]), pool._in_flight
    finally:
        os.kill(hanging, signal.SIGCONT)
        pool.hedge_s = hedge_s
    assert eventually(lambda: pool._in_flight == [[0, 0], [0, 0]]), pool._in_flight


def test_a_swap_under_load_loses_no_search_and_every_answer_is_of_one_snapshot(
    pool: RetrieverPool, expected: dict[str, SearchResult]
) -> None:
    elsewhere: RetrieverPool = pickle.loads(pickle.dumps(pool))
    stop = threading.Event()

    def search(handle: RetrieverPool, answered_from: list[str]) -> None:
        while not stop.is_set():
            in_flight = [handle.submit(VECTORS, 5) for _ in range(3)]
            for one in in_flight:
                assert_same(one.result(), expected[one.snapshot.name])
                answered_from[0] = one.snapshot.name

    last: list[list[str]] = [[""], [""]]
    with ThreadPoolExecutor(2) as threads:
        loads = [threads.submit(search, *args) for args in zip((pool, elsewhere), last, strict=True)]
        try:
            for name in (SECOND, FIRST, SECOND, FIRST):
                pool.swap(name)
                after = pool.submit(VECTORS, 5)
                assert_same(after.result(), expected[name])
                assert after.snapshot.name == name
                assert eventually(lambda name=name: last == [[name]] * 2 or any(load.done() for load in loads))
        finally:
            stop.set()
        assert [load.result() for load in loads] == [None, None]
    assert elsewhere.snapshot.name == FIRST  # the replies told it
    assert open_snapshots(pool) == [[FIRST]] * 4


def test_a_handle_that_missed_the_swap_is_told_even_where_actors_died_and_the_old_snapshot_was_collected(
    tmp_path: Path,
) -> None:
    index = index_of(tmp_path, some_passages(50), SEGMENTED)
    with retriever_pool(index, RetrieveConfig(num_shards=7, cpus_per_actor=0.1)) as pool:
        assert [len(replica) for replica in pool.replicas] == [2]  # a shard has at least one segment
        elsewhere: RetrieverPool = pickle.loads(pickle.dumps(pool))
        write_index(index, tmp_path / "embeddings", tmp_path / "corpus", SEGMENTED, name=SECOND, deleted=range(25))
        assert_same(pool.search(VECTORS, 5), IndexReader.open(index, snapshot=FIRST).search(VECTORS, 5))
        retriever = PoolRetriever(elsewhere, ENCODER, RetrieveConfig(mode="hybrid"))
        pool.swap(SECOND)
        after = IndexReader.open(index)
        (index / SNAPSHOTS / f"{FIRST}.json").unlink()
        for path in (index / SEGMENTS).glob(f"{FIRST}*"):
            shutil.rmtree(path)
        os.kill(pid_of(pool.replicas[0][0]), signal.SIGKILL)
        hybrid = LocalRetriever(after, ENCODER, RetrieveConfig(mode="hybrid"))
        assert retriever.search(QUESTIONS, 5) == hybrid.search(QUESTIONS, 5)
        assert_same(elsewhere.search(VECTORS, 5), after.search(VECTORS, 5))
        with pytest.raises(NotAnArtifactError, match="no snapshot '000003-none'"):
            pool.swap("000003-none")
        next(iter((index / SEGMENTS).glob(f"{SECOND}*"))).rename(tmp_path / "away")
        assert_same(pool.search(VECTORS, 5), after.search(VECTORS, 5))


def test_a_snapshot_that_cannot_be_opened_or_of_another_encoder_is_not_swapped_to(
    pool: RetrieverPool, local: SearchResult
) -> None:
    with pytest.raises(EncoderMismatchError, match=OTHER):
        pool.swap(OTHER)
    with pytest.raises(ArtifactError, match=rf"could not open .*{DAMAGED}.*{FAISS_FILE}: missing"):
        pool.swap(DAMAGED)
    assert_same(pool.search(VECTORS, 5, with_vectors=True), local)
    assert open_snapshots(pool) == [[FIRST]] * 4


def test_a_pool_that_the_cluster_can_never_hold_is_refused_before_it_starts(index: Path) -> None:
    with (
        pytest.raises(ClusterError, match=r"1 retriever actor x 1000 CPUs wanted, the cluster has .*cpus_per_actor"),
        retriever_pool(index, RetrieveConfig(cpus_per_actor=1000)),
    ):
        pass


def test_actors_end_with_the_block_and_a_search_after_it_says_so(index: Path) -> None:
    with retriever_pool(index, RetrieveConfig(cpus_per_actor=0.1)) as pool:
        ((actor,),) = pool.replicas
    with pytest.raises(ray.exceptions.RayActorError):
        while True:  # `ray.kill` returns before the actor is dead
            ray.get(actor.newest.remote(), timeout=30)
    with pytest.raises(RagrayError, match="its actors have ended"):
        pool.search(VECTORS, 5)


def test_a_damaged_index_is_refused_with_the_file_that_is_wrong(tmp_path: Path) -> None:
    index = index_of(tmp_path, some_passages(30), IndexConfig(segment_rows=15))
    path = sorted((index / SEGMENTS).iterdir())[1] / FAISS_FILE
    path.write_bytes(path.read_bytes()[:-1])
    with (
        pytest.raises(ArtifactError, match=rf"{FAISS_FILE}: \d+ bytes, the manifest says"),
        retriever_pool(index, RetrieveConfig(num_shards=2, cpus_per_actor=0.1)),
    ):
        pass


def test_a_folder_that_is_no_index_is_refused(tmp_path: Path) -> None:
    with pytest.raises(NotAnArtifactError, match="run: ragray index build"), retriever_pool(tmp_path, TWO_BY_TWO):
        pass


def test_another_encoder_than_the_indexs_own_is_refused(pool: RetrieverPool) -> None:
    with pytest.raises(EncoderMismatchError, match=f"snapshot {FIRST}"):
        PoolRetriever(pool, HashEncoder(32))


def test_a_service_searches_each_snapshot_in_its_actors_as_long_as_requests_name_it(index: Path) -> None:
    settings = RetrieveConfig(num_shards=2, cpus_per_actor=0.1)
    opener, local = ShardedOpener(Config(retrieve=settings)), SnapshotOpener(Config())
    sources = [IndexSource(str(index), "", name) for name in (FIRST, SECOND)]
    retrievers = {source: opener(source, checked=source.snapshot == SECOND) for source in sources}
    expected = {source: local(source).search(QUESTIONS, 5) for source in sources}
    for source in [*sources, *sources]:  # the first is searched once more after the second was
        assert retrievers[source].search(QUESTIONS, 5) == expected[source]
    for bad in (OTHER, DAMAGED):
        with pytest.raises(RagrayError):
            opener(IndexSource(str(index), "", bad), checked=True)
    assert retrievers[sources[1]].search(QUESTIONS, 5) == expected[sources[1]]
