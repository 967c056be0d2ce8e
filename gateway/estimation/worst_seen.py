"""The costliest calls seen, by tenant: how far above what was expected, and fading.

Where nothing bounds a call beforehand, this is what a hard budget holds for it. One outlier must
not make the calls of others too large for their budgets, so each tenant has a figure of its own;
nor must it do so for its own tenant for ever, so the figure falls back to the usual with time.
"""

import math

USUAL = 4.0  # times what is expected: calls of a model vary as much within any day
MOST = 50.0  # a bill beyond that is charged as an overdraft, and must not stop the next calls
HALF_LIFE_S = 600.0  # outlasts a batch of such calls; an hour later nothing is left of one


class Worst:
    """The largest ratio of a cost to its expectation, by tenant."""

    # The mutable state is a ratio per tenant and when it was that (NaN: before a restart). Tenants
    # come from the configuration, and what has faded is forgotten.

    def __init__(self) -> None:
        self._seen: dict[str, tuple[float, float]] = {}

    def of(self, tenant: str, now_s: float) -> float:
        """Return a tenant's ratio as it is now (0.3 us; 0.1 us where nothing was seen)."""
        seen = self._seen.get(tenant)
        if seen is None:
            return USUAL
        ratio, at_s = seen
        if math.isnan(at_s):
            self._seen[tenant] = ratio, now_s
            return ratio
        faded = (ratio - USUAL) * math.exp2(-max(0.0, now_s - at_s) / HALF_LIFE_S)
        return USUAL + math.ceil(10 * faded) / 10  # in steps, so that quotes can be kept meanwhile

    def see(self, tenant: str, ratio: float, now_s: float) -> None:
        """Take the ratio of a call."""
        now = self.of(tenant, now_s)
        if ratio > now:
            self._seen[tenant] = min(ratio, MOST), now_s
        elif tenant in self._seen and now < USUAL + 0.2:
            del self._seen[tenant]

    def save(self) -> dict[str, float]:
        """Return the ratios."""
        return {tenant: ratio for tenant, (ratio, _) in self._seen.items()}

    def load(self, state: object) -> None:
        """Take saved ratios; ValueError where they are damaged."""
        if not isinstance(state, dict):  # one figure for all, as snapshots once had it
            self._seen = {}
            return
        ratios = {str(tenant): float(ratio) for tenant, ratio in state.items()}
        self._seen = {t: (min(max(ratio, USUAL), MOST), math.nan) for t, ratio in ratios.items()}
