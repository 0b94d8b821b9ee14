"""Metrics of one process. In: what happens in it. Out: `GET /metrics`, in Prometheus' text format."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from fastapi import APIRouter
from fastapi.responses import Response
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from ragray.serve.metrics.catalogue import METRICS, SECONDS, Metric

Gauges = Callable[[], Mapping[Metric, float]]


class PrometheusMetrics:
    """The port `Metrics` in a registry of its own; ``gauges`` are asked whenever somebody looks."""

    def __init__(self, gauges: Gauges = dict) -> None:
        self._gauges = gauges
        self._registry = registry = CollectorRegistry()
        self._counters = {m: Counter(m.name, m.help, m.labels, registry=registry) for m in _of_kind("counter")}
        self._times = {
            m: Histogram(m.name, m.help, m.labels, registry=registry, buckets=SECONDS) for m in _of_kind("histogram")
        }
        self._levels = {m: Gauge(m.name, m.help, registry=registry) for m in _of_kind("gauge")}

    def count(self, metric: Metric, number: float = 1, labels: tuple[str, ...] = ()) -> None:
        """Add to a counter."""
        counter = self._counters[metric]
        (counter.labels(*labels) if labels else counter).inc(number)

    def time(self, metric: Metric, seconds: float, labels: tuple[str, ...] = ()) -> None:
        """Put a time into a histogram."""
        times = self._times[metric]
        (times.labels(*labels) if labels else times).observe(seconds)

    def set(self, metric: Metric, value: float) -> None:
        """Set a gauge."""
        self._levels[metric].set(value)

    def text(self) -> bytes:
        """Return everything in Prometheus' text format."""
        for metric, value in self._gauges().items():
            self.set(metric, value)
        return generate_latest(self._registry)


def _of_kind(kind: str) -> list[Metric]:
    return [metric for metric in METRICS if metric.kind == kind]


def add_metrics(app: APIRouter, metrics: PrometheusMetrics) -> None:
    """Add the route `/metrics`."""

    @app.get("/metrics", summary="Metrics, for Prometheus", tags=["operate"], response_class=Response)
    def show() -> Response:
        """Return what is measured of this process in Prometheus' text format."""
        return Response(metrics.text(), media_type=CONTENT_TYPE_LATEST)
