"""Converts the remaining budgets into an allowance: what one request may cost.

A windowed budget's allowance is its remaining money divided by the requests still to come in the
window. The budget's `pacing` determines the number of requests to come:

- `even`: the recent rate of matching requests times the seconds until the window ends.
- `forecast`: the number expected from the same hours of earlier days and weeks; no pacing until a
  whole day was observed.
- `none`: no pacing; the budget is only a cap.

Events that are known multiply the requests to come while they last.

Among the budgets that match all requests of a route, the tightest applies. A budget that matches
only some of them (a tenant's, a tag's) paces those. Gateways that share a budget learn their number
from the ledger, but not each other's traffic. Each multiplies its own demand by their number, and
so spends an equal part of what is left. Together they spend all of it by the end of the window,
however unequal their traffic is. Lifetime budgets, soft budgets and budgets of a single backend do
not pace.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

from tollway.backends.money import to_usd
from tollway.gateway.budgets.model import BudgetStatus
from tollway.gateway.budgets.reservations import Reservations
from tollway.gateway.learning.demand import Demand, Sharing
from tollway.gateway.learning.known_events import KnownEvent
from tollway.gateway.routing.plan import RoutePlan
from tollway.gateway.routing.sinks.demand import Arrivals

PACE_S = 1.0  # between two updates of the allowances


@dataclass(frozen=True, slots=True)
class Pace:
    """Allowance of one request, the budget that sets it, and the assumed requests to come."""

    allowance_usd: float
    budget: str
    to_come: float


class BudgetPacing:
    """Passes each route's policy the amount per request that the budgets allow."""

    # The mutable state is each route's demand and its events, each budget's number of gateways, and
    # the scopes for which each policy has an allowance.

    def __init__(
        self,
        routes: Mapping[str, RoutePlan],
        reservations: Reservations,
        arrivals: Arrivals,
        *,
        clock: Callable[[], float],
        wall: Callable[[], float],
        totals: Callable[[str], Callable[[int], int]],
        workers: int = 1,
    ) -> None:
        """`totals` returns, for a route, the function that scales this worker's request count to
        all workers. `workers` is their number.
        """
        self._routes = routes
        self._reservations = reservations
        self._arrivals = arrivals
        self._clock = clock
        self._wall = wall
        self._totals = totals
        self._workers = workers
        self._total: dict[str, Callable[[int], int]] = {}
        self._sharing: defaultdict[str, Sharing] = defaultdict(Sharing)
        self._paced: dict[str, set[str]] = {}
        self._events: Mapping[str, tuple[KnownEvent, ...]] = {}
        self.demands: dict[str, Demand] = {}
        self.to_come: dict[str, float] = {}
        """For each pacing budget, the requests that it is expected to pay for in its window."""
        self.revise()

    def revise(self) -> None:
        """Register new routes and forget removed ones."""
        self._arrivals.keep(self._routes)
        for name in self.demands.keys() - self._routes.keys():
            del self.demands[name], self._paced[name], self._total[name]
        for name in self._routes.keys() - self.demands.keys():
            self.demands[name], self._paced[name] = Demand(), set()
            self._total[name] = self._totals(name)
            self.demands[name].events = self._events.get(name, ())

    def expect(self, events: Mapping[str, tuple[KnownEvent, ...]]) -> None:
        """Take the events that are known, by route."""
        self._events = events
        for name, demand in self.demands.items():
            demand.events = events.get(name, ())

    def pace(self) -> None:
        """Update the demand, and pass each policy its allowances."""
        statuses = self._reservations.status()
        wall_s = self._wall()
        self._count(statuses, self._clock(), wall_s)
        objectives = {name: route.objective.kind for name, route in self._routes.items()}
        by_route = allowances_usd(statuses, self.demands, wall_s, self._sharing, objectives)
        self.to_come = {p.budget: p.to_come for paces in by_route.values() for p in paces.values()}
        for name, paces in by_route.items():
            self._apply(name, paces)

    def _count(self, statuses: Iterable[BudgetStatus], now_s: float, wall_s: float) -> None:
        for name, route in self._routes.items():
            own = self._arrivals.of(name)
            self.demands[name].update(self._total[name](own), own, route.bound, now_s, wall_s)
        for status in statuses:
            self._sharing[status.budget.name].update(status.spenders / self._workers, now_s)

    def _apply(self, name: str, paces: Mapping[str, Pace]) -> None:
        route, gone = self._routes[name], self._paced[name] - paces.keys()
        route.paced_by.clear()
        route.paced_by.update({scope: pace.budget for scope, pace in paces.items()})
        for scope in gone | {""}:
            if scope not in paces:
                route.policy.pace(None, scope)
        for scope, pace in paces.items():
            route.policy.pace(pace.allowance_usd, scope)
        self._paced[name] = paces.keys() - {""}


def allowances_usd(
    statuses: Iterable[BudgetStatus],
    demands: Mapping[str, Demand],
    wall_s: float,
    sharing: Mapping[str, Sharing] = MappingProxyType({}),
    objectives: Mapping[str, str] = MappingProxyType({}),
) -> dict[str, dict[str, Pace]]:
    """Return, by route, the allowance of one request.

    The key "" holds the pace for all of the route's requests. The names of budgets that match only
    some requests hold the paces for those. A route without a pacing budget has no entries.
    `sharing` is by budget; `objectives` lists routes with an objective other than `max_quality`.
    """
    paces: dict[str, dict[str, Pace]] = {route: {} for route in demands}
    for status in statuses:
        budget, end_s = status.budget, status.resets_at_s
        bound = [route for route in demands if budget.scope.route in (None, route)]
        modes = {r: budget.pacing_of(objectives.get(r, "max_quality")) for r in bound}
        paced = [route for route in bound if modes[route] != "none"]
        if end_s is None or not paced:
            continue
        name = budget.name if budget.paces_some else ""
        # A budget shared by several routes is divided by the requests of all of them.
        mode = modes[paced[0]]
        parts = [demands[route].to_come(name, mode, wall_s, end_s) for route in bound]
        known = [part for part in parts if part is not None]
        if len(known) < len(parts):
            continue  # demand of some routes is not known yet: the budget is only a cap
        shared = sharing.get(budget.name)
        gateways = 1.0 if shared is None else shared.gateways
        to_come = max(1.0, gateways * sum(known))
        allowance = to_usd(max(0, status.limit_nano - status.used_nano)) / to_come
        for route in paced:
            before = paces[route].get(name)
            if before is None or allowance < before.allowance_usd:
                paces[route][name] = Pace(allowance, budget.name, to_come)
    return paces
