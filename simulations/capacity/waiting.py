"""How long calls wait for one of several places, by queueing theory (M/G/c).

Theory of operation. Calls come at a rate, each takes a time S, and c places serve them in the order
they came. With S exponential the mean wait is Erlang's (C is the chance of waiting at all),

    W = C / (c / E[S] - rate).

For another S that is changed by its squared coefficient of variation: up to 1 by Kimura's formula
(Management Science 32, 1986), between W and Cosmetatos' wait for constant service (1975, in Whitt's
form, Production and Operations Management 2, 1993); above by (1 + scv) / 2 (Lee and Longton 1959).
Arrivals in bursts wait longer by (arrivals' scv + scv) / (1 + scv) (Allen and Cunneen).

A wait, where there is one, is taken to be exponential. So the share of calls that take longer than
t is the mean over S of C exp(-C (t - S) / W), and 1 where S alone is longer. All of this is
approximate; tests compare it with the queues that scenarios run (servers.py).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
BUSY_MAX = 0.98  # of the places' time: beyond, a queue takes hours to reach what theory says
STEPS = 30  # halvings of a rate: a billionth of it is left


@dataclass(frozen=True, slots=True)
class Service:
    """How long a call takes once it is served: equally likely times in seconds, ascending."""

    times_s: Floats
    mean_s: float
    scv: float

    @classmethod
    def of(cls, times_s: Sequence[float] | Floats) -> "Service":
        """Return the service of some times; ValueError where one of them is not above 0."""
        times = np.sort(np.asarray(times_s, float))
        if not (len(times) and times[0] > 0.0 and math.isfinite(times[-1])):
            raise ValueError("times of service must be above 0")
        mean = float(times.mean())
        return cls(times, mean, float(times.var()) / mean**2)

    def quantile(self, share: float) -> float:
        """Return the time that this share of calls stays within."""
        return float(np.quantile(self.times_s, share))


def waiting_chance(load: float, places: int) -> float:
    """Return Erlang's C: the chance that a call waits, at `load` = rate x E[S] below `places`."""
    if load <= 0.0:
        return 0.0
    counts = np.arange(1, places + 1)
    terms = np.concatenate([[0.0], np.cumsum(math.log(load) - np.log(counts))])
    blocked = math.exp(float(terms[-1] - np.logaddexp.reduce(terms)))
    return blocked / (1.0 - load / places * (1.0 - blocked))


def mean_wait_s(rate: float, service: Service, places: int, arrivals_scv: float = 1.0) -> float:
    """Return the mean wait in seconds; inf where calls come faster than they are served."""
    load = rate * service.mean_s
    if load >= places:
        return math.inf
    memoryless = waiting_chance(load, places) * service.mean_s / (places - load)
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
    """Return the share of calls that take longer than `within_s`, wait and service together."""
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
    """Return the highest rate at which this share of calls stays `within_s`; 0 where none does."""
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
