"""What a stage wants of a cluster, compared with what there is: planned without Ray, asked for on it."""

import logging
import re
from dataclasses import replace

import pytest

from ragray.cluster.resources import Node, Want, names_node_types, require, shortage
from ragray.errors import ClusterError

WORKERS = Want("worker", 8, ("train.num_workers",), cpus=1)
RETRIEVERS = Want("retriever actor", 1, ("retrieve.num_replicas",), cpus=0.5)
LEARNERS = Want("worker", 1, ("train.cpus_per_worker", "train.gpus_per_worker"), cpus=1, gpus=1)
POOL = Want("actor", 20, ("embed.cpus_per_worker",), cpus=2, together=1)


@pytest.mark.parametrize(
    ("wants", "nodes", "message"),
    [
        ([WORKERS], [Node(8)], ""),
        ([WORKERS], [Node(4), Node(4)], ""),
        ([WORKERS, RETRIEVERS], [Node(8.5)], ""),
        ([Want("worker", 10, ("s",), cpus=0.1)], [Node(1)], ""),
        ([POOL], [Node(2)], ""),
        ([Want("actor", 4, ("s",))], [Node(0)], ""),
        ([LEARNERS], [Node(8), Node(1, gpus=1)], ""),
        ([Want("worker", 2, ("s",), cpus=1, gpus=0.5)], [Node(8, gpus=1)], ""),
        ([], [], ""),
        (
            [WORKERS, RETRIEVERS],
            [Node(8)],
            "train: 8 workers x 1 CPU + 1 retriever actor x 0.5 CPU = 8.5 CPUs wanted, the cluster has 8; "
            "lower train.num_workers or retrieve.num_replicas, or join a larger cluster with --address",
        ),
        ([WORKERS], [Node(4), Node(3)], "train: 8 workers x 1 CPU = 8 CPUs wanted, the cluster has 7; lower"),
        ([WORKERS], [], "train: 8 workers x 1 CPU = 8 CPUs wanted, the cluster has 0; lower"),
        (
            [LEARNERS],
            [Node(8)],
            "train: 1 worker x 1 GPU wanted, the cluster has 0; lower train.gpus_per_worker, or join",
        ),
        (
            [POOL],
            [Node(1), Node(1)],
            "train: 1 actor x 2 CPUs wanted, the cluster's 2 nodes have room for 0, none has more than 1 CPUs; lower",
        ),
        (
            [LEARNERS],
            [Node(0, gpus=1), Node(8)],
            "train: 1 worker x 1 CPU and 1 GPU wanted, the cluster's 2 nodes have room for 0, none has more than 8 CPUs and 1 GPUs",
        ),
        (
            [Want("worker", 3, ("s",), cpus=3)],
            [Node(5), Node(5)],
            "train: 3 workers x 3 CPUs wanted, the cluster's 2 nodes have room for 2, none has more than 5 CPUs; lower s",
        ),
    ],
)
def test_what_can_never_be_placed_is_said_and_nothing_else(wants: list[Want], nodes: list[Node], message: str) -> None:
    found = shortage("train", wants, nodes)
    assert found.startswith(message) and bool(found) is bool(message)


@pytest.mark.parametrize(
    ("status", "grows"),
    [
        ("{}", False),
        ('{"load_metrics_report": {"usage": {}}}', False),
        ('{"autoscaler_report": {"active_nodes": {"node_ab12": 1}, "node_type_mapping": {"ab12": "node_ab12"}}}', False),
        ('{"autoscaler_report": {"active_nodes": {}, "node_type_mapping": {"ffff": "ray.head.default"}}}', True),
        ('{"autoscaler_report": {"active_nodes": {"cpu-group": 2}, "node_type_mapping": null}}', True),
    ],
)  # fmt: skip
def test_a_cluster_with_node_types_of_its_own_may_grow(status: str, grows: bool) -> None:
    assert names_node_types(status) is grows


def test_more_than_the_cluster_has_is_refused_at_once_however_long_one_would_wait(ray_session: None) -> None:
    with pytest.raises(
        ClusterError, match=r"^train: 8 workers x 99 CPUs = 792 CPUs wanted, the cluster has \d+; lower"
    ):
        require("train", [replace(WORKERS, cpus=99)], wait_s=1e9)


def test_a_busy_cluster_is_waited_for_and_the_wait_is_said(ray_session: None, caplog: pytest.LogCaptureFixture) -> None:
    import ray

    total = ray.cluster_resources()["CPU"]
    holder = ray.remote(num_cpus=total)(type("Holder", (), {"ready": lambda self: True})).remote()
    ray.get(holder.ready.remote(), timeout=60)
    with caplog.at_level(logging.WARNING), pytest.raises(ClusterError) as caught:
        require("train", [RETRIEVERS], wait_s=4)
    text = r"1 retriever actor x 0.5 CPU.* 0 of the cluster's \d+ CPUs"
    assert re.search(rf"^train: waiting for {text}", caplog.text, re.MULTILINE) or re.search(text, caplog.text)
    assert re.search(rf"^train: {text} .* are free after \d+ s; end other jobs, .*cluster.wait_s", str(caught.value))
    ray.kill(holder)
    require("train", [RETRIEVERS], wait_s=60)
