"""Arrivals: how many requests that want money each route has had, for those who plan by that."""

from collections.abc import Collection

from gateway.turn import Turn


class Arrivals:
    """One process' counts since its start.

    Kept apart from the metrics, which say what happened: what decides has state of its own, so
    that a metric may be renamed, or its labels changed, and no decision with it.
    """

    # The mutable state is the count of each route.

    def __init__(self) -> None:
        self._counts: dict[str, int] = {}

    def count(self, turn: Turn) -> None:
        """Count a request, unless it wanted no money (0.2 us)."""
        if turn.is_demand:
            name = turn.inference.route.name
            self._counts[name] = self._counts.get(name, 0) + 1

    def of(self, route: str) -> int:
        """Return how many a route has had."""
        return self._counts.get(route, 0)

    def keep(self, routes: Collection[str]) -> None:
        """Forget all routes but these."""
        for name in self._counts.keys() - set(routes):
            del self._counts[name]
