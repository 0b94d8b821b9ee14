"""Every request is counted and timed, by route; `/metrics` shows it, and the dashboard shows nothing that is not there."""

import json
import re
from pathlib import Path

import pytest
from fastapi.testclient import TestClient
from prometheus_client.parser import text_string_to_metric_families

import ragray
from ragray.serve.metrics.catalogue import METRICS
from tests.serve.river import river_client

DASHBOARD = Path(ragray.__file__).parents[1] / "docs" / "grafana.json"
CHAT = {"model": "run-1", "messages": [{"role": "user", "content": "where does the Elbe flow?"}], "stream": True}

Samples = dict[tuple[str, tuple[str, ...]], float]


def scraped(client: TestClient) -> Samples:
    """Return every sample of `/metrics` by its name and the values of its labels."""
    response = client.get("/metrics")
    assert response.headers["content-type"].startswith("text/plain; version=")
    families = text_string_to_metric_families(response.text)
    return {(s.name, tuple(s.labels.values())): s.value for family in families for s in family.samples}


@pytest.fixture(scope="module")
def samples(river_index: Path) -> Samples:
    """What is shown after some requests of each kind."""
    with river_client(river_index) as client:
        for _ in range(2):
            assert client.post("/v1/search", json={"query": "Elbe"}).status_code == 200
        assert client.post("/v1/answer", json={"question": " "}).status_code == 422
        assert client.post("/v1/chat/completions", json=CHAT).status_code == 200
        assert client.get("/nothing/at/all").status_code == 404
        return scraped(client)


def test_requests_are_counted_by_route_and_status(samples: Samples) -> None:
    counted = {labels: value for (name, labels), value in samples.items() if name == "ragray_requests_total"}
    assert counted == {
        ("/v1/search", "200"): 2,
        ("/v1/answer", "422"): 1,
        ("/v1/chat/completions", "200"): 1,
        ("other", "404"): 1,
    }
    assert samples["ragray_request_seconds_count", ("/v1/search",)] == 2
    assert samples["ragray_open_requests", ()] == 1  # that which asks


def test_what_a_request_found_and_wrote_is_timed_and_counted(samples: Samples) -> None:
    assert samples["ragray_retrieval_seconds_count", ()] == 3
    assert samples["ragray_first_text_seconds_count", ("/v1/chat/completions",)] == 1
    assert ("ragray_first_text_seconds_count", ("/v1/search",)) not in samples
    assert samples["ragray_tokens_total", ()] > 0
    assert samples["ragray_degraded_requests_total", ()] == 0


def test_what_runs_in_the_process_is_shown(samples: Samples) -> None:
    assert samples["ragray_snapshot_age_seconds", ()] >= 0
    assert (samples["ragray_batch_size", ()], samples["ragray_waiting_answers", ()]) == (0, 0)


def test_a_first_text_is_never_later_than_the_end(samples: Samples) -> None:
    route = ("/v1/chat/completions",)
    assert samples["ragray_first_text_seconds_sum", route] <= samples["ragray_request_seconds_sum", route]


def test_the_dashboard_names_every_metric_and_no_other() -> None:
    text = DASHBOARD.read_text(encoding="utf-8")
    named = {re.sub("_(total|bucket|sum|count)$", "", name) for name in re.findall(r"ragray_[a-z_]+", text)}
    assert named == {metric.name for metric in METRICS}
    panels = json.loads(text)["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    assert all(panel["title"] and panel["targets"] for panel in panels)
