"""Arrivals: how many requests that want money each route has had, for those who plan by that."""

from collections.abc import Collection


class Arrivals:
    """One process' counts since its start.

    Kept apart from the metrics, which say what happened: what decides has state of its own, so
    that a metric may be renamed, or its labels changed, and no decision with it.
    """

    # The mutable state is the count of each route.

    def __init__(self) -> None:
        self._counts: dict[str, int] = {}

    def count(self, route: str) -> None:
        """Count a request that wanted money, see `Turn.is_demand` (0.1 us)."""
        self._counts[route] = self._counts.get(route, 0) + 1

    def of(self, route: str) -> int:
        """Return how many a route has had."""
        return self._counts.get(route, 0)

    def keep(self, routes: Collection[str]) -> None:
        """Forget all routes but these."""
        for name in self._counts.keys() - set(routes):
            del self._counts[name]
