"""Arrivals: counts the requests of each route that count as demand, for planning the pace."""

from collections import Counter
from collections.abc import Collection

from tollway.gateway.routing.request_state import RequestState


class Arrivals:
    """One process' counts since its start.

    They are separate from the metrics, which report what happened: decisions use their own state,
    so that renaming a metric or changing its labels cannot change a decision.
    """

    # The mutable state is the count of each route.

    def __init__(self) -> None:
        self._counts: Counter[str] = Counter()

    def count(self, route: str) -> None:
        """Count a request that counts as demand, see `DemandSink` (0.1 us)."""
        self._counts[route] += 1

    def of(self, route: str) -> int:
        """Return the count of a route."""
        return self._counts[route]

    def keep(self, routes: Collection[str]) -> None:
        """Drop the counts of all routes but these."""
        for name in self._counts.keys() - set(routes):
            del self._counts[name]


class DemandSink:
    """Counts the requests for which budgets are paced."""

    # The mutable state is the counts of arrivals; each route holds the others.

    def __init__(self, arrivals: Arrivals) -> None:
        self._arrivals = arrivals

    def answered(self, state: RequestState, now_s: float) -> None:
        """Count a request, unless it will be repeated because other calls held the money."""
        if not state.draws:
            return
        route = state.inference.route
        route.traffic.count(state.inference.tenant)
        if state.held is None and state.outcome == "budget_held":
            return
        self._arrivals.count(route.name)
        for scope in state.context.scopes:
            route.bound[scope] += 1
