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

LEVELS = ((10.0, 360), (300.0, 288), (3600.0, 720))
"""Seconds per bucket, and the number of buckets kept."""

SERIES_MAX = 2000  # per bucket; labels come from closed sets, so this only guards against leaks
STALE_S = 60.0  # what seems older follows from a clock that was set back
_KEPT = (
    "tollway_attempts",
    "tollway_attempt_errors",
    "tollway_choices_changed",
    "tollway_cache_saved_usd",
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

    # The mutable state is the rings, the counters' values at the last sample, and the keys of the
    # series. All buckets share these: a copy in each took five times the memory of the numbers.

    def __init__(self) -> None:
        self._rings = [deque[Bucket](maxlen=count) for _, count in LEVELS]
        self._last: dict[Key, float] = {}
        self._last_s = 0.0
        self._keys: dict[Key, Key] = {}

    def sample(self, families: Iterable[Family], now_s: float) -> None:
        """Record the counters that were collected from `now_s` on.

        A collection that began before the last one that was recorded is dropped: it would look as
        if the counters had begun again.
        """
        if 0.0 < self._last_s - now_s < STALE_S:
            return
        self._last_s = now_s
        known = self._keys
        values = {known.get(key, key): value for key, value in _counters(families)}
        self._keys = {key: key for key in values}
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
        buckets = [bucket for bucket in self._rings[at] if bucket.start_s + length_s > since_s]
        return length_s, buckets

    def save(self) -> bytes:
        """Return the rings; each key is written once, because it takes ten times its number."""
        numbers: dict[Key, int] = {}
        rings = [
            [
                [
                    bucket.start_s,
                    [
                        [numbers.setdefault(key, len(numbers)), value]
                        for key, value in bucket.added.items()
                    ],
                ]
                for bucket in ring
            ]
            for ring in self._rings
        ]
        return orjson.dumps({"keys": list(numbers), "rings": rings})

    def load(self, state: bytes) -> None:
        """Load saved rings; ValueError, without any change, if they are damaged."""
        rings: list[deque[Bucket]] = []
        try:
            document = orjson.loads(state)
            keys = [_key(name, labels) for name, labels in document["keys"]]
            for (_, count), buckets in zip(LEVELS, document["rings"], strict=True):
                ring = deque[Bucket](maxlen=count)
                for start_s, added in buckets:
                    increases = {keys[number]: float(value) for number, value in added}
                    ring.append(Bucket(float(start_s), increases))
                rings.append(ring)
        except (TypeError, KeyError, IndexError) as exc:
            raise ValueError(f"the saved history is damaged: {exc}") from exc
        self._rings, self._keys = rings, {key: key for key in keys}


def _key(name: Any, labels: list[Any]) -> Key:
    return str(name), tuple([(str(label), str(text)) for label, text in labels])


def _counters(families: Iterable[Family]) -> Iterator[tuple[Key, float]]:
    for family in families:
        if family["name"] in _KEPT:
            for name, labels, value in family["samples"]:
                if value:  # most series of many backends, routes and tenants have none
                    yield (name, tuple(labels.items())), value


def total(
    buckets: Iterable[Bucket], name: str, keep: Callable[[dict[str, str]], bool], by: str = ""
) -> dict[str, float]:
    """Return the sums of one counter over buckets by a label's value ("": all in one)."""
    sums: dict[str, float] = {}
    for bucket in buckets:
        for (counter, labels), value in bucket.added.items():
            if counter == name and keep(by_name := dict(labels)):
                group = by_name.get(by, "")
                sums[group] = sums.get(group, 0.0) + value
    return sums
