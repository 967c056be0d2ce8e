"""The exposition: all metrics, collected at scrape time and rendered for Prometheus.

Fifty backends on ten routes have 5,000 series, which take 50 ms to collect and 150 ms to render. So
they are collected a family at a time, with other work of the event loop in between, and rendered in
a thread. They are not collected in a thread: what they are read from changes meanwhile.
"""

import asyncio
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from prometheus_client import generate_latest
from prometheus_client.openmetrics import exposition as openmetrics

from tollway.gateway.observability.aggregation import Family
from tollway.gateway.observability.families import Metric

TEXT = "text/plain; version=0.0.4; charset=utf-8"


class Source(Protocol):
    """A collector of metrics that are read at scrape time."""

    def __call__(self) -> Iterable[Metric]:
        """Yield metric families."""


class Exposition:
    """Collects metrics from their sources, and renders them."""

    # The mutable state is the sources and the labels.

    def __init__(self, *, linked: bool = False, labels: Mapping[str, str] | None = None) -> None:
        """`linked`: figures have exemplars, which link to traces. `labels`: those of every sample,
        added when it is rendered.
        """
        self._linked = linked
        self.labels: Mapping[str, str] = labels or {}
        self._sources: list[Source] = []

    def add_source(self, source: Source) -> None:
        """Register a collector to call at every scrape."""
        self._sources.append(source)

    async def metrics(self) -> list[Metric]:
        """Return all metrics, collected a family at a time."""
        collected = []
        for metric in self._collect():
            collected.append(metric)
            await asyncio.sleep(0)
        return collected

    async def families(self) -> list[Family]:
        """Return all metrics as plain documents, which can be added to other workers'."""
        families = []
        for metric in await self.metrics():
            families.append(_family(metric))
            await asyncio.sleep(0)
        return families

    def render(self) -> bytes:
        """Return the exposition in Prometheus' text format, collected at once."""
        return generate_latest(_Collector(lambda: map(self._labelled, self._collect())))

    async def scrape(
        self, families: Sequence[Family] | None = None, accept: str = ""
    ) -> tuple[bytes, str]:
        """Return the body of a scrape and its content type; of `families` if given.

        It is OpenMetrics, the only format with exemplars, if the client accepts it and exemplars
        exist. Sums over several workers have no exemplars.
        """
        if families is not None:
            return await asyncio.to_thread(
                generate_latest, _Collector(lambda: map(self._labelled, map(_metric, families)))
            ), TEXT
        collected = await self.metrics()
        collector = _Collector(lambda: map(self._labelled, collected))
        if self._linked and "application/openmetrics-text" in accept:
            body: bytes = await asyncio.to_thread(openmetrics.generate_latest, collector)
            return body, openmetrics.CONTENT_TYPE_LATEST
        return await asyncio.to_thread(generate_latest, collector), TEXT

    def _labelled(self, metric: Metric) -> Metric:
        if self.labels:
            metric.samples = [
                sample._replace(labels={**sample.labels, **self.labels})
                for sample in metric.samples
            ]
        return metric

    def _collect(self) -> Iterator[Metric]:
        for source in self._sources:
            yield from source()


@dataclass(frozen=True, slots=True)
class _Collector:
    collect: Callable[[], Iterator[Metric]]


def _family(metric: Metric) -> Family:
    return {
        "name": metric.name,
        "type": metric.type,
        "text": metric.documentation,
        "samples": [
            [name, labels, value]
            for name, labels, value, *_ in metric.samples
            if not name.endswith("_created")
        ],
    }


def _metric(family: Family) -> Metric:
    metric = Metric(family["name"], family["text"], family["type"])
    for name, labels, value in family["samples"]:
        metric.add_sample(name, labels, value)
    return metric
