"""How many replicas a backend needs, and what each way to rent them costs.

Theory of operation. The number of replicas is the maximum of three rules:

- waiting: the target's share of calls is answered in time at the worst-case rate (waiting.py);
- headroom: in every hour, replicas for the expected rate plus `headroom` of it (0.5: 50 %);
- peak: at the highest hour, replicas for the median hour's rate plus `peak` of it (2.0: 200 %).

Spares are then added so that enough replicas are up with the required availability, given that each
replica is up for its share of the time, independently of the others.

A plan says what is rented: the highest number all the time; what each hour needs; or a reserved
base, where it is used enough to be worth it, and the rest by the hour, on demand or spot. Bills are
means and bad cases over the forecast's futures, for a month of 730 hours.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tollway.simulations.capacity.forecast import Forecast
from tollway.simulations.capacity.waiting import Floats, Service, carried, late

MONTH_H = 730
REPLICAS_MAX = 10_000  # of one backend: larger fleets are not planned on a command line
STEP = 0.04  # relative step between the replica counts evaluated above 25; the next one up is taken
FUTURES = 200  # futures that are billed: enough for a 95th percentile
SPARES_MAX = 1000

Counts = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Replica:
    """A rentable replica: concurrent calls, the share of time it is up, dollars an hour.

    `spot_up` is the share of time that a spot replica is available and started. A price of None
    means that this kind is not on offer.
    """

    places: int = 1
    up: float = 0.999
    usd: float | None = None
    spot_usd: float | None = None
    reserved_usd: float | None = None
    spot_up: float = 0.99


@dataclass(frozen=True, slots=True)
class Target:
    """The service target: `share` of the calls within `within_s`, with `availability`.

    `worst` is the share of futures whose highest hour must meet the target.
    """

    within_s: float
    share: float = 0.95
    availability: float = 0.999
    headroom: float = 0.5
    peak: float = 2.0
    worst: float = 0.95


@dataclass(frozen=True, slots=True)
class Need:
    """The replicas at the highest hour, by each rule, and with spares; `bursts` as in Traffic.

    `late` is the share of calls that take too long at the worst rate, without the spares.
    """

    waiting: int
    headroom: int
    peak: int
    top: int
    late: float
    worst_rate: float

    @property
    def rule(self) -> str:
        """The rule that binds."""
        rules = {"waiting": self.waiting, "headroom": self.headroom, "peak": self.peak}
        return max(rules, key=lambda name: rules[name])


@dataclass(frozen=True, slots=True)
class Bill:
    """A plan's bill: constant and maximum replicas, mean and 95th percentile in dollars a month."""

    plan: str
    always: int
    most: int
    usd_month: float
    usd_month_worst: float


class Sizing:
    """How many replicas a backend needs at a rate."""

    # No mutable state: the rate that each number of replicas carries is computed on construction.

    def __init__(
        self, service: Service, replica: Replica, target: Target, bursts: float, most_rate: float
    ) -> None:
        """Plan for up to `most_rate` calls per second; ValueError says why no number is enough."""
        self._service, self._replica, self._target = service, replica, target
        self._bursts = bursts
        alone = service.quantile(target.share)
        if late(0.0, service, 1, target.within_s) > 1.0 - target.share:
            raise ValueError(
                f"no number of replicas meets the target of {target.within_s:.3g} s: "
                f"{target.share:.1%} of the calls take up to {alone:.3g} s without waiting"
            )
        levels, rates = [0], [0.0]
        while rates[-1] < most_rate:
            step = max(1, int(levels[-1] * STEP))
            levels.append(levels[-1] + step)
            if levels[-1] > REPLICAS_MAX:
                raise ValueError(
                    f"{most_rate:.4g} calls/s need more than {REPLICAS_MAX:,} replicas"
                )
            rates.append(max(rates[-1], self._carried(levels[-1])))
        self._levels, self._rates = np.array(levels, np.int64), np.array(rates)

    def _carried(self, replicas: int) -> float:
        target, places = self._target, replicas * self._replica.places
        return carried(self._service, places, target.within_s, target.share, self._bursts)

    def waiting(self, rates: Floats) -> Counts:
        """Return the replicas needed to answer calls in time."""
        counts: Counts = self._levels[np.searchsorted(self._rates, rates)]
        return counts

    def room(self, rates: Floats, more: float) -> Counts:
        """Return the replicas for the rates plus a share `more` of them."""
        load = rates * (1.0 + more) * self._service.mean_s / self._replica.places
        return np.ceil(load - 1e-9).astype(np.int64)

    def late(self, rate: float, replicas: int) -> float:
        """Return the share of calls that take longer than the target."""
        places = replicas * self._replica.places
        return late(rate, self._service, places, self._target.within_s, self._bursts)


def spared(needed: int, up: float, availability: float) -> int:
    """Return how many replicas keep `needed` of them up with this availability.

    Each is up for the share `up` of the time, independently.
    """
    for spares in range(SPARES_MAX):
        count = needed + spares
        # The chance that more than `spares` of `count` are down.
        remaining = sum(
            math.comb(count, down) * (1.0 - up) ** down * up ** (count - down)
            for down in range(spares + 1)
        )
        if remaining >= availability:
            return count
    raise ValueError(
        f"replicas that are up {up:.1%} of the time cannot reach an availability of "
        f"{availability:.3%}"
    )


def need(sizing: Sizing, forecast: Forecast, replica: Replica, target: Target) -> Need:
    """Return how many replicas the highest hour needs."""
    worst = forecast.worst(target.worst)
    waiting = int(sizing.waiting(np.array([worst]))[0])
    headroom = int(sizing.room(forecast.expected, target.headroom).max())
    usual = np.array([float(np.median(forecast.expected))])
    peak = int(sizing.room(usual, target.peak)[0])
    most = max(waiting, headroom, peak, 1)
    top = spared(most, replica.up, target.availability)
    return Need(waiting, headroom, peak, top, sizing.late(worst, most), worst)


def bills(
    sizing: Sizing, forecast: Forecast, replica: Replica, target: Target, top: int
) -> Iterator[Bill]:
    """Yield the bill of each plan that has a price."""
    if replica.usd is None:
        return
    hourly = _hourly(sizing, forecast, target)
    with_spares = _with_spares(hourly, replica.up, target.availability, top)
    yield _bill("constant maximum", top, np.full_like(with_spares, top), replica.usd, replica.usd)
    usd = replica.usd
    yield _bill("hourly", 0, with_spares, usd, usd)
    base = 0
    if replica.reserved_usd is not None:
        base = _worth(with_spares, replica.reserved_usd / usd)
        yield _bill("reserved + hourly", base, with_spares, replica.reserved_usd, usd)
    if replica.spot_usd is not None:
        yield from _spot(hourly, base, replica, target, top)


def _spot(
    hourly: Counts, reserved: int, replica: Replica, target: Target, top: int
) -> Iterator[Bill]:
    """Yield the plans of a firm base with spot replicas above it, if any are needed above it.

    Without reserved replicas, the need of the calmest hours is on demand, so that one wave of
    interruptions does not take all replicas.
    """
    assert replica.usd is not None
    assert replica.spot_usd is not None
    base = reserved or max(1, int(np.quantile(hourly, 0.05)))
    rest = np.maximum(hourly - base, 0)
    if not rest.any():
        return
    each = math.sqrt(target.availability)  # both parts must be up together
    firm = spared(base, replica.up, each)
    rented = firm + _with_spares(rest, replica.spot_up, each, top + SPARES_MAX)
    if reserved:
        assert replica.reserved_usd is not None
        yield _bill("reserved + spot", firm, rented, replica.reserved_usd, replica.spot_usd)
    else:
        yield _bill("on demand + spot", firm, rented, replica.usd, replica.spot_usd)


def _hourly(sizing: Sizing, forecast: Forecast, target: Target) -> Counts:
    """Return the replicas that each hour of each future needs (n x h), at least one."""
    futures = forecast.futures[:FUTURES]
    least = sizing.room(forecast.expected, target.headroom)
    return np.maximum(np.maximum(sizing.waiting(futures), least), 1)


def _with_spares(needed: Counts, up: float, availability: float, most: int) -> Counts:
    counts = np.unique(needed)
    spare = [spared(int(count), up, availability) if count else 0 for count in counts]
    spares: Counts = np.minimum(np.array(spare, np.int64)[np.searchsorted(counts, needed)], most)
    return spares


def _worth(rented: Counts, ratio: float) -> int:
    """Return how many replicas are used in enough of the hours for reserving to pay."""
    used = np.array([(rented >= count).mean() for count in range(1, int(rented.max()) + 1)])
    return int((used > ratio).sum())


def _bill(plan: str, always: int, rented: Counts, base_usd: float, usd: float) -> Bill:
    """Return the bill of a constant base at one price and of the replicas above at another."""
    per_hour = always * base_usd + np.maximum(rented - always, 0).mean(axis=1) * usd
    return Bill(
        plan,
        always,
        int(max(rented.max(), always)),
        float(per_hour.mean()) * MONTH_H,
        float(np.quantile(per_hour, 0.95)) * MONTH_H,
    )
