"""The retriever pool on a real cluster finds exactly what one local index finds, also after one of its actors was killed."""

import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import ray

from ragray.cluster.retrieve import PoolRetriever, RetrieverPool, retriever_pool
from ragray.config import IndexConfig, RetrieveConfig
from ragray.embed.encoder import HashEncoder
from ragray.errors import ArtifactError, EncoderMismatchError, NotAnArtifactError
from ragray.index.search import IndexReader, SearchResult
from ragray.index.segment import FAISS_FILE
from ragray.index.snapshot import SEGMENTS
from ragray.retrieve.retriever import LocalRetriever
from tests.helpers import index_of, sentence, some_passages, write_index

pytestmark = pytest.mark.usefixtures("ray_session")

ENCODER = HashEncoder(64)
QUESTIONS = [sentence(10_000 + number) for number in range(20)]
VECTORS = ENCODER.encode_questions(QUESTIONS)
TWO_BY_TWO = RetrieveConfig(num_shards=2, num_replicas=2, cpus_per_actor=0.1)


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return index_of(
        tmp_path_factory.mktemp("index"), some_passages(110), IndexConfig(segment_rows=25), deleted=range(40, 60)
    )


@pytest.fixture(scope="module")
def pool(index: Path, ray_session: None) -> Iterator[RetrieverPool]:
    with retriever_pool(index, TWO_BY_TWO) as started:
        yield started


@pytest.fixture(scope="module")
def local(index: Path) -> SearchResult:
    return IndexReader.open(index).search(VECTORS, 5)


def assert_same(found: SearchResult, expected: SearchResult) -> None:
    assert found.hits == expected.hits
    assert found.rows_NK.tobytes() == expected.rows_NK.tobytes()
    assert found.scores_NK.tobytes() == expected.scores_NK.tobytes()
    assert found.vectors_NKD.tobytes() == expected.vectors_NKD.tobytes()


def pid_of(actor: Any) -> int:
    return int(ray.get(actor.__ray_call__.remote(lambda self: os.getpid())))


def test_every_replica_finds_what_the_local_index_finds(pool: RetrieverPool, local: SearchResult) -> None:
    assert [len(replica) for replica in pool.replicas] == [2, 2]
    assert len({pid_of(shard) for replica in pool.replicas for shard in replica}) == 4
    for _ in range(4):
        assert_same(pool.search(VECTORS, 5), local)


def test_searches_may_be_under_way_together(pool: RetrieverPool, local: SearchResult) -> None:
    under_way = [pool.submit(VECTORS, 5) for _ in range(6)]
    for search in reversed(under_way):
        assert_same(search.result(), local)


def test_questions_find_what_the_local_retriever_finds(pool: RetrieverPool, index: Path) -> None:
    remote, local = PoolRetriever(pool, ENCODER), LocalRetriever.open(index, ENCODER)
    for k in (1, 7, 1000):
        assert remote.search(QUESTIONS, k) == local.search(QUESTIONS, k)
    assert remote.search([], 3) == []
    assert remote.snapshot == local.snapshot == "000001-test"


def test_a_pool_can_be_searched_from_inside_a_task(pool: RetrieverPool, local: SearchResult) -> None:
    def search(pool: RetrieverPool) -> list[SearchResult]:
        return [pool.search(VECTORS, 5) for _ in range(2)]

    for found in ray.get(ray.remote(search).remote(pool)):
        assert_same(found, local)


def test_a_killed_actor_is_started_again_and_no_search_is_lost(pool: RetrieverPool, local: SearchResult) -> None:
    actor = pool.replicas[0][1]
    before = pid_of(actor)
    under_way = [pool.submit(VECTORS, 5) for _ in range(4)]
    os.kill(before, signal.SIGKILL)
    under_way += [pool.submit(VECTORS, 5) for _ in range(4)]
    for search in under_way:
        assert_same(search.result(), local)
    assert pid_of(actor) != before


def test_a_pool_searches_its_snapshot_to_the_end_even_an_actor_that_starts_later(tmp_path: Path) -> None:
    index = index_of(tmp_path, some_passages(50), IndexConfig(segment_rows=25))
    before = IndexReader.open(index).search(VECTORS, 5)
    with retriever_pool(index, RetrieveConfig(num_shards=7, cpus_per_actor=0.1)) as pool:
        assert [len(replica) for replica in pool.replicas] == [2]  # a shard has at least one segment
        write_index(index, tmp_path / "embeddings", tmp_path / "corpus", name="000002-test", deleted=range(25))
        os.kill(pid_of(pool.replicas[0][0]), signal.SIGKILL)
        assert pool.snapshot == "000001-test"
        assert_same(pool.search(VECTORS, 5), before)
    assert IndexReader.open(index).search(VECTORS, 5).hits != before.hits


def test_actors_end_with_the_block(index: Path) -> None:
    with retriever_pool(index, RetrieveConfig(cpus_per_actor=0.1)) as pool:
        ((actor,),) = pool.replicas
    with pytest.raises(ray.exceptions.RayActorError):
        ray.get(actor.ready.remote())


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
    with pytest.raises(EncoderMismatchError, match="snapshot 000001-test"):
        PoolRetriever(pool, HashEncoder(32))
