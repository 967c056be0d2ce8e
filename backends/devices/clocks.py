"""Device clocks: where a server tells for how long its device has worked for a model.

A clock gives a counter of device seconds. Servers count since their start, per model, and for all
their clients. Each row of `SOURCES` names the documented metric of a server:

    triton   docs.nvidia.com/deeplearning/triton-inference-server: Metrics. A request of a batch
             that the server made counts the whole batch: `oip` tells better.
    oip      the statistics extension (/v2/models/NAME/stats): the executions, batch by batch
    vllm     docs.vllm.ai: Metrics. Seconds of all running requests: overlaps count for each
    kserve   KServe's Python servers: Prometheus Metrics
"""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Protocol

from tollway.backends.devices.exposition import Selector, total
from tollway.backends.devices.pages import parsed
from tollway.backends.documents import load_reply
from tollway.backends.usage_headers import COUNT_MAX

UNITS = {"s": 1.0, "ms": 1e-3, "us": 1e-6, "ns": 1e-9}
"""Seconds in a unit of time."""


class DeviceClock(Protocol):
    """Tells the device seconds of a backend."""

    async def seconds(self) -> float:
        """Return the seconds counted so far; ValueError or OSError if they cannot be read."""


@dataclass(frozen=True, slots=True)
class Source:
    """The metric of a server: its name, its unit, and the label that names the model."""

    metric: str
    unit: str
    label: str


SOURCES = {
    "triton": Source("nv_inference_compute_infer_duration_us", "us", "model"),
    "vllm": Source("vllm:request_inference_time_seconds_sum", "s", "model_name"),
    "kserve": Source("request_predict_seconds_sum", "s", "model_name"),
}

Read = Callable[[bytes], float]
"""Returns the device seconds that a document tells; ValueError if it tells none."""


@dataclass(frozen=True, slots=True)
class PolledClock:
    """Fetches a document and reads the seconds in it."""

    fetch: Callable[[], Awaitable[bytes]]
    read: Read

    async def seconds(self) -> float:
        """Return the seconds counted so far; ValueError or OSError if they cannot be read."""
        return await parsed(self.read, await self.fetch())


def from_metrics(selector: Selector, unit: str) -> Read:
    """Return the reader of a counter in Prometheus' text format."""
    unit_s = UNITS[unit]
    return lambda body: _plausible(total(body.decode("utf-8", "replace"), selector) * unit_s)


def from_statistics(body: bytes) -> float:
    """Return the device seconds in a reply of the statistics extension, over all versions."""
    document = load_reply(body)
    models = document.get("model_stats") if isinstance(document, dict) else None
    if not isinstance(models, list) or not models:
        raise ValueError("has no model_stats")
    return _plausible(sum(map(_executed_ns, models)) * UNITS["ns"])


def _executed_ns(model: Any) -> float:
    """Return the time of a model's executions; of its requests if they are not listed."""
    if not isinstance(model, dict):
        raise ValueError("has model_stats that are no objects")
    batches = model.get("batch_stats")
    if isinstance(batches, list) and batches:
        return sum(_ns(batch) for batch in batches)
    return _ns(model.get("inference_stats"))


def _ns(statistics: Any) -> float:
    duration = statistics.get("compute_infer") if isinstance(statistics, dict) else None
    value = duration.get("ns") if isinstance(duration, dict) else None
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError("has no compute_infer.ns")
    return float(value) if abs(value) <= COUNT_MAX * 1e9 else COUNT_MAX * 1e9


def _plausible(seconds: float) -> float:
    if not 0.0 <= seconds <= COUNT_MAX:
        raise ValueError(f"has {seconds} device seconds, which is no counter's value")
    return seconds
