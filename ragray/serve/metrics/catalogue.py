"""What is measured. In: nothing. Out: every metric with its kind, its labels and what it means.

Prometheus adds ``_total`` to the names of counters; Ray, which exports those of a service on a cluster, puts ``ray_`` before all.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)


@dataclass(frozen=True, slots=True)
class Metric:
    """One metric; histograms are of seconds."""

    name: str
    kind: Literal["counter", "gauge", "histogram"]
    help: str
    labels: tuple[str, ...] = ()


REQUESTS = Metric(
    "ragray_requests", "counter", "requests by route and status; 499: the client left", ("route", "status")
)
REQUEST_S = Metric("ragray_request_seconds", "histogram", "from a request to the end of its response", ("route",))
FIRST_S = Metric("ragray_first_text_seconds", "histogram", "from a request to the first text of a stream", ("route",))
RETRIEVAL_S = Metric("ragray_retrieval_seconds", "histogram", "time in which the passages of a request are found")
TOKENS = Metric("ragray_tokens", "counter", "tokens that the models read and wrote, as far as they report them")
DEGRADED = Metric(
    "ragray_degraded_requests", "counter", "requests for which work was spared, because many were waiting"
)
OPEN = Metric("ragray_open_requests", "gauge", "requests that are being answered")
WAITING = Metric("ragray_waiting_answers", "gauge", "answers that wait for a place in the batch")
BATCH = Metric("ragray_batch_size", "gauge", "answers that are being written side by side")
CACHE_HITS = Metric(
    "ragray_question_cache_hits", "gauge", "questions whose vector was remembered, since the index was opened"
)
CACHE_MISSES = Metric(
    "ragray_question_cache_misses", "gauge", "questions that were encoded, since the index was opened"
)
SNAPSHOT_AGE_S = Metric("ragray_snapshot_age_seconds", "gauge", "since the served snapshot was made")
SNAPSHOT_REFUSED = Metric(
    "ragray_snapshot_refused", "gauge", "1 while a newer index is refused and the older one served on"
)

METRICS = (
    *(REQUESTS, REQUEST_S, FIRST_S, RETRIEVAL_S, TOKENS, DEGRADED, OPEN),
    *(WAITING, BATCH, CACHE_HITS, CACHE_MISSES, SNAPSHOT_AGE_S, SNAPSHOT_REFUSED),
)
