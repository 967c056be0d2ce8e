"""Whose requests a route has had lately: each tenant's share of the last thousand or so."""

import math
from collections.abc import Mapping
from typing import Any

MEMORY = 1000.0  # requests: enough for a share of a hundredth, few enough to follow a day
KEPT = 1.0 - 1.0 / MEMORY
BATCH = 64  # requests that are counted at once: a tenth of a microsecond each, not one
WEIGHTS = tuple(KEPT**age for age in range(BATCH))
TENANTS_MAX = 10_000  # a megabyte; those with the fewest requests are forgotten first


class Traffic:
    """Counts one route's requests by tenant, the older the less."""

    # The mutable state is how many requests there were in all and lately, each tenant's sum with
    # the request it was last brought up to, the tenants of the requests that are not counted yet,
    # and what other workers of this gateway say of theirs.

    def __init__(self) -> None:
        self._clock = 0
        self._total = 0.0
        self._sums: dict[str, tuple[float, int]] = {}
        self._fresh: list[str] = []
        self.others: list[dict[str, float]] = []

    def count(self, tenant: str) -> None:
        """Count a request (0.15 us)."""
        self._fresh.append(tenant)
        if len(self._fresh) == BATCH:
            self._fold()

    def _fold(self) -> None:
        """Count the requests that were noted, as if one by one."""
        fresh, self._fresh = self._fresh, []
        self._clock += len(fresh)
        kept = KEPT ** len(fresh)
        self._total = self._total * kept + MEMORY * (1.0 - kept)
        added: dict[str, float] = {}
        for tenant, weight in zip(reversed(fresh), WEIGHTS, strict=False):
            added[tenant] = added.get(tenant, 0.0) + weight
        for tenant, weight in added.items():
            self._sums[tenant] = self._now(tenant) + weight, self._clock
        if len(self._sums) > TENANTS_MAX:
            most = sorted(self._sums, key=self._now, reverse=True)[: TENANTS_MAX // 2]
            self._sums = {name: (self._now(name), self._clock) for name in most}

    def share(self, tenant: str) -> float:
        """Return a tenant's share of the requests; 1 where there were none."""
        self._fold()
        own = self._now(tenant) + sum(one.get(tenant, 0.0) for one in self.others)
        total = self._total + sum(sum(one.values()) for one in self.others)
        return min(own / total, 1.0) if total > 0.0 else 1.0

    def _now(self, tenant: str) -> float:
        value, at = self._sums.get(tenant, (0.0, self._clock))
        return float(value * KEPT ** (self._clock - at))

    def save(self) -> dict[str, float]:
        """Return each tenant's requests lately."""
        self._fold()
        return {tenant: self._now(tenant) for tenant in self._sums}

    def load(self, state: Mapping[str, Any]) -> None:
        """Take a saved state; ValueError or TypeError, and no change, where it is damaged."""
        counts = read(state)
        self._fresh = []
        self._sums = {tenant: (count, self._clock) for tenant, count in counts.items()}
        self._total = min(sum(counts.values()), MEMORY)


def read(state: Mapping[str, Any]) -> dict[str, float]:
    """Return saved counts by tenant; ValueError or TypeError where they are damaged."""
    counts = {str(tenant): float(count) for tenant, count in state.items()}
    if not all(0.0 <= count < math.inf for count in counts.values()):
        raise ValueError("counts of requests that are none")
    return counts
