"""Converts the remaining budgets into an allowance: what one request may cost.

A windowed budget's allowance is its remaining money divided by the requests still to come in the
window. The budget's `pacing` determines the number of requests to come:

- `even`: the recent rate of matching requests times the seconds until the window ends.
- `forecast`: the number expected from the same hours of earlier days and weeks; no pacing until a
  whole day was observed.
- `none`: no pacing; the budget is only a cap.

Demand counts routed requests. Requests that were rejected unread or only replayed do not count.

Among the budgets that match all requests of a route, the tightest applies. A budget that matches
only some of them (a tenant's, a tag's) paces those. Gateways that share a budget learn their number
from the ledger, but not each other's traffic. Each multiplies its own demand by their number, and
so spends an equal part of what is left. Together they spend all of it by the end of the window,
however unequal their traffic is. Lifetime budgets, soft budgets and budgets of a single backend do
not pace.
"""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from tollway.gateway.budgets.model import NANO, BudgetStatus
from tollway.gateway.learning.demand_forecast import Forecast

HALF_LIFE_S = 60.0  # long enough to smooth bursts, short enough to follow a morning's rise


class Traffic:
    """The recent rate of a route's requests."""

    # The mutable state is the rate, and the count and time of the last update.
    __slots__ = ("_count", "_rate_per_s", "_told_s")

    def __init__(self) -> None:
        self._count = 0
        self._rate_per_s = 0.0
        self._told_s = -math.inf

    def tell(self, count: int, now_s: float) -> None:
        """Update with the total number of requests so far."""
        passed_s = now_s - self._told_s
        if passed_s <= 0:
            return
        if math.isfinite(passed_s):
            fresh = -math.expm1(-passed_s * math.log(2) / HALF_LIFE_S)
            rate = (count - self._count) / passed_s
            # The first rate counts in full: there is nothing to smooth it with.
            self._rate_per_s += (fresh if self._rate_per_s else 1.0) * (rate - self._rate_per_s)
        self._count, self._told_s = count, now_s

    @property
    def rate_per_s(self) -> float:
        """Requests per second."""
        return self._rate_per_s


class Sharing:
    """Smoothed number of gateways that share a budget; idle gateways come and go."""

    # The mutable state is the number and the time of the last update.
    __slots__ = ("_number", "_told_s")

    def __init__(self) -> None:
        self._number = 1.0
        self._told_s = -math.inf

    def tell(self, gateways: float, now_s: float) -> None:
        """Update with the current number of gateways."""
        fresh = -math.expm1(-(now_s - self._told_s) * math.log(2) / HALF_LIFE_S)
        self._number += fresh * (max(1.0, gateways) - self._number)
        self._told_s = now_s

    @property
    def gateways(self) -> float:
        """Smoothed number of gateways, at least 1."""
        return self._number


class Demand:
    """A route's demand: recent rates and forecasts, in total and by budget."""

    # The mutable state is the traffic in all workers, in this worker, and by budget in this worker;
    # the forecasts in total and by budget; and the last reported counts.

    def __init__(self) -> None:
        self._all = Traffic()
        self._own = Traffic()
        self._bound: dict[str, Traffic] = {}
        self._forecasts: dict[str, Forecast] = {"": Forecast()}
        self._told: tuple[int, int, dict[str, int]] = (0, 0, {})
        self._told_s = -math.inf

    def tell(
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
        self._all.tell(total, now_s)
        self._own.tell(own, now_s)
        for budget, count in bound.items():
            self._bound.setdefault(budget, Traffic()).tell(count, now_s)
        if wall_s is not None:
            self._forecast(total, own, bound, now_s, wall_s)

    def _forecast(
        self, total: int, own: int, bound: Mapping[str, int], now_s: float, wall_s: float
    ) -> None:
        before, before_own, before_bound = self._told
        passed_s, self._told_s = now_s - self._told_s, now_s
        self._told = total, own, dict(bound)
        if not 0 < passed_s < math.inf:
            return
        here = max(0, own - before_own)
        workers = max(0, total - before) / here if here else 1.0
        self._forecasts[""].tell(max(0, total - before), wall_s, passed_s)
        for budget in self._forecasts.keys() | bound.keys():
            if budget:
                fresh = max(0, bound.get(budget, 0) - before_bound.get(budget, 0))
                forecast = self._forecasts.setdefault(budget, Forecast())
                forecast.tell(fresh * workers, wall_s, passed_s)

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
            return 0.0 if forecast is None else forecast.expected(now_s, end_s)
        rate = self.bound_per_s(budget) if budget else self.rate_per_s
        return rate * (end_s - now_s)

    def save(self) -> dict[str, Any]:
        """Return the forecasts. Rates are not saved: they are learned again within minutes."""
        return {budget: forecast.save() for budget, forecast in self._forecasts.items()}

    def load(self, state: dict[str, Any]) -> None:
        """Load saved forecasts. Raises ValueError, KeyError or TypeError if they are damaged."""
        forecasts = {"": Forecast()}
        for budget, saved in state.items():
            forecasts.setdefault(str(budget), Forecast()).load(saved)
        self._forecasts = forecasts


@dataclass(frozen=True, slots=True)
class Pace:
    """Allowance of one request, the budget that sets it, and the assumed requests to come."""

    allowance_usd: float
    budget: str
    to_come: float


def allowances_usd(
    statuses: Iterable[BudgetStatus],
    options: Mapping[str, Demand],
    wall_s: float,
    sharing: Mapping[str, Sharing] = MappingProxyType({}),
    objectives: Mapping[str, str] = MappingProxyType({}),
) -> dict[str, dict[str, Pace]]:
    """Return, by route, the allowance of one request.

    The key "" holds the pace for all of the route's requests. The names of budgets that match only
    some requests hold the paces for those. A route without a pacing budget has no entries.
    `sharing` is by budget; `objectives` lists routes with an objective other than `max_quality`.
    """
    found: dict[str, dict[str, Pace]] = {route: {} for route in options}
    for status in statuses:
        budget, end_s = status.budget, status.resets_at_s
        bound = [route for route in options if budget.scope.route in (None, route)]
        modes = {r: budget.pacing_of(objectives.get(r, "max_quality")) for r in bound}
        paced = [route for route in bound if modes[route] != "none"]
        if end_s is None or not paced:
            continue
        name = budget.name if budget.paces_some else ""
        # A budget shared by several routes is divided by the requests of all of them.
        mode = modes[paced[0]]
        parts = [options[route].to_come(name, mode, wall_s, end_s) for route in bound]
        known = [part for part in parts if part is not None]
        if len(known) < len(parts):
            continue  # demand of some routes is not known yet: the budget is only a cap
        shared = sharing.get(budget.name)
        gateways = 1.0 if shared is None else shared.gateways
        to_come = max(1.0, gateways * sum(known))
        allowance = max(0, status.limit_nano - status.used_nano) / NANO / to_come
        for route in paced:
            before = found[route].get(name)
            if before is None or allowance < before.allowance_usd:
                found[route][name] = Pace(allowance, budget.name, to_come)
    return found
