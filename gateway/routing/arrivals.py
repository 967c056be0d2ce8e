"""Arrivals: counts the requests of each route that count as demand, for planning the pace."""

from collections.abc import Collection


class Arrivals:
    """One process' counts since its start.

    They are separate from the metrics, which report what happened: decisions use their own state,
    so that renaming a metric or changing its labels cannot change a decision.
    """

    # The mutable state is the count of each route.

    def __init__(self) -> None:
        self._counts: dict[str, int] = {}

    def count(self, route: str) -> None:
        """Count a request that counts as demand, see `RequestState.is_demand` (0.1 us)."""
        self._counts[route] = self._counts.get(route, 0) + 1

    def of(self, route: str) -> int:
        """Return the count of a route."""
        return self._counts.get(route, 0)

    def keep(self, routes: Collection[str]) -> None:
        """Drop the counts of all routes but these."""
        for name in self._counts.keys() - set(routes):
            del self._counts[name]
