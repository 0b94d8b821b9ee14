"""The whole thread, sources to HTTP answer, on a head node on loopback.

The entry points in jobs/ run under `ray job submit`, serve_configs/laptop.yaml under `serve deploy`.
"""

import contextlib
import json
import os
import shlex
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from ray.job_submission import JobStatus, JobSubmissionClient

from ragray.cluster.session import ENVIRONMENT, LOCAL_ENVIRONMENT, START_ATTEMPTS
from ragray.index.store.snapshot import current_name, read_snapshot
from ragray.run import Run
from tests.helpers import some_passages
from tests.processes import descendants

RAY_ENVIRONMENT = {**ENVIRONMENT, **LOCAL_ENVIRONMENT}
ROOT = Path(__file__).resolve().parents[2]
BIN = Path(sys.executable).parent
START_S = 90
JOB_S = 240


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def get(url: str, body: dict[str, object] | None = None) -> str:
    data = json.dumps(body).encode() if body else None
    request = urllib.request.Request(url, data=data, headers={"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=30) as response:
        return str(response.read().decode())


def wait_for(url: str, seconds: float) -> str:
    deadline = time.monotonic() + seconds
    while True:
        try:
            return get(url)
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.3)


def start_head(port: int, log: Path) -> subprocess.Popen[bytes]:
    """Start a head node with its dashboard at the port; again, where Ray gives up because the machine is busy."""
    environment = {**os.environ, **RAY_ENVIRONMENT}
    environment.pop("RAY_ADDRESS", None)
    command = [
        str(BIN / "ray"), "start", "--head", "--block", "--port=0", "--dashboard-host=127.0.0.1",
        f"--dashboard-port={port}", "--num-cpus=8", "--object-store-memory=150000000",
        f"--ray-client-server-port={free_port()}", "--disable-usage-stats", "--min-worker-port=0", "--max-worker-port=0",
        "--include-log-monitor=false",  # nobody is shown the logs that it follows
        "--dashboard-agent-listen-port=0",  # it takes jobs, and would want the port of any other cluster on this machine
    ]  # fmt: skip
    for _ in range(START_ATTEMPTS):
        with log.open("w") as output:
            head = subprocess.Popen(command, env=environment, stdout=output, stderr=output, start_new_session=True)
        while head.poll() is None:
            if "Ray runtime started" in log.read_text(errors="replace"):
                return head
            time.sleep(0.3)
    raise RuntimeError(log.read_text(errors="replace")[-3000:])


@pytest.fixture(scope="module")
def dashboard(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A head node of its own, with dashboard, ended by its pid."""
    port = free_port()
    head = start_head(port, tmp_path_factory.mktemp("head") / "log")
    try:
        wait_for(f"http://127.0.0.1:{port}/api/version", START_S)
        yield f"http://127.0.0.1:{port}"
    finally:
        started = descendants(head.pid)
        head.send_signal(signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            head.wait(timeout=3)
        for pid in [head.pid, *started]:  # Serve's own processes outlive the head node by half a minute
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        head.wait(timeout=30)


IN_TURN = """
import runpy, shlex, sys
for sys.argv in map(shlex.split, sys.argv[1:]):
    runpy.run_path(sys.argv[0], run_name="__main__")
"""


def run_in_one_job(client: JobSubmissionClient, *commands: list[str | Path]) -> None:
    """Submit a job from Python that runs entry points one after the other, in one process to import Ray once; wait for its end."""
    lines = [shlex.join([f"jobs/{script}", *map(str, arguments)]) for script, *arguments in commands]
    job = client.submit_job(
        entrypoint=shlex.join([sys.executable, "-c", IN_TURN, *lines]), runtime_env={"working_dir": str(ROOT)}
    )
    deadline = time.monotonic() + JOB_S
    while not client.get_job_status(job).is_terminal() and time.monotonic() < deadline:
        time.sleep(0.5)
    assert client.get_job_status(job) == JobStatus.SUCCEEDED, client.get_job_logs(job)[-3000:]


def submit(dashboard: str, script: str, *arguments: str) -> str:
    """Submit a job as a user does, on the command line, and return what it printed."""
    command = [
        str(BIN / "ray"), "job", "submit", "--address", dashboard, "--working-dir", str(ROOT), "--",
        sys.executable, f"jobs/{script}", *arguments,
    ]  # fmt: skip
    for _ in range(10):  # the node's job agent starts after the dashboard
        done = subprocess.run(
            command,
            env={**os.environ, **RAY_ENVIRONMENT},
            capture_output=True,
            text=True,
            timeout=JOB_S,
        )
        if "No available agent" not in done.stderr:
            break
        time.sleep(3)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return done.stdout


def write_documents(path: Path, texts: dict[str, str]) -> Path:
    lines = [json.dumps({"id": name, "text": text}) + "\n" for name, text in texts.items()]
    path.write_text("".join(lines), encoding="utf-8")
    return path


def test_jobs_go_from_sources_to_a_service(dashboard: str, tiny_decoder: Path, tmp_path: Path) -> None:
    data, examples = tmp_path / "data", tmp_path / "examples.jsonl"
    passages = some_passages(24)
    texts = {passage.id: passage.text for passage in passages}
    source = write_documents(tmp_path / "docs.jsonl", texts)
    newer = write_documents(tmp_path / "newer.jsonl", {**texts, "new": "the newest passage of them all"})
    lines = [{"id": p.id, "question": p.text, "answers": ["red"], "gold_ids": [p.id]} for p in passages[:8]]
    examples.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    embed = ["embed.model=hash:64", "embed.num_workers=1", "ingest.num_workers=1"]
    asked = ["--data", data, "--examples", examples, f"generate.model={tiny_decoder}", "generate.max_new_tokens=4"]

    submit(dashboard, "embed_corpus.py", "--source", str(source), "--out", str(data), *embed)
    run_in_one_job(
        JobSubmissionClient(dashboard),
        ["build_index.py", "--data", data],
        ["sync_index.py", "--source", newer, "--data", data, *embed],
        ["train_rag.py", *asked, "train.max_steps=2", "train.cpus_per_worker=0.5", "train.num_workers=1"],
        ["evaluate.py", *asked, "evaluate.num_workers=1"],
    )
    assert read_snapshot(data / "index").num_live == len(passages) + 1
    assert Run.open(data / "run").facts.num_steps == 2
    report = json.loads((data / "report" / "report.json").read_text(encoding="utf-8"))
    assert report["retrieval"]["recall"]["1"] == 100.0

    serve_and_ask(dashboard, data, tmp_path)


def serve_and_ask(dashboard: str, data: Path, tmp_path: Path) -> None:
    config = yaml.safe_load((ROOT / "serve_configs" / "laptop.yaml").read_text(encoding="utf-8"))
    port = free_port()
    config["http_options"]["port"] = port
    [application] = config["applications"]
    application["args"] = {"index": str(data / "index"), "run": str(data / "run")}
    for deployment in application.get("deployments", []):
        deployment.pop("user_config", None)
    path = tmp_path / "serve.yaml"
    path.write_text(yaml.safe_dump(config), encoding="utf-8")
    environment = {**os.environ, **RAY_ENVIRONMENT}
    command = [str(BIN / "serve"), "deploy", str(path), "--address", dashboard]
    subprocess.run(command, env=environment, check=True, capture_output=True, timeout=120)
    wait_for(f"http://127.0.0.1:{port}/readyz", JOB_S)
    [first, *_] = some_passages(1)
    found = json.loads(get(f"http://127.0.0.1:{port}/v1/search", {"query": first.text, "k": 1}))
    assert found["hits"][0]["id"] == first.id
    answer = json.loads(get(f"http://127.0.0.1:{port}/v1/answer", {"question": first.text}))
    assert answer["snapshot"] == current_name(data / "index")
    assert first.id in [citation["id"] for citation in answer["citations"]]
    assert sum(citation["weight"] for citation in answer["citations"]) == pytest.approx(1, abs=1e-3)
    shutdown = urllib.request.Request(f"{dashboard}/api/serve/applications/", method="DELETE")
    urllib.request.urlopen(shutdown, timeout=60).close()
