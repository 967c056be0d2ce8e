"""Histograms with a low cost on the request path: a search and two additions (0.4 us), no lock.

Only the event loop counts here, so no lock is needed. The cumulative counts are computed at scrape
time.
"""

import time
from bisect import bisect_left
from collections.abc import Iterator

Exemplar = tuple[dict[str, str], float, float]
"""A trace id, the value and its time."""


class Buckets:
    """Counts of values between bounds."""

    __slots__ = ("_bounds", "_counts", "_exemplars", "sum")

    # The mutable state is a count and the newest exemplar per bucket, and the sum of all values.

    def __init__(self, bounds: tuple[float, ...]) -> None:
        """`bounds` are the upper bounds, in rising order; one more bucket is above the last."""
        self._bounds = (*map(float, bounds), float("inf"))
        self._counts = [0] * len(self._bounds)
        self._exemplars: dict[int, Exemplar] = {}
        self.sum = 0.0

    def observe(self, value: float, trace: dict[str, str] | None = None) -> None:
        """Count a value; `trace` is the id of the trace that it comes from."""
        at = bisect_left(self._bounds, value)
        self._counts[at] += 1
        self.sum += value
        if trace is not None:
            self._exemplars[at] = trace, value, time.time()

    def cumulative(self) -> Iterator[tuple[float, int, Exemplar | None]]:
        """Yield each upper bound with the count of all values up to it, and its own exemplar."""
        below = 0
        for at, (bound, count) in enumerate(zip(self._bounds, self._counts, strict=True)):
            below += count
            yield bound, below, self._exemplars.get(at)
