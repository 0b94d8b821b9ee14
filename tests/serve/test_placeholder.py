"""The port while the service cannot answer, over real sockets; the service is a small server that shares the port."""

import http.client
import http.server
import json
import re
import socket
import threading
import time
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from ragray.config import ServeConfig
from ragray.errors import ServingError
from ragray.serve.page.routes import POLICY
from ragray.serve.placeholder import Placeholder, alone, read_head
from ragray.serve.port import claim_port, left_by_ray, require_free_port


class Service(http.server.ThreadingHTTPServer):
    """Stands for Ray's proxy: it joins a port that another socket listens on, and says what it was asked."""

    allow_reuse_port = True
    daemon_threads = True

    class RequestHandlerClass(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self._say({"path": self.path})

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            self._say({"path": self.path, "bytes": len(body), "connection": self.headers["Connection"]})

        def _say(self, value: dict[str, object]) -> None:
            data = json.dumps(value).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, format: str, *args: object) -> None:
            pass

    def __init__(self, port: int) -> None:
        super().__init__(("127.0.0.1", port), self.RequestHandlerClass)
        self._thread = threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.01})
        self._thread.start()

    def end(self) -> None:
        self.shutdown()
        self._thread.join()
        self.server_close()


def config_of(**values: object) -> ServeConfig:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return ServeConfig(port=probe.getsockname()[1], **values)


@pytest.fixture
def config() -> ServeConfig:
    return config_of(request_timeout_s=20, max_queued_requests=3, cors_origins=("https://app.example",))


@pytest.fixture
def placeholder(config: ServeConfig) -> Iterator[Placeholder]:
    placeholder = Placeholder.start(config)
    assert placeholder is not None
    yield placeholder
    placeholder.close()


@pytest.fixture
def pool() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(8) as pool:
        yield pool


Answered = tuple[int, dict[str, object], dict[str, str]]


def ask(config: ServeConfig, path: str, body: bytes | None = None, method: str = "") -> Answered:
    """Send a request of its own connection; return status, JSON and headers (their names in small letters)."""
    connection = http.client.HTTPConnection("127.0.0.1", config.port, timeout=20)
    try:
        headers = {"Origin": "https://app.example", "Connection": "keep-alive"}
        connection.request(method or ("POST" if body is not None else "GET"), path, body, headers)
        response = connection.getresponse()
        data = response.read()
        return response.status, json.loads(data) if data else {}, {k.lower(): v for k, v in response.getheaders()}
    finally:
        connection.close()


def wait_until_held(placeholder: Placeholder, number: int) -> None:
    deadline = time.monotonic() + 20
    while placeholder.num_held != number:
        assert time.monotonic() < deadline, f"{placeholder.num_held} requests are held, not {number}"
        time.sleep(0.01)


def test_while_the_service_loads_it_is_alive_and_says_what_it_waits_for(
    placeholder: Placeholder, config: ServeConfig
) -> None:
    placeholder.wait_for("the service is loading (Generator: loading)")
    assert ask(config, "/healthz")[:2] == (200, {"status": "alive"})
    status, body, headers = ask(config, "/readyz")
    assert (status, headers["retry-after"], headers["connection"]) == (503, "1", "close")
    assert body == {"error": {"type": "unavailable", "message": "the service is loading (Generator: loading)"}}
    assert headers["access-control-allow-origin"] == "https://app.example"
    assert ask(config, "/healthz", method="HEAD")[:2] == (200, {})


def test_the_page_and_its_files_are_sent_while_the_service_loads_and_by_the_service_afterwards(
    placeholder: Placeholder, config: ServeConfig
) -> None:
    with urllib.request.urlopen(f"http://127.0.0.1:{config.port}/", timeout=20) as page:
        assert page.headers["content-security-policy"] == POLICY
        [script] = re.findall(r'src="([^"]+)"', page.read().decode())
    with urllib.request.urlopen(f"http://127.0.0.1:{config.port}/{script}", timeout=20) as file:
        assert "immutable" in file.headers["cache-control"]
    service = Service(config.port)
    try:
        placeholder.hand_over()
        assert ask(config, "/")[1] == {"path": "/"}
    finally:
        service.end()


def test_a_request_that_comes_while_the_service_loads_is_answered_by_it(
    placeholder: Placeholder, config: ServeConfig, pool: ThreadPoolExecutor
) -> None:
    answers = [pool.submit(ask, config, "/v1/answer", b"x" * size) for size in (3, 1_000_000)]
    wait_until_held(placeholder, 2)
    service = Service(config.port)
    try:
        assert ask(config, "/readyz")[0] == 503  # the service listens, and is not asked yet
        placeholder.hand_over()
        assert [answer.result()[1] for answer in answers] == [
            {"path": "/v1/answer", "bytes": 3, "connection": "close"},
            {"path": "/v1/answer", "bytes": 1_000_000, "connection": "close"},
        ]
        assert [ask(config, "/readyz")[1] for _ in range(20)] == [{"path": "/readyz"}] * 20
    finally:
        service.end()


def test_more_requests_than_may_wait_are_refused_and_those_that_wait_when_it_ends(
    config: ServeConfig, pool: ThreadPoolExecutor
) -> None:
    placeholder = Placeholder.start(config)
    assert placeholder is not None
    held = [pool.submit(ask, config, "/v1/answer", b"{}") for _ in range(3)]
    wait_until_held(placeholder, 3)
    assert ask(config, "/v1/answer", b"{}")[0] == 503
    placeholder.close()
    assert [answer.result()[0] for answer in held] == [503, 503, 503]


def test_a_client_that_leaves_is_not_held(placeholder: Placeholder, config: ServeConfig) -> None:
    with socket.create_connection(("127.0.0.1", config.port)) as client:
        client.sendall(b"POST /v1/answer HTTP/1.1\r\nContent-Length: 5\r\n\r\nab")
        wait_until_held(placeholder, 1)
    wait_until_held(placeholder, 0)


def test_a_request_is_not_held_longer_than_requests_may_take() -> None:
    config = config_of(request_timeout_s=0.1)
    placeholder = Placeholder.start(config)
    assert placeholder is not None
    assert ask(config, "/v1/answer", b"{}")[:2] == (
        503,
        {"error": {"type": "unavailable", "message": "the service is starting"}},
    )
    placeholder.close()


def test_while_the_service_stops_new_requests_are_refused_and_what_it_has_goes_on(
    placeholder: Placeholder, config: ServeConfig
) -> None:
    service = Service(config.port)
    try:
        placeholder.hand_over()
        connection = http.client.HTTPConnection("127.0.0.1", config.port, timeout=20)
        connection.connect()
        placeholder.refuse()
        for path, body in (("/v1/answer", b"{}" * 100_000), ("/readyz", None), ("/docs", None)):
            status, error, headers = ask(config, path, body)
            assert (status, headers["retry-after"], headers["connection"]) == (503, "5", "close")
            assert "stopping" in str(error)
        assert ask(config, "/healthz")[:2] == (200, {"status": "alive"})
        connection.request("GET", "/v1")
        assert json.loads(connection.getresponse().read()) == {"path": "/v1"}
        connection.close()
    finally:
        service.end()


def test_what_is_held_when_the_service_is_told_to_stop_is_answered_still(
    placeholder: Placeholder, config: ServeConfig, pool: ThreadPoolExecutor
) -> None:
    held = pool.submit(ask, config, "/v1/answer", b"{}")
    wait_until_held(placeholder, 1)
    placeholder.refuse()
    assert ask(config, "/v1/answer", b"{}")[0] == 503
    service = Service(config.port)
    try:
        placeholder.hand_over()
        placeholder.refuse()
        assert held.result()[0] == 200
    finally:
        service.end()


def test_where_nothing_takes_what_is_handed_over_the_answer_is_to_try_again(
    placeholder: Placeholder, config: ServeConfig
) -> None:
    placeholder.hand_over()
    assert ask(config, "/v1/answer", b"{}")[0] == 503
    service = Service(config.port)
    try:
        assert ask(config, "/v1/answer", b"{}")[0] == 200
    finally:
        service.end()
    assert ask(config, "/v1/answer", b"{}")[0] == 503
    assert ask(config, "/healthz")[0] == 200


@pytest.mark.parametrize(
    "sent", [b"nonsense\r\n\r\n", b"\x16\x03\x01\r\n\r\n", b"GET / HTTP/1.1\r\nA: " + b"x" * 100_000]
)
def test_what_is_no_request_is_refused(placeholder: Placeholder, config: ServeConfig, sent: bytes) -> None:
    with socket.create_connection(("127.0.0.1", config.port), timeout=20) as client:
        client.sendall(sent)
        assert client.recv(100).startswith(b"HTTP/1.1 400 Bad Request\r\n")


def test_a_request_that_is_handed_on_ends_its_connection() -> None:
    head = b"POST /v1 HTTP/1.1\r\nHost: a\r\nconnection: Keep-Alive\r\nKeep-Alive: 5\r\nX: y\r\n\r\n"
    assert alone(head) == b"POST /v1 HTTP/1.1\r\nHost: a\r\nX: y\r\nConnection: close\r\n\r\n"
    assert read_head(alone(head))["headers"][-1] == (b"connection", b"close")


def test_a_port_that_somebody_else_holds_is_an_error_that_names_it_and_another(config: ServeConfig) -> None:
    with claim_port(config) as taken:
        taken.listen()
        assert not left_by_ray(config.port)
        with pytest.raises(ServingError, match=rf"^port {config.port} on 127.0.0.1 is in use; .* serve.port=\d+$"):
            require_free_port(config)


def test_two_services_do_not_share_a_port(placeholder: Placeholder, config: ServeConfig) -> None:
    with pytest.raises(ServingError, match="is in use"):
        Placeholder.start(config)


def test_a_port_that_is_let_go_meanwhile_is_taken(config: ServeConfig) -> None:
    taken = claim_port(config)
    taken.listen()
    threading.Timer(0.4, taken.close).start()
    require_free_port(config)


def test_a_placeholder_may_be_closed_before_it_has_begun(config: ServeConfig) -> None:
    for _ in range(20):
        placeholder = Placeholder.start(config)
        assert placeholder is not None
        placeholder.close()
    require_free_port(config)
