"""Turns what the budgets have left into what one request may cost.

For a budget over a window: what is left, spread over the requests still to come, which are the
recent rate of those it binds times the seconds to the window's end. Of the budgets that bind all
requests of a route the tightest counts; one that binds only some (a tenant's, a tag's) paces those.
Gateways that share a budget know each other's number from the ledger, not each other's traffic.
Each takes its own rate times their number for all that is to come, and so spends an equal part of
what is left: together all of it by the window's end, however unequal their traffic is.
A budget without an end (`ever`), a soft one, and one of a single backend set no pace: they hold by
the ledger alone.
"""

import math
from collections.abc import Iterable, Mapping
from types import MappingProxyType

from gateway.ledger.types import NANO, BudgetStatus

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
    """The recent rates of a route's requests: of all, and of those that a budget binds."""

    # The mutable state is the traffic in all workers, in this one, and by budget in this one.

    def __init__(self) -> None:
        self._all = Traffic()
        self._own = Traffic()
        self._bound: dict[str, Traffic] = {}

    def tell(self, total: int, own: int, bound: Mapping[str, int], now_s: float) -> None:
        """Say how many requests there have been in all workers, in this one, and by budget here."""
        self._all.tell(total, now_s)
        self._own.tell(own, now_s)
        for budget, count in bound.items():
            self._bound.setdefault(budget, Traffic()).tell(count, now_s)

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


def allowances_usd(
    statuses: Iterable[BudgetStatus],
    demands: Mapping[str, Demand],
    wall_s: float,
    sharing: Mapping[str, Sharing] = MappingProxyType({}),
) -> dict[str, dict[str, float]]:
    """Return, by route, the dollars that one request may cost; `sharing` is by budget.

    Under "" what holds for all its requests, and under the names of the budgets that bind only some
    of them what holds for those. Where no budget sets a pace there is nothing.
    """
    found: dict[str, dict[str, float]] = {route: {} for route in demands}
    for status in statuses:
        budget = status.budget
        if not budget.paces or status.resets_at_s is None:
            continue
        name = budget.name if budget.paces_some else ""
        # What several routes share is spread over the requests of all of them.
        bound = {
            route: demand.bound_per_s(name) if name else demand.rate_per_s
            for route, demand in demands.items()
            if budget.scope.route in (None, route)
        }
        shared = sharing.get(budget.name)
        gateways = 1.0 if shared is None else shared.gateways
        to_come = max(1.0, gateways * sum(bound.values()) * (status.resets_at_s - wall_s))
        allowance = max(0, status.limit_nano - status.used_nano) / NANO / to_come
        for route in bound:
            found[route][name] = min(allowance, found[route].get(name, math.inf))
    return found
