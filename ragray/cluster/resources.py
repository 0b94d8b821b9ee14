"""What a stage wants of a cluster against what there is. In: actors and tasks to start. Out: nothing, or an error that compares both."""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from time import monotonic

from ragray.errors import ClusterError

SILENT_S = 3.0
"""Waiting is silent for so long."""

SAY_EVERY_S = 30.0

SMALLEST = 1e-4
"""Ray counts resources in steps of this size."""

logger = logging.getLogger("ragray")


@dataclass(frozen=True, slots=True)
class Want:
    """Actors or tasks of one kind that a stage starts; ``settings`` lower their number or what each reserves.

    ``together`` of them must run at the same time (all by default): of a pool that works with fewer, one.
    """

    what: str
    count: int
    settings: tuple[str, ...]
    cpus: float = 0
    gpus: float = 0
    together: int | None = None

    @property
    def needed(self) -> int:
        """How many must run at the same time."""
        return self.count if self.together is None else min(self.together, self.count)

    def of(self, resource: str) -> float:
        """What each reserves of a resource."""
        return self.gpus if resource == "GPU" else self.cpus


@dataclass(frozen=True, slots=True)
class Node:
    """What a node has, or has free."""

    cpus: float
    gpus: float = 0

    def of(self, resource: str) -> float:
        """What it has of a resource."""
        return self.gpus if resource == "GPU" else self.cpus

    def room_for(self, want: Want) -> int:
        """Return how many of a kind fit on it."""
        each = [(self.of(resource), want.of(resource)) for resource in ("CPU", "GPU") if want.of(resource) > 0]
        return min((math.floor((has + SMALLEST / 2) / wanted) for has, wanted in each), default=want.count)


def shortage(stage: str, wants: Sequence[Want], nodes: Sequence[Node]) -> str:
    """Return in one line what a cluster of these nodes can never give a stage; "" where it can give all."""
    for resource in ("CPU", "GPU"):
        asking = [want for want in wants if want.needed and want.of(resource) > 0]
        wanted = sum(want.needed * want.of(resource) for want in asking)
        has = sum(node.of(resource) for node in nodes)
        if wanted > has + SMALLEST / 2:
            return _compared(stage, asking, resource, wanted, f"the cluster has {has:g}")
    for want in wants:
        room = sum(node.room_for(want) for node in nodes)
        if room < want.needed:
            largest = " and ".join(f"{_largest(nodes, name):g} {name}s" for name in _bundle(want))
            found = f"the cluster's {len(nodes)} nodes have room for {room}, none has more than {largest}"
            return f"{stage}: {_each(want, _reserved(want))} wanted, {found}; {_advice([want], _bundle(want))}"
    return ""


def wanted(wants: Sequence[Want]) -> str:
    """Return what is wanted, in words: 8 workers x 1 CPU + 1 retriever actor x 0.5 CPU."""
    return " + ".join(_each(want, _reserved(want)) for want in wants if want.needed)


def require(stage: str, wants: Sequence[Want], *, wait_s: float) -> None:
    """Return once the cluster has room for what a stage is about to start.

    Waits where other jobs hold it, or where the cluster autoscales; says so every 30 s.

    Raises:
        ClusterError: the cluster can never give that, or did not within ``wait_s`` seconds.
    """
    import ray

    nodes = [_node(node["Resources"]) for node in ray.nodes() if node["Alive"]]
    missing = shortage(stage, wants, nodes)
    if missing and not autoscales():
        raise ClusterError(missing)
    if missing or len(nodes) > 1 or shortage(stage, wants, [_node(ray.available_resources())]):
        _await_room(stage, wants, wait_s)
    for want in wants:
        room = sum(node.room_for(want) for node in nodes)
        if want.needed <= room < want.count and not missing:
            logger.info(
                "%s: %s wanted, the cluster has room for %d at a time",
                stage,
                _each(want, _reserved(want), want.count),
                room,
            )


def has_room(wants: Sequence[Want]) -> bool:
    """Return whether the cluster, as it is, could run this beside all that runs on it now."""
    import ray

    nodes = [_node(node["Resources"]) for node in ray.nodes() if node["Alive"]]
    return not (shortage("", wants, nodes) or shortage("", wants, [_node(ray.available_resources())]))


def autoscales() -> bool:
    """Return whether the cluster may grow: whether an autoscaler with node types of its own runs on it."""
    from ray.experimental.internal_kv import _internal_kv_get

    status = _internal_kv_get(b"__autoscaling_status") or b"{}"
    return names_node_types(status.decode()) or _autoscales_v2()


def _autoscales_v2() -> bool:
    """Return whether the second version of Ray's autoscaler runs on it: with it, nodes that it may add to have a type."""
    import ray
    from ray.autoscaler.v2.sdk import get_cluster_resource_state
    from ray.autoscaler.v2.utils import is_autoscaler_v2

    worker = ray._private.worker.global_worker
    if not getattr(worker, "gcs_client", None) or not is_autoscaler_v2(fetch_from_server=True):
        return False
    return any(node.ray_node_type_name for node in get_cluster_resource_state(worker.gcs_client).node_states)


def names_node_types(status: str) -> bool:
    """Return whether an autoscaler's status (JSON) names node types that someone configured.

    On a fixed cluster Ray runs one too, for `ray status`; it calls every node a type of its own, named after its id.
    """
    report = json.loads(status).get("autoscaler_report") or {}
    types = {*(report.get("active_nodes") or {}), *(report.get("node_type_mapping") or {}).values()}
    return any(not name.startswith("node_") for name in types)


def _await_room(stage: str, wants: Sequence[Want], wait_s: float) -> None:
    """Reserve everything at once, which also tells an autoscaler what is missing, and give it back when there is room."""
    import ray
    from ray.util import placement_group, remove_placement_group

    bundles = [_bundle(want) for want in wants for _ in range(want.needed) if _bundle(want)]
    started, said = monotonic(), -math.inf
    group = placement_group(bundles, strategy="PACK") if bundles else None
    try:
        while group and not group.wait(min(1.0, max(0.1, wait_s))):
            waited = monotonic() - started
            free, total = (_node(found()) for found in (ray.available_resources, ray.cluster_resources))
            state = f"{free.cpus:g} of the cluster's {total.cpus:g} CPUs and {free.gpus:g} of its {total.gpus:g} GPUs are free"
            if waited >= wait_s:
                scarce = {name for want in wants for name in _bundle(want)}
                settings = _settings(wants, scarce)
                raise ClusterError(
                    f"{stage}: {wanted(wants)} wanted, {state} after {waited:.0f} s; end other jobs, "
                    f"{f'lower {settings}, ' if settings else ''}"
                    "or wait longer with cluster.wait_s"
                )
            if waited >= SILENT_S and waited - said >= SAY_EVERY_S:
                said = waited
                logger.warning("%s: waiting for %s; %s; cluster.wait_s=%g", stage, wanted(wants), state, wait_s)
    finally:
        if group:
            remove_placement_group(group)


def _node(resources: dict[str, float]) -> Node:
    return Node(resources.get("CPU", 0), resources.get("GPU", 0))


def _bundle(want: Want) -> dict[str, float]:
    return {name: want.of(name) for name in ("CPU", "GPU") if want.of(name) > 0}


def _largest(nodes: Sequence[Node], resource: str) -> float:
    return max((node.of(resource) for node in nodes), default=0)


def _compared(stage: str, asking: Sequence[Want], resource: str, total: float, found: str) -> str:
    parts = " + ".join(_each(want, _amount(want.of(resource), resource)) for want in asking)
    alone = len(asking) == 1 and asking[0].needed == 1
    sum_of = "" if alone else f" = {_amount(total, resource)}"
    return f"{stage}: {parts}{sum_of} wanted, {found}; {_advice(asking, [resource])}"


def _advice(wants: Sequence[Want], scarce: Collection[str]) -> str:
    settings = _settings(wants, scarce)
    return f"{f'lower {settings}, or ' if settings else ''}join a larger cluster with --address"


def _settings(wants: Sequence[Want], scarce: Collection[str]) -> str:
    """Name the settings that lower what is scarce."""
    others = [f"{name.lower()}s_per" for name in ("CPU", "GPU") if name not in scarce]
    names = dict.fromkeys(
        name for want in wants for name in want.settings if not any(other in name for other in others)
    )
    return " or ".join(names)


def _each(want: Want, amount: str, count: int | None = None) -> str:
    number = want.needed if count is None else count
    return f"{number} {want.what}{'' if number == 1 else 's'} x {amount}"


def _reserved(want: Want) -> str:
    return " and ".join(_amount(amount, name) for name, amount in _bundle(want).items()) or "nothing"


def _amount(number: float, resource: str) -> str:
    return f"{number:g} {resource}{'' if number <= 1 else 's'}"
