"""Turns what the budgets have left into what one request may cost.

For a budget over a window: what is left, spread over the requests still to come, which are the
traffic's recent rate times the seconds to the window's end. The tightest budget counts. A budget
without an end (`ever`) sets no pace, and one that binds only some of a route's requests (a
tenant's, a tag's, a backend's) none for the route: those hold by the ledger alone.
"""

import math
from collections.abc import Iterable

from gateway.ledger.types import BudgetStatus

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


def allowance_usd(
    statuses: Iterable[BudgetStatus], route: str, rate_per_s: float, wall_s: float
) -> float | None:
    """Return the dollars that one request of a route may cost; None where no budget sets a pace."""
    allowances = []
    for status in statuses:
        scope = status.budget.scope
        whole_route = scope.route in (None, route) and not (
            scope.tenant or scope.backend or scope.tags
        )
        if not whole_route or status.resets_at_s is None or status.budget.enforcement == "soft":
            continue
        to_come = max(1.0, rate_per_s * (status.resets_at_s - wall_s))
        left_nano = max(0, status.limit_nano - status.used_nano)
        allowances.append(left_nano / 1e9 / to_come)
    return min(allowances, default=None)
