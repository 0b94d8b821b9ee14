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
        self._registry = CollectorRegistry()
        self._all = {metric: _make(metric, self._registry) for metric in METRICS}

    def count(self, metric: Metric, number: float = 1, labels: tuple[str, ...] = ()) -> None:
        """Add to a counter."""
        self._of(metric, labels).inc(number)

    def time(self, metric: Metric, seconds: float, labels: tuple[str, ...] = ()) -> None:
        """Put a time into a histogram."""
        self._of(metric, labels).observe(seconds)

    def set(self, metric: Metric, value: float) -> None:
        """Set a gauge."""
        self._of(metric, ()).set(value)

    def text(self) -> bytes:
        """Return everything in Prometheus' text format."""
        for metric, value in self._gauges().items():
            self.set(metric, value)
        return generate_latest(self._registry)

    def _of(self, metric: Metric, labels: tuple[str, ...]) -> Counter | Gauge | Histogram:
        return self._all[metric].labels(*labels) if metric.labels else self._all[metric]


def _make(metric: Metric, registry: CollectorRegistry) -> Counter | Gauge | Histogram:
    match metric.kind:
        case "counter":
            return Counter(metric.name, metric.help, metric.labels, registry=registry)
        case "gauge":
            return Gauge(metric.name, metric.help, metric.labels, registry=registry)
        case "histogram":
            return Histogram(metric.name, metric.help, metric.labels, registry=registry, buckets=SECONDS)


def add_metrics(app: APIRouter, metrics: PrometheusMetrics) -> None:
    """Add the route `/metrics`."""

    @app.get("/metrics", summary="Metrics, for Prometheus", tags=["operate"], response_class=Response)
    def show() -> Response:
        """Return what is measured of this process in Prometheus' text format."""
        return Response(metrics.text(), media_type=CONTENT_TYPE_LATEST)
