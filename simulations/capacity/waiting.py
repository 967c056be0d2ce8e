"""How long calls wait for one of several servers, by queueing theory (M/G/c).

Theory of operation. Calls arrive at a rate, each takes a service time S, and c servers take them in
order of arrival. If S is exponential, the mean wait is Erlang's (C is the probability of waiting),

    W = C / (c / E[S] - rate).

For any other S, W is corrected by the squared coefficient of variation (scv) of S. Up to 1 the
correction is Kimura's formula (Management Science 32, 1986), between W and Cosmetatos' wait for
constant service (1975, in Whitt's form, Production and Operations Management 2, 1993); above 1 it
is (1 + scv) / 2 (Lee and Longton 1959). Bursty arrivals lengthen the wait by
(arrivals' scv + scv) / (1 + scv) (Allen and Cunneen).

A wait above 0 is taken to be exponential. So the share of calls that take longer than t is the mean
over S of C exp(-C (t - S) / W), and 1 if S alone is longer. All of this is approximate; tests
compare it with the queues that scenarios simulate (servers.py).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tollway.gateway.scaling.queueing import memoryless_wait_s, waiting_chance

Floats = NDArray[np.float64]
BUSY_MAX = 0.98  # utilisation: above it, a queue takes hours to reach its steady state
STEPS = 30  # bisections of a rate: down to a billionth of it


@dataclass(frozen=True, slots=True)
class Service:
    """A call's service time: equally likely times in seconds, ascending."""

    times_s: Floats
    mean_s: float
    scv: float

    @classmethod
    def of(cls, times_s: Sequence[float] | Floats) -> "Service":
        """Return the service for some times; ValueError unless all are above 0."""
        times = np.sort(np.asarray(times_s, float))
        if not (len(times) and times[0] > 0.0 and math.isfinite(times[-1])):
            raise ValueError("service times must be above 0")
        mean = float(times.mean())
        return cls(times, mean, float(times.var()) / mean**2)

    def quantile(self, share: float) -> float:
        """Return the time that this share of calls does not exceed."""
        return float(np.quantile(self.times_s, share))


def mean_wait_s(rate: float, service: Service, places: int, arrivals_scv: float = 1.0) -> float:
    """Return the mean wait in seconds; inf if calls arrive faster than they are served."""
    load = rate * service.mean_s
    if load >= places:
        return math.inf
    memoryless = memoryless_wait_s(load, service.mean_s, places)
    bursts = (arrivals_scv + service.scv) / (1.0 + service.scv)
    return bursts * _for_scv(memoryless, service.scv, load / places, places)


def _for_scv(memoryless_s: float, scv: float, busy: float, places: int) -> float:
    if scv >= 1.0 or busy <= 0.0:
        return memoryless_s * (1.0 + scv) / 2.0
    steady = (1.0 - busy) * (places - 1) * (math.sqrt(4.0 + 5.0 * places) - 2.0)
    constant = 0.5 * (1.0 + min(0.24, steady / (16.0 * places * busy)))
    return memoryless_s * (1.0 + scv) / (2.0 * scv + (1.0 - scv) / constant)


def late(
    rate: float, service: Service, places: int, within_s: float, arrivals_scv: float = 1.0
) -> float:
    """Return the share of calls whose wait plus service exceeds `within_s`."""
    wait_s = mean_wait_s(rate, service, places, arrivals_scv)
    if math.isinf(wait_s):
        return 1.0
    left_s = within_s - service.times_s
    if wait_s <= 0.0:
        return float((left_s < 0.0).mean())
    chance = waiting_chance(rate * service.mean_s, places)
    tail = chance * np.exp(-chance / wait_s * np.maximum(left_s, 0.0))
    return float(np.where(left_s < 0.0, 1.0, tail).mean())


def carried(
    service: Service, places: int, within_s: float, share: float, arrivals_scv: float = 1.0
) -> float:
    """Return the highest rate at which this share of calls takes `within_s` at most; else 0."""
    if late(0.0, service, places, within_s) > 1.0 - share:
        return 0.0
    low, high = 0.0, BUSY_MAX * places / service.mean_s
    if late(high, service, places, within_s, arrivals_scv) <= 1.0 - share:
        return high
    for _ in range(STEPS):
        middle = (low + high) / 2
        if late(middle, service, places, within_s, arrivals_scv) <= 1.0 - share:
            low = middle
        else:
            high = middle
    return low
