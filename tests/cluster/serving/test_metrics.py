"""Metrics of a replica: every one of the catalogue is known to Ray, with its kind and labels."""

import pytest

from ragray.cluster.serving.metrics import RayMetrics
from ragray.serve.metrics.catalogue import METRICS, REQUESTS, SNAPSHOT_AGE_S


def test_every_metric_is_taken() -> None:
    metrics = RayMetrics()
    for metric in METRICS:
        labels = ("x",) * len(metric.labels)
        match metric.kind:
            case "counter":
                metrics.count(metric, 2, labels)
            case "histogram":
                metrics.time(metric, 0.5, labels)
            case "gauge":
                metrics.set(metric, 1.0)
    metrics.show({SNAPSHOT_AGE_S: 3.0})


def test_a_label_too_few_is_an_error() -> None:
    with pytest.raises(ValueError, match="shorter"):
        RayMetrics().count(REQUESTS, 1, ("/v1/search",))
