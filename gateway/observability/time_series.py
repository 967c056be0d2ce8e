"""Time series: the counters' increases over the last hour, day and month, for the dashboard.

Every few seconds the increases are added to the newest bucket of three rings: ten seconds each for
an hour, five minutes for a day, an hour for thirty days. A bucket stores only increases, so an idle
series costs nothing. Prometheus stores more, and for longer; this is for operators without it.
"""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

import orjson

from tollway.gateway.observability.aggregation import Family

SAMPLE_S = 10.0
LEVELS = ((10.0, 360), (300.0, 288), (3600.0, 720))
"""Seconds per bucket, and the number of buckets kept."""

SERIES_MAX = 2000  # per bucket; labels come from closed sets, so this only guards against leaks
_KEPT = (
    "tollway_attempts",
    "tollway_attempt_errors",
    "tollway_choices_changed",
    "tollway_cost_usd",
    "tollway_requests",
    "tollway_upstream_duration_seconds",
    "tollway_gateway_duration_seconds",
    "tollway_answers",
    "tollway_answer_quality",
    "tollway_offers",
    "tollway_counterfactual_cost_usd",
    "tollway_counterfactual_quality",
)

Labels = tuple[tuple[str, str], ...]
Key = tuple[str, Labels]


@dataclass(slots=True)
class Bucket:
    """The increases between `start_s` and the start of the next bucket."""

    start_s: float
    added: dict[Key, float] = field(default_factory=dict)


class TimeSeries:
    """The counters' increases over time."""

    # The mutable state is the rings, and the counters' values at the last sample.

    def __init__(self) -> None:
        self._rings = [deque[Bucket](maxlen=count) for _, count in LEVELS]
        self._last: dict[Key, float] = {}

    def sample(self, families: Iterable[Family], now_s: float) -> None:
        """Record the current counters."""
        values = dict(_counters(families))
        last = self._last
        added: dict[Key, float] = {}
        for key, value in values.items():
            before = last.get(key, 0.0)
            increase = value - before if value >= before else value
            if increase > 0 and len(added) < SERIES_MAX:
                added[key] = increase
        self._last = values
        for (length_s, _), ring in zip(LEVELS, self._rings, strict=True):
            start_s = now_s // length_s * length_s
            if not ring or ring[-1].start_s != start_s:
                ring.append(Bucket(start_s))
            bucket = ring[-1].added
            for key, increase in added.items():
                bucket[key] = bucket.get(key, 0.0) + increase

    def buckets(self, range_s: float, now_s: float) -> tuple[float, list[Bucket]]:
        """Return (seconds per bucket, the buckets of the last `range_s`), as fine as possible."""
        fit = [at for at, (length_s, count) in enumerate(LEVELS) if length_s * count >= range_s]
        at = fit[0] if fit else len(LEVELS) - 1
        length_s, since_s = LEVELS[at][0], now_s - range_s
        found = [bucket for bucket in self._rings[at] if bucket.start_s + length_s > since_s]
        return length_s, found

    def save(self) -> bytes:
        """Return the rings."""
        document = [
            [[bucket.start_s, [[*key, v] for key, v in bucket.added.items()]] for bucket in ring]
            for ring in self._rings
        ]
        return orjson.dumps(document)

    def load(self, state: bytes) -> None:
        """Load saved rings; ValueError, without any change, if they are damaged."""
        rings: list[deque[Bucket]] = []
        try:
            for (_, count), buckets in zip(LEVELS, orjson.loads(state), strict=True):
                ring = deque[Bucket](maxlen=count)
                for start_s, added in buckets:
                    ring.append(Bucket(float(start_s), dict(_read(added))))
                rings.append(ring)
        except TypeError as exc:
            raise ValueError(f"a damaged history: {exc}") from exc
        self._rings = rings


def _read(added: list[Any]) -> Iterator[tuple[Key, float]]:
    for name, labels, value in added:
        yield (str(name), tuple((str(label), str(text)) for label, text in labels)), float(value)


def _counters(families: Iterable[Family]) -> Iterator[tuple[Key, float]]:
    for family in families:
        if family["name"] in _KEPT:
            for name, labels, value in family["samples"]:
                yield (name, tuple(labels.items())), value


def total(
    buckets: Iterable[Bucket], name: str, keep: Callable[[dict[str, str]], bool], by: str = ""
) -> dict[str, float]:
    """Return the sums of one counter over buckets by a label's value ("": all in one)."""
    sums: dict[str, float] = {}
    for bucket in buckets:
        for (counter, labels), value in bucket.added.items():
            if counter == name and keep(found := dict(labels)):
                group = found.get(by, "")
                sums[group] = sums.get(group, 0.0) + value
    return sums
