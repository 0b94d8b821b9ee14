"""The port `Metrics`. In: what happens in a service. Out: it, counted where somebody looks. With one for those whom nobody looks at."""

from __future__ import annotations

from typing import Protocol

from ragray.serve.metrics.catalogue import Metric


class Metrics(Protocol):
    """Where metrics go; the labels are those of the metric, in its order. May be called from any thread."""

    def count(self, metric: Metric, number: float = 1, labels: tuple[str, ...] = ()) -> None:
        """Add to a counter."""

    def time(self, metric: Metric, seconds: float, labels: tuple[str, ...] = ()) -> None:
        """Put a time into a histogram."""

    def set(self, metric: Metric, value: float) -> None:
        """Set a gauge."""


class NoMetrics:
    """Forgets everything."""

    def count(self, metric: Metric, number: float = 1, labels: tuple[str, ...] = ()) -> None:
        """Do nothing."""

    def time(self, metric: Metric, seconds: float, labels: tuple[str, ...] = ()) -> None:
        """Do nothing."""

    def set(self, metric: Metric, value: float) -> None:
        """Do nothing."""
