"""The costliest calls by tenant: the largest ratio of cost to expected cost, which decays.

If nothing bounds a call in advance, a hard budget reserves this multiple for it. One outlier must
not make other tenants' calls too large for their budgets, so each tenant has its own figure. Nor
must it affect its own tenant forever, so the figure decays to the default over time.
"""

import math

USUAL = 4.0  # default ratio: a model's calls vary by as much within any day
MOST = 50.0  # a larger cost is charged as an overdraft and must not block the next calls
HALF_LIFE_S = 600.0  # outlasts a batch of such calls; an hour later the effect is gone


class Worst:
    """The largest ratio of a cost to its expectation, by tenant."""

    # The mutable state is a ratio per tenant and its time (NaN: before a restart). Tenants come
    # from the configuration, and decayed entries are deleted.

    def __init__(self) -> None:
        self._seen: dict[str, tuple[float, float]] = {}

    def of(self, tenant: str, now_s: float) -> float:
        """Return a tenant's current ratio (0.3 us; 0.1 us if nothing was seen)."""
        seen = self._seen.get(tenant)
        if seen is None:
            return USUAL
        ratio, at_s = seen
        if math.isnan(at_s):
            self._seen[tenant] = ratio, now_s
            return ratio
        faded = (ratio - USUAL) * math.exp2(-max(0.0, now_s - at_s) / HALF_LIFE_S)
        return USUAL + math.ceil(10 * faded) / 10  # in steps, so that quotes stay cacheable

    def see(self, tenant: str, ratio: float, now_s: float) -> None:
        """Record the ratio of a call."""
        now = self.of(tenant, now_s)
        if ratio > now:
            self._seen[tenant] = min(ratio, MOST), now_s
        elif tenant in self._seen and now < USUAL + 0.2:
            del self._seen[tenant]

    def save(self) -> dict[str, float]:
        """Return the ratios."""
        return {tenant: ratio for tenant, (ratio, _) in self._seen.items()}

    def load(self, state: object) -> None:
        """Load saved ratios. Raises ValueError if they are damaged."""
        if not isinstance(state, dict):  # an older format: one figure for all tenants
            self._seen = {}
            return
        ratios = {str(tenant): float(ratio) for tenant, ratio in state.items()}
        self._seen = {t: (min(max(ratio, USUAL), MOST), math.nan) for t, ratio in ratios.items()}
