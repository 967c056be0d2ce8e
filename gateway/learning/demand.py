"""The demand of a route: its recent request rates and forecasts, in total and by budget.

Demand counts routed requests. Requests that were rejected unread or only replayed do not count.
"""

import math
from collections.abc import Mapping
from typing import Any

from tollway.gateway.learning.demand_forecast import Forecast
from tollway.gateway.learning.known_events import KnownEvent, factor_at, pieces, usual_seconds

HALF_LIFE_S = 60.0  # long enough to smooth bursts, short enough to follow a morning's rise


class Traffic:
    """The recent rate of a route's requests."""

    # The mutable state is the rate, and the count and time of the last update.
    __slots__ = ("_count", "_rate_per_s", "_updated_s")

    def __init__(self) -> None:
        self._count = 0
        self._rate_per_s = 0.0
        self._updated_s = -math.inf

    def update(self, count: int, now_s: float) -> None:
        """Update with the total number of requests so far."""
        passed_s = now_s - self._updated_s
        if passed_s <= 0:
            return
        if math.isfinite(passed_s):
            fresh = -math.expm1(-passed_s * math.log(2) / HALF_LIFE_S)
            rate = (count - self._count) / passed_s
            # The first rate counts in full: there is nothing to smooth it with.
            self._rate_per_s += (fresh if self._rate_per_s else 1.0) * (rate - self._rate_per_s)
        self._count, self._updated_s = count, now_s

    @property
    def rate_per_s(self) -> float:
        """Requests per second."""
        return self._rate_per_s


class Sharing:
    """Smoothed number of gateways that share a budget; idle gateways come and go."""

    # The mutable state is the number and the time of the last update.
    __slots__ = ("_number", "_updated_s")

    def __init__(self) -> None:
        self._number = 1.0
        self._updated_s = -math.inf

    def update(self, gateways: float, now_s: float) -> None:
        """Update with the current number of gateways."""
        fresh = -math.expm1(-(now_s - self._updated_s) * math.log(2) / HALF_LIFE_S)
        self._number += fresh * (max(1.0, gateways) - self._number)
        self._updated_s = now_s

    @property
    def gateways(self) -> float:
        """Smoothed number of gateways, at least 1."""
        return self._number


class Demand:
    """A route's demand: recent rates and forecasts, in total and by budget."""

    # The mutable state is the traffic in all workers, in this worker, and by budget in this worker;
    # the forecasts in total and by budget; the last reported counts; and the events that are known.

    def __init__(self) -> None:
        self._all = Traffic()
        self._own = Traffic()
        self._bound: dict[str, Traffic] = {}
        self._forecasts: dict[str, Forecast] = {"": Forecast()}
        self._last: tuple[int, int, dict[str, int]] = (0, 0, {})
        self._updated_s = -math.inf
        self.events: tuple[KnownEvent, ...] = ()

    def update(
        self,
        total: int,
        own: int,
        bound: Mapping[str, int],
        now_s: float,
        wall_s: float | None = None,
    ) -> None:
        """Update with the requests so far in all workers, in this worker, and by budget here.

        `now_s` is monotonic; `wall_s` is the time of day, for the forecast.
        """
        self._all.update(total, now_s)
        self._own.update(own, now_s)
        for budget, count in bound.items():
            self._bound.setdefault(budget, Traffic()).update(count, now_s)
        if wall_s is not None:
            self._forecast(total, own, bound, now_s, wall_s)

    def _forecast(
        self, total: int, own: int, bound: Mapping[str, int], now_s: float, wall_s: float
    ) -> None:
        before, before_own, before_bound = self._last
        passed_s, self._updated_s = now_s - self._updated_s, now_s
        self._last = total, own, dict(bound)
        if not 0 < passed_s < math.inf:
            return
        here = max(0, own - before_own)
        workers = max(0, total - before) / here if here else 1.0
        # Of an event, the usual demand is learned: next week there will be none.
        usual = 1.0 / factor_at(self.events, wall_s)
        self._forecasts[""].update(max(0, total - before) * usual, wall_s, passed_s)
        for budget in self._forecasts.keys() | bound.keys():
            if budget:
                fresh = max(0, bound.get(budget, 0) - before_bound.get(budget, 0))
                forecast = self._forecasts.setdefault(budget, Forecast())
                forecast.update(fresh * workers * usual, wall_s, passed_s)

    @property
    def rate_per_s(self) -> float:
        """Requests per second, in all workers."""
        return self._all.rate_per_s

    def bound_per_s(self, budget: str) -> float:
        """Return a budget's requests per second, assuming the total's distribution over workers."""
        traffic = self._bound.get(budget)
        if traffic is None or not self._own.rate_per_s:
            return 0.0
        return traffic.rate_per_s * self._all.rate_per_s / self._own.rate_per_s

    def to_come(self, budget: str, pacing: str, now_s: float, end_s: float) -> float | None:
        """Return the number of requests to come until `end_s`; None if it is not known yet.

        `budget` restricts it to the requests that this budget matches; "" counts all.
        """
        if pacing == "forecast":
            if not self._forecasts[""].known:
                return None
            forecast = self._forecasts.get(budget)  # no forecast: it matched no request here
            return 0.0 if forecast is None else self._expected(forecast, now_s, end_s)
        rate = self.bound_per_s(budget) if budget else self.rate_per_s
        if not self.events:
            return rate * (end_s - now_s)
        usual_per_s = rate / factor_at(self.events, now_s)
        return usual_per_s * usual_seconds(self.events, now_s, end_s)

    def _expected(self, forecast: Forecast, now_s: float, end_s: float) -> float | None:
        if not self.events:
            return forecast.expected(now_s, end_s)
        total = 0.0
        for from_s, to_s, factor in pieces(self.events, now_s, end_s):
            usual = forecast.expected(from_s, to_s)
            if usual is None:
                return None
            total += factor * usual
        return total

    def save(self) -> dict[str, Any]:
        """Return the forecasts. Rates are not saved: they are learned again within minutes."""
        return {budget: forecast.save() for budget, forecast in self._forecasts.items()}

    def load(self, state: dict[str, Any]) -> None:
        """Load saved forecasts. Raises ValueError, KeyError or TypeError if they are damaged."""
        forecasts = {"": Forecast()}
        for budget, saved in state.items():
            forecasts.setdefault(str(budget), Forecast()).load(saved)
        self._forecasts = forecasts
