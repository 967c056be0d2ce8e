"""How many replicas a backend needs, and what each way to rent them costs.

Theory of operation. Replicas are counted by three rules, and the one that asks for the most binds:

- waiting: the target's share of calls is answered in time at the worst case's rate (waiting.py);
- head room: in any hour, replicas for the expected rate and `headroom` of it more (0.5: 50 %);
- peak: at the top, for the usual hour's rate and `peak` of it more (2.0: 200 %).

Then as many spares that, each replica being up for its share of the time by itself, enough are up
with the availability wanted.

What is rented goes by a plan: the top number always; as many as each hour needs; the first ones
reserved, where they are used enough to be worth it, and the rest by the hour, on demand or spot.
Bills are means and bad cases over the forecast's futures, for a month of 730 hours.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tollway.simulations.capacity.forecast import Forecast
from tollway.simulations.capacity.waiting import Floats, Service, carried, late

MONTH_H = 730
REPLICAS_MAX = 10_000  # of one backend: what needs more is no matter of a command line
STEP = 0.04  # between numbers of replicas that are looked at, above 25 of them: the next is taken
FUTURES = 200  # that are billed: enough for a bad case of one in twenty
SPARES_MAX = 1000

Counts = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Replica:
    """What can be rented: calls at once, the share of time it is up, dollars an hour.

    `spot_up` is the share of time that a spot replica is there and started. A price that is None
    is not on offer.
    """

    places: int = 1
    up: float = 0.999
    usd: float | None = None
    spot_usd: float | None = None
    reserved_usd: float | None = None
    spot_up: float = 0.99


@dataclass(frozen=True, slots=True)
class Target:
    """What is promised: `share` of the calls within `within_s`, with `availability`.

    `worst` is the share of futures whose highest hour is to be held.
    """

    within_s: float
    share: float = 0.95
    availability: float = 0.999
    headroom: float = 0.5
    peak: float = 2.0
    worst: float = 0.95


@dataclass(frozen=True, slots=True)
class Need:
    """The replicas at the top, by each rule, and with spares; `bursts` as of the traffic.

    `late` is the share of calls that take too long with all but the spares, at the worst rate.
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
        rules = {"waiting": self.waiting, "head room": self.headroom, "peak": self.peak}
        return max(rules, key=lambda name: rules[name])


@dataclass(frozen=True, slots=True)
class Bill:
    """A plan: replicas that are always there, most at once, dollars a month, in a bad case too."""

    plan: str
    always: int
    most: int
    usd_month: float
    usd_month_worst: float


class Sizing:
    """How many replicas a backend needs at a rate."""

    # It has no mutable state; the rates that numbers of replicas carry are found at its making.

    def __init__(
        self, service: Service, replica: Replica, target: Target, bursts: float, most_rate: float
    ) -> None:
        """Rates up to `most_rate` calls per second; ValueError says why no number is enough."""
        self._service, self._replica, self._target = service, replica, target
        self._bursts = bursts
        alone = service.quantile(target.share)
        if late(0.0, service, 1, target.within_s) > 1.0 - target.share:
            raise ValueError(
                f"no number of replicas is enough: {target.share:.1%} of the calls take up to "
                f"{alone:.3g} s by themselves, and the target is {target.within_s:.3g} s"
            )
        levels, rates = [0], [0.0]
        while rates[-1] < most_rate:
            step = max(1, int(levels[-1] * STEP))
            levels.append(levels[-1] + step)
            if levels[-1] > REPLICAS_MAX:
                raise ValueError(f"more than {REPLICAS_MAX:,} replicas for {most_rate:.4g} calls/s")
            rates.append(max(rates[-1], self._carried(levels[-1])))
        self._levels, self._rates = np.array(levels, np.int64), np.array(rates)

    def _carried(self, replicas: int) -> float:
        target, places = self._target, replicas * self._replica.places
        return carried(self._service, places, target.within_s, target.share, self._bursts)

    def waiting(self, rates: Floats) -> Counts:
        """Return the replicas with which calls are in time."""
        found: Counts = self._levels[np.searchsorted(self._rates, rates)]
        return found

    def room(self, rates: Floats, more: float) -> Counts:
        """Return the replicas for the rates and a share of them more."""
        load = rates * (1.0 + more) * self._service.mean_s / self._replica.places
        return np.ceil(load - 1e-9).astype(np.int64)

    def late(self, rate: float, replicas: int) -> float:
        """Return the share of calls that take longer than the target."""
        places = replicas * self._replica.places
        return late(rate, self._service, places, self._target.within_s, self._bursts)


def spared(needed: int, up: float, availability: float) -> int:
    """Return how many replicas there must be, that as many as needed are up so often.

    Each is up for the share `up` of the time, by itself.
    """
    for spares in range(SPARES_MAX):
        count = needed + spares
        # The chance that more than `spares` of `count` are down.
        kept = sum(
            math.comb(count, down) * (1.0 - up) ** down * up ** (count - down)
            for down in range(spares + 1)
        )
        if kept >= availability:
            return count
    raise ValueError(f"replicas that are up {up:.1%} of the time never make {availability:.3%}")


def need(sizing: Sizing, forecast: Forecast, replica: Replica, target: Target) -> Need:
    """Return how many replicas there must be at the top."""
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
    yield _bill("always the top", top, np.full_like(with_spares, top), replica.usd, replica.usd)
    usd = replica.usd
    yield _bill("by the hour", 0, with_spares, usd, usd)
    base = 0
    if replica.reserved_usd is not None:
        base = _worth(with_spares, replica.reserved_usd / usd)
        yield _bill("reserved, then by the hour", base, with_spares, replica.reserved_usd, usd)
    if replica.spot_usd is not None:
        yield from _spot(hourly, base, replica, target, top)


def _spot(
    hourly: Counts, reserved: int, replica: Replica, target: Target, top: int
) -> Iterator[Bill]:
    """Yield the plan of firm replicas first and spot ones above, where any are above.

    Without reserved ones, what the calmest hours need is on demand, so that one wave of
    interruptions does not take all.
    """
    assert replica.usd is not None
    assert replica.spot_usd is not None
    base = reserved or max(1, int(np.quantile(hourly, 0.05)))
    rest = np.maximum(hourly - base, 0)
    if not rest.any():
        return
    each = math.sqrt(target.availability)  # both parts must hold, so each is held more often
    firm = spared(base, replica.up, each)
    rented = firm + _with_spares(rest, replica.spot_up, each, top + SPARES_MAX)
    if reserved:
        assert replica.reserved_usd is not None
        yield _bill("reserved, then spot", firm, rented, replica.reserved_usd, replica.spot_usd)
    else:
        yield _bill("on demand, then spot", firm, rented, replica.usd, replica.spot_usd)


def _hourly(sizing: Sizing, forecast: Forecast, target: Target) -> Counts:
    """Return the replicas that each hour of each future needs (n x h), one at least."""
    futures = forecast.futures[:FUTURES]
    least = sizing.room(forecast.expected, target.headroom)
    return np.maximum(np.maximum(sizing.waiting(futures), least), 1)


def _with_spares(needed: Counts, up: float, availability: float, most: int) -> Counts:
    counts = np.unique(needed)
    spare = [spared(int(count), up, availability) if count else 0 for count in counts]
    found: Counts = np.minimum(np.array(spare, np.int64)[np.searchsorted(counts, needed)], most)
    return found


def _worth(rented: Counts, ratio: float) -> int:
    """Return how many replicas are used for so large a share of the hours that reserving pays."""
    used = np.array([(rented >= count).mean() for count in range(1, int(rented.max()) + 1)])
    return int((used > ratio).sum())


def _bill(plan: str, always: int, rented: Counts, base_usd: float, usd: float) -> Bill:
    """Return the bill of some replicas always at one price, and those above at another."""
    per_hour = always * base_usd + np.maximum(rented - always, 0).mean(axis=1) * usd
    return Bill(
        plan,
        always,
        int(max(rented.max(), always)),
        float(per_hour.mean()) * MONTH_H,
        float(np.quantile(per_hour, 0.95)) * MONTH_H,
    )
