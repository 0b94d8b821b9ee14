"""How many copies of a deployment run. In: the configuration. Out: options of Ray Serve: a fixed number, or bounds of autoscaling."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ragray.config import Config, ServeConfig

GATEWAY_CPUS = 0.1
RETRIEVER_CPUS = 0.5
"""What each reserves. A Gateway mostly waits."""

GATEWAY_REQUESTS = 1000
"""Requests that a Gateway holds. It only waits for the deployments behind it, and those refuse what is too much."""

RETRIEVER_TARGET = 1.5
"""Calls in flight per Retriever beyond which another one is started: a Gateway sends a second one where 16 lookups wait for the first."""

LOOK_BACK_S = 30.0
"""Seconds over which requests are averaged, where a decision may take that long; Ray's own default."""

LEAST_LOOK_BACK_S = 12.0
"""More than the 10 s after which Gateways report their requests again, as Ray demands."""


@dataclass(frozen=True, slots=True)
class Copies:
    """From how many to how many copies, and the requests in flight that each is meant to have; ``least`` 0: none while idle."""

    least: int
    most: int
    target: float


def retriever_copies(config: Config) -> Copies:
    """Return the copies of the Retriever."""
    least = config.retrieve.num_replicas
    return Copies(least, max(least, config.serve.retriever_max_replicas), RETRIEVER_TARGET)


def generator_copies(config: Config) -> Copies:
    """Return the copies of the Generator: another one is started where the batches of all are full."""
    least = config.serve.generator_replicas
    return Copies(least, max(least, config.serve.generator_max_replicas), config.generate.batch_size)


def copies(wanted: Copies, config: ServeConfig) -> dict[str, Any]:
    """Return the options of a deployment that let so many copies run."""
    if wanted.least == wanted.most:
        return {"num_replicas": wanted.least}
    return {
        "autoscaling_config": {
            "min_replicas": wanted.least,
            "max_replicas": wanted.most,
            "target_ongoing_requests": wanted.target,
            "upscale_delay_s": config.upscale_delay_s,
            "downscale_delay_s": config.downscale_delay_s,
            "look_back_period_s": max(LEAST_LOOK_BACK_S, min(LOOK_BACK_S, 2 * config.upscale_delay_s)),
        }
    }
