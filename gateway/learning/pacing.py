"""Turns what the budgets have left into what one request may cost.

For a budget over a window: what is left, spread over the requests still to come. How many these are
is what the budget's `pacing` says: `even`, the recent rate of those it binds times the seconds to
the window's end; `forecast`, what the same hours of earlier days and weeks lead one to expect, and
nothing until a day is known; `none`, nothing: the budget is a cap and no more. Demand is what was
routed: requests that were refused unread, or only repeated, are none.

Of the budgets that bind all requests of a route the tightest counts; one that binds only some (a
tenant's, a tag's) paces those. Gateways that share a budget know each other's number from the
ledger, not each other's traffic. Each takes its own demand times their number for all that is to
come, and so spends an equal part of what is left: together all of it by the window's end, however
unequal their traffic is. A budget without an end (`lifetime`), a soft one, and one of a single
backend
set no pace.
"""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from tollway.gateway.budgets.model import NANO, BudgetStatus
from tollway.gateway.learning.demand_forecast import Forecast

HALF_LIFE_S = 60.0  # long enough to even out bursts, short enough to follow a morning


class Traffic:
    """The recent rate of a route's requests."""

    # The mutable state is the rate, and the count and time it was last told of.
    __slots__ = ("_count", "_rate_per_s", "_told_s")

    def __init__(self) -> None:
        self._count = 0
        self._rate_per_s = 0.0
        self._told_s = -math.inf

    def tell(self, count: int, now_s: float) -> None:
        """Say how many requests there have been in all."""
        passed_s = now_s - self._told_s
        if passed_s <= 0:
            return
        if math.isfinite(passed_s):
            fresh = -math.expm1(-passed_s * math.log(2) / HALF_LIFE_S)
            rate = (count - self._count) / passed_s
            # The first figure counts in full: there is nothing to even it out with.
            self._rate_per_s += (fresh if self._rate_per_s else 1.0) * (rate - self._rate_per_s)
        self._count, self._told_s = count, now_s

    @property
    def rate_per_s(self) -> float:
        """Requests per second."""
        return self._rate_per_s


class Sharing:
    """Over how many gateways a budget is spread, evened out: an idle one comes and goes."""

    # The mutable state is the number, and when it was last told of.
    __slots__ = ("_number", "_told_s")

    def __init__(self) -> None:
        self._number = 1.0
        self._told_s = -math.inf

    def tell(self, gateways: float, now_s: float) -> None:
        """Say over how many it is spread now."""
        fresh = -math.expm1(-(now_s - self._told_s) * math.log(2) / HALF_LIFE_S)
        self._number += fresh * (max(1.0, gateways) - self._number)
        self._told_s = now_s

    @property
    def gateways(self) -> float:
        """How many, at least 1."""
        return self._number


class Demand:
    """The demand of a route: recent rates and forecasts, of all and of what a budget binds."""

    # The mutable state is the traffic in all workers, in this one, and by budget in this one; the
    # forecasts of all and by budget; and what was last told.

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
        """Say how many requests there have been in all workers, in this one, and by budget here.

        `now_s` never goes back; `wall_s` is the time of day, for the forecast.
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
        """Requests per second that a budget binds, taken to be spread over workers as all are."""
        traffic = self._bound.get(budget)
        if traffic is None or not self._own.rate_per_s:
            return 0.0
        return traffic.rate_per_s * self._all.rate_per_s / self._own.rate_per_s

    def to_come(self, budget: str, pacing: str, now_s: float, end_s: float) -> float | None:
        """Return how many requests are to come until `end_s`; `budget`: of those it binds, "" all.

        None where that cannot be said yet.
        """
        if pacing == "forecast":
            if not self._forecasts[""].known:
                return None
            forecast = self._forecasts.get(budget)  # without one it has bound no request here
            return 0.0 if forecast is None else forecast.expected(now_s, end_s)
        rate = self.bound_per_s(budget) if budget else self.rate_per_s
        return rate * (end_s - now_s)

    def save(self) -> dict[str, Any]:
        """Return the forecasts: rates are learned again within minutes."""
        return {budget: forecast.save() for budget, forecast in self._forecasts.items()}

    def load(self, state: dict[str, Any]) -> None:
        """Take saved forecasts; ValueError, KeyError or TypeError where they are damaged."""
        forecasts = {"": Forecast()}
        for budget, saved in state.items():
            forecasts.setdefault(str(budget), Forecast()).load(saved)
        self._forecasts = forecasts


@dataclass(frozen=True, slots=True)
class Pace:
    """What one request may cost, by which budget, and how many are taken to be to come."""

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
    """Return, by route, what one request may cost.

    Under "" what holds for all its requests, and under the names of the budgets that bind only some
    of them what holds for those. Where no budget sets a pace there is nothing. `sharing` is by
    budget; `objectives` are the routes', where they are not `max_quality`.
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
        # What several routes share is spread over the requests of all of them.
        mode = modes[paced[0]]
        parts = [options[route].to_come(name, mode, wall_s, end_s) for route in bound]
        known = [part for part in parts if part is not None]
        if len(known) < len(parts):
            continue  # of some nobody can say yet what is to come: a cap only
        shared = sharing.get(budget.name)
        gateways = 1.0 if shared is None else shared.gateways
        to_come = max(1.0, gateways * sum(known))
        allowance = max(0, status.limit_nano - status.used_nano) / NANO / to_come
        for route in paced:
            before = found[route].get(name)
            if before is None or allowance < before.allowance_usd:
                found[route][name] = Pace(allowance, budget.name, to_come)
    return found
