"""Whose requests a route has had lately: each tenant's share of the last thousand or so."""

import math
from collections.abc import Mapping
from typing import Any

MEMORY = 1000.0  # requests: enough for a share of a hundredth, few enough to follow a day
KEPT = 1.0 - 1.0 / MEMORY
TENANTS_MAX = 10_000  # a megabyte; those with the fewest requests are forgotten first


class Traffic:
    """Counts one route's requests by tenant, the older the less."""

    # The mutable state is how many requests there were in all and lately, each tenant's sum with
    # the request it was last brought up to, and what other workers of this gateway say of theirs.

    def __init__(self) -> None:
        self._clock = 0
        self._total = 0.0
        self._sums: dict[str, tuple[float, int]] = {}
        self.others: list[dict[str, float]] = []

    def count(self, tenant: str) -> None:
        """Count a request (0.4 us)."""
        self._clock += 1
        self._total += 1.0 - self._total / MEMORY
        value, at = self._sums.get(tenant, (0.0, self._clock))
        passed = self._clock - at
        value *= KEPT if passed == 1 else KEPT**passed  # one: nearly always, where one tenant calls
        self._sums[tenant] = value + 1.0, self._clock
        if len(self._sums) > TENANTS_MAX:
            kept = sorted(self.save().items(), key=lambda pair: -pair[1])[: TENANTS_MAX // 2]
            self._sums = {name: (count, self._clock) for name, count in kept}

    def share(self, tenant: str) -> float:
        """Return a tenant's share of the requests; 1 where there were none."""
        own = self._now(tenant) + sum(one.get(tenant, 0.0) for one in self.others)
        total = self._total + sum(sum(one.values()) for one in self.others)
        return min(own / total, 1.0) if total > 0.0 else 1.0

    def _now(self, tenant: str) -> float:
        value, at = self._sums.get(tenant, (0.0, self._clock))
        return float(value * KEPT ** (self._clock - at))

    def save(self) -> dict[str, float]:
        """Return each tenant's requests lately."""
        return {tenant: self._now(tenant) for tenant in self._sums}

    def load(self, state: Mapping[str, Any]) -> None:
        """Take a saved state; ValueError or TypeError, and no change, where it is damaged."""
        counts = read(state)
        self._sums = {tenant: (count, self._clock) for tenant, count in counts.items()}
        self._total = min(sum(counts.values()), MEMORY)


def read(state: Mapping[str, Any]) -> dict[str, float]:
    """Return saved counts by tenant; ValueError or TypeError where they are damaged."""
    counts = {str(tenant): float(count) for tenant, count in state.items()}
    if not all(0.0 <= count < math.inf for count in counts.values()):
        raise ValueError("counts of requests that are none")
    return counts
