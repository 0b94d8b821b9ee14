"""Metrics on Ray Serve. In: what happens in a replica. Out: metrics that Ray exports, each with the names of deployment and replica."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ragray.serve.metrics.catalogue import METRICS, SECONDS, Metric


class RayMetrics:
    """The port `Metrics` of a replica; Ray adds ``ray_`` to the names, and ``_total`` to those of counters."""

    def __init__(self) -> None:
        self._all = {metric: _make(metric) for metric in METRICS}

    def count(self, metric: Metric, number: float = 1, labels: tuple[str, ...] = ()) -> None:
        """Add to a counter."""
        self._all[metric].inc(number, _tags(metric, labels))

    def time(self, metric: Metric, seconds: float, labels: tuple[str, ...] = ()) -> None:
        """Put a time into a histogram."""
        self._all[metric].observe(seconds, _tags(metric, labels))

    def set(self, metric: Metric, value: float) -> None:
        """Set a gauge."""
        self._all[metric].set(value)

    def show(self, gauges: Mapping[Metric, float]) -> None:
        """Set several gauges."""
        for metric, value in gauges.items():
            self.set(metric, value)


def _make(metric: Metric) -> Any:
    from ray.serve import metrics

    match metric.kind:
        case "counter":
            return metrics.Counter(metric.name, metric.help, metric.labels)
        case "gauge":
            return metrics.Gauge(metric.name, metric.help, metric.labels)
        case "histogram":
            return metrics.Histogram(metric.name, metric.help, list(SECONDS), metric.labels)


def _tags(metric: Metric, labels: tuple[str, ...]) -> dict[str, str]:
    return dict(zip(metric.labels, labels, strict=True))
