"""Builders of Prometheus metric families, from rows of label values and numbers."""

import math
from collections.abc import Iterable, Mapping, Sequence

from prometheus_client.core import (
    CounterMetricFamily,
    Exemplar,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
    Sample,
)

from tollway.gateway.observability.histogram import Buckets

__all__ = ["Metric", "counter", "gauge", "histogram"]

Rows = Iterable[tuple[Sequence[str], float]]


def counter(name: str, text: str, labels: Sequence[str], rows: Rows) -> Metric:
    """Return a counter; its samples are named `name` with `_total` added."""
    return _filled(CounterMetricFamily(name, text, labels=labels), rows)


def gauge(name: str, text: str, labels: Sequence[str], rows: Rows) -> Metric:
    """Return a gauge."""
    return _filled(GaugeMetricFamily(name, text, labels=labels), rows)


def histogram(
    name: str, text: str, labels: Sequence[str], rows: Mapping[tuple[str, ...], Buckets]
) -> Metric:
    """Return histograms, by their label values."""
    family = HistogramMetricFamily(name, text, labels=labels)
    bucket, samples = f"{name}_bucket", family.samples  # `add_metric` takes three times as long
    for values, buckets in rows.items():
        own = dict(zip(labels, values, strict=True))
        count = 0.0
        for bound, count, seen in buckets.cumulative():
            le = "+Inf" if bound == math.inf else repr(bound)
            exemplar = None if seen is None else Exemplar(*seen)
            samples.append(Sample(bucket, {**own, "le": le}, count, None, exemplar))
        samples.append(Sample(f"{name}_count", own, count))
        samples.append(Sample(f"{name}_sum", own, buckets.sum))
    return family


def _filled(family: CounterMetricFamily | GaugeMetricFamily, rows: Rows) -> Metric:
    for values, number in rows:
        family.add_metric(values, number)
    return family
