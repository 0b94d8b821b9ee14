"""Serving on real Ray Serve, over real HTTP, from a tiny index with the fake encoder and generator."""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import faiss
import httpx
import numpy as np
import pytest
import yaml
from pydantic import BaseModel

from ragray.cluster.serving.commands import banner, build, running
from ragray.cluster.serving.deployments import application
from ragray.cluster.serving.service import listening_host, require_none, start, stop
from ragray.config import Config, load_config
from ragray.corpus.table import passages_to_table
from ragray.embed.encoder import HashEncoder
from ragray.errors import ArtifactError, ConfigError, ServingError
from ragray.generate.engines.fake import FirstSentenceGenerator
from ragray.generate.pipeline import Pipeline
from ragray.index.store.segment import write_segment
from ragray.index.store.snapshot import SEGMENTS, SegmentRef, find_current, publish_snapshot
from ragray.retrieve.load import load_retriever
from ragray.serve.port import require_free_port
from ragray.types import Passage
from tests.helpers import make_snapshot
from tests.processes import descendants

CONFIGS = sorted((Path(__file__).parents[3] / "serve_configs").glob("*.yaml"))
QUESTION = "Which river flows through Paris?"
PASSAGES = [
    Passage("paris#0", "The river Seine flows through Paris. It is long.", "Paris", "paris"),
    Passage("rome#0", "The Tiber flows through Rome.", "Rome", "rome"),
    Passage("cat#0", "Cats sleep most of the day.", "Cat", "cat"),
]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def write_index(folder: Path, name: str = "000001-test") -> Path:
    """Write an index of the three passages, as `ragray index build` would."""
    encoder = HashEncoder(64)
    vectors_ND = encoder.encode([passage.text for passage in PASSAGES]).astype(np.float16)
    blocks = [(passages_to_table(PASSAGES), vectors_ND)]
    write_segment(folder / SEGMENTS / name, blocks, num_rows=3, empty_index=faiss.IndexFlatIP(64))
    snapshot = make_snapshot(name, [SegmentRef(name=name, num_rows=3)])
    publish_snapshot(folder, snapshot, expected=find_current(folder))
    return folder


def config(port: int) -> Config:
    return load_config(None, [f"serve.port={port}", "generate.model=first-sentence", "retrieve.k=2"])


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_index(tmp_path_factory.mktemp("serve") / "index")


@dataclass
class Service:
    """A `ragray serve` process with a cluster of its own, and a client of it."""

    process: subprocess.Popen[str]
    client: httpx.Client

    def processes(self, title: str = "") -> list[int]:
        """Process ids below it whose title holds some text."""
        return descendants(self.process.pid, title.encode())

    def wait_until_alive(self) -> None:
        while self.process.poll() is None:
            with contextlib.suppress(httpx.TransportError):
                if self.client.get("/healthz").json() == {"status": "alive"}:
                    return
            time.sleep(0.05)
        raise AssertionError(self.process.communicate()[0])


@pytest.fixture(scope="module")
def service(index: Path) -> Iterator[Service]:
    """The one service that the tests of this module ask, from the moment when it is alive; the last test that uses it stops it."""
    port = free_port()
    settings = [f"serve.port={port}", "generate.model=first-sentence", "retrieve.k=2"]
    process = subprocess.Popen(
        [sys.executable, "-m", "ragray.cli", "serve", "--index", str(index), *settings],
        env={name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=120) as client:
        service = Service(process, client)
        try:
            service.wait_until_alive()
            yield service
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGTERM)
                process.communicate(timeout=120)


@pytest.fixture(scope="module")
def client(service: Service) -> httpx.Client:
    return service.client


def test_a_service_is_alive_while_it_loads_and_holds_requests_until_it_can_answer(client: httpx.Client) -> None:
    unready = client.get("/readyz")
    assert (unready.status_code, unready.headers["retry-after"]) == (503, "1")
    answer = client.post("/v1/answer", json={"question": QUESTION})  # it waits for the models
    assert answer.json()["answer"] == "The river Seine flows through Paris."
    assert client.get("/readyz").json()["snapshot"] == "000001-test"


def test_an_index_that_does_not_exist_is_an_error_before_anything_starts(tmp_path: Path) -> None:
    before = descendants(os.getpid())
    with pytest.raises(ArtifactError, match="nowhere"), running(tmp_path / "nowhere", None, config(free_port())):
        pass
    assert set(descendants(os.getpid())) <= set(before)


def test_a_port_in_use_is_an_error_that_names_it_and_another(index: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with (
            pytest.raises(ServingError, match=rf"port {port} on 127.0.0.1 is in use; .* serve.port=\d+$"),
            running(index, None, config(port)),
        ):
            pass
    require_free_port(config(port).serve)


def test_an_answer_over_http_is_the_answer_of_the_local_pipeline(client: httpx.Client, index: Path) -> None:
    body = client.post("/v1/answer", json={"question": QUESTION}).json()
    local = Pipeline(load_retriever(index, None, Config()), FirstSentenceGenerator(), k=2)
    [expected] = local.answer([QUESTION])
    assert (body["answer"], body["snapshot"]) == (expected.text, expected.snapshot)
    assert [(c["id"], c["weight"]) for c in body["citations"]] == [
        (c.hit.passage.id, c.weight) for c in expected.citations
    ]
    assert body["citations"][0]["score"] == pytest.approx(expected.citations[0].hit.score, rel=1e-6)


def test_a_search_over_http_finds_what_the_local_retriever_finds(client: httpx.Client, index: Path) -> None:
    for k in (1, 3):
        body = client.post("/v1/search", json={"query": QUESTION, "k": k}).json()
        [found] = load_retriever(index, None, Config()).search([QUESTION], k)
        assert body["snapshot"] == found.snapshot
        assert [hit["id"] for hit in body["hits"]] == [hit.passage.id for hit in found.hits]


def test_a_stream_over_http_ends_with_the_answer_that_its_pieces_join_to(client: httpx.Client) -> None:
    response = client.post("/v1/answer", json={"question": QUESTION, "stream": True})
    assert response.headers["content-type"].startswith("text/event-stream")
    *pieces, last = response.text.removesuffix("\n\n").split("\n\n")
    text = "".join(json.loads(piece.removeprefix("data: "))["delta"] for piece in pieces)
    name, data = last.split("\n")
    assert name == "event: answer"
    assert json.loads(data.removeprefix("data: "))["answer"] == text == "The river Seine flows through Paris."


def test_closed_book_uses_no_passages(client: httpx.Client) -> None:
    body = client.post("/v1/answer", json={"question": QUESTION, "closed_book": True}).json()
    assert (body["answer"], body["citations"]) == ("I do not know.", [])


def test_a_ready_service_names_the_snapshot_and_the_index(client: httpx.Client, index: Path) -> None:
    assert client.get("/healthz").json() == {"status": "alive"}
    response = client.get("/readyz")
    assert response.status_code == 200
    body = response.json()
    assert (body["status"], body["snapshot"], body["index"]) == ("ok", "000001-test", str(index))


def test_an_invalid_request_over_http_names_the_field(client: httpx.Client) -> None:
    response = client.post("/v1/answer", json={"question": " "})
    assert (response.status_code, response.json()["error"]["message"]) == (422, "question: must not be empty")


def test_a_body_that_is_too_large_is_refused_however_it_is_sent(client: httpx.Client) -> None:
    block, headers = b" " * (1 << 16), {"Content-Type": "application/json"}
    for content in (block * 64, (block for _ in range(64))):
        response = client.post("/v1/answer", content=content, headers=headers)
        assert (response.status_code, response.json()["error"]["type"]) == (413, "too_large")


def test_replicas_that_die_are_replaced_and_nothing_is_an_internal_error(service: Service) -> None:
    """One deployment after the other loses its process, before the one before is back; then the service answers again."""
    client, statuses = service.client, set[int]()

    def ask() -> int:
        response = client.post("/v1/answer", json={"question": QUESTION})
        assert response.headers["content-type"] == "application/json"
        assert client.get("/healthz").json() == {"status": "alive"}
        statuses.add(response.status_code)
        return response.status_code

    for name in ("Generator", "Retriever", "Gateway"):
        [replica] = service.processes(f"ray::ServeReplica:ragray:{name}")
        os.kill(replica, signal.SIGKILL)
        ask()
    while ask() != 200:
        pass
    assert statuses <= {200, 503, 504}


def test_a_service_that_is_stopped_ends_with_the_code_of_its_signal_and_leaves_no_process(service: Service) -> None:
    below = service.processes()
    os.killpg(service.process.pid, signal.SIGINT)
    os.kill(service.process.pid, signal.SIGTERM)
    output, _ = service.process.communicate(timeout=120)
    assert service.process.returncode in (130, 143), output
    assert "Traceback" not in output
    deadline = time.monotonic() + 60
    while alive := [pid for pid in below if Path(f"/proc/{pid}").exists()]:
        assert time.monotonic() < deadline, f"left behind: {alive}"
        time.sleep(0.1)


@pytest.fixture
def serve_without_application(ray_session: None) -> Iterator[None]:
    """Serve on the cluster of this process, before anything is deployed on it."""
    from ray import serve

    serve.start(proxy_location="HeadOnly", http_options={"host": "127.0.0.2", "port": free_port()})
    yield
    stop()


def test_on_a_cluster_with_serve_another_service_is_refused_and_a_replica_that_cannot_start_says_why(
    serve_without_application: None, index: Path, tmp_path: Path
) -> None:
    assert listening_host() == "127.0.0.2"
    with (
        pytest.raises(ServingError, match="Serve runs on this cluster already"),
        running(index, None, config(free_port())),
    ):
        pass
    broken = write_index(tmp_path / "broken")
    [vectors] = broken.glob("segments/*/vectors.npy")
    vectors.unlink()
    settings = config(free_port())
    with pytest.raises(ServingError, match=r"^Retriever cannot start: \S+/vectors.npy: missing[^\n]*$"):
        list(start(application(str(broken), "", settings), settings.serve))
    stop()
    require_none()


def test_the_banner_holds_the_urls() -> None:
    text = banner("http://127.0.0.1:8000", Path("index"), None)
    assert "http://127.0.0.1:8000/v1/answer" in text
    assert "base model" in text
    assert "Authorization" not in text
    assert "-H 'Authorization: Bearer KEY'" in banner("http://127.0.0.1:8000", Path("index"), None, with_keys=True)


@pytest.mark.parametrize(
    ("args", "reason"),
    [({}, "no 'index'"), ({"index": "x", "indx": "y"}, "unknown key 'indx'")],
)
def test_wrong_args_of_a_configuration_file_are_named(args: dict[str, str], reason: str) -> None:
    with pytest.raises(ConfigError, match=reason):
        build(args)


def test_the_application_of_a_configuration_file_is_built_without_loading_anything(index: Path) -> None:
    from ray.serve import Application

    assert isinstance(build({"index": str(index)}), Application)


def unknown_keys(model: type[BaseModel], values: dict[str, Any], where: str = "") -> list[str]:
    """Name the keys that Serve would pass over in silence."""
    found = []
    for key, value in values.items():
        field = model.model_fields.get(key)
        if field is None:
            found.append(f"{where}{key}")
            continue
        for nested in models_in(field.annotation):
            for item in value if isinstance(value, list) else [value]:
                if isinstance(item, dict):
                    found += unknown_keys(nested, item, f"{where}{key}.")
    return found


def models_in(annotation: object) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for inner in get_args(annotation) for model in models_in(inner)]


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.name)
def test_serve_configs_hold_only_keys_that_serve_and_ragray_know(path: Path) -> None:
    from ray.serve.schema import ServeDeploySchema

    values = yaml.safe_load(path.read_text(encoding="utf-8"))
    assert unknown_keys(ServeDeploySchema, values) == []
    parsed = ServeDeploySchema.model_validate(values)
    [application] = parsed.applications
    assert application.import_path == "ragray.cluster.serving.commands:build"
    assert set(application.args) <= {"index", "run", "config"}
    deployments = {deployment.name: deployment for deployment in application.deployments}
    assert set(deployments) <= {"Gateway", "Retriever", "Generator"}
    written = values["applications"][0]["deployments"]
    assert {each["name"] for each in written if "user_config" in each} <= {"Gateway"}


def test_unknown_keys_of_a_serve_config_are_found() -> None:
    from ray.serve.schema import ServeDeploySchema

    values = {"http_option": {}, "applications": [{"name": "a", "deployments": [{"name": "b", "num_replica": 2}]}]}
    assert unknown_keys(ServeDeploySchema, values) == ["http_option", "applications.deployments.num_replica"]
