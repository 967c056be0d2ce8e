"""Turns what is left of a budget into the shadow price: how much quality a dollar must buy.

The allowance (dollars per request) comes from the budgets. The price is re-solved over the recent
contexts, toward a target spend that also pays back earlier spending above or below the allowance:
an integral term, without which errors of the estimates would add up. Savings are credited only up
to a few requests' worth; otherwise a quiet period would be followed by a burst of spending.
"""

import math

from tollway.policies.pacing.multiplier import FREE, Market, Prices, price_for_spend

HORIZON = 200.0  # requests over which an error is paid back
CREDIT = 20.0  # requests' worth of allowance that may be saved up
STRAY = 20.0  # requests' worth of overspending after which new prices are solved at once
MEAN_RATE = 0.01  # of the mean cost: about the last hundred requests
DEBT = 200.0  # requests' worth of overspending that is remembered


class Pacer:
    """Keeps the mean spend per request at an allowance."""

    # The mutable state of a pacer is its allowance, the spend above it now and when the prices were
    # last solved, and the last price.

    def __init__(self, *, horizon: float = HORIZON, credit: float = CREDIT) -> None:
        self._horizon = horizon
        self._credit = credit
        self.allowance_usd: float | None = None
        self._over_usd = 0.0
        self._solved_at_usd = 0.0
        self._near = 0.0
        self.mean_usd: float | None = None

    def fresh(self) -> "Pacer":
        """Return a new pacer with the same settings, for another budget."""
        return Pacer(horizon=self._horizon, credit=self._credit)

    def pace(self, allowance_usd: float | None) -> bool:
        """Set a new allowance; return whether it differs enough (5 %) to solve again at once."""
        if allowance_usd is not None and not 0.0 <= allowance_usd < math.inf:
            raise ValueError(f"an allowance of {allowance_usd}")
        before, self.allowance_usd = self.allowance_usd, allowance_usd
        if before is None or allowance_usd is None:
            return before is not allowance_usd
        self._clip()
        return abs(allowance_usd - before) > 0.05 * before

    def spend(self, cost_usd: float) -> None:
        """Count the final cost of one request."""
        if self.allowance_usd is not None:
            self._over_usd -= self.allowance_usd
        if self.mean_usd is not None:
            self.mean_usd -= MEAN_RATE * self.mean_usd
        self.add(cost_usd)

    def add(self, cost_usd: float) -> None:
        """Count a further cost of a request that was counted before."""
        if not 0.0 <= cost_usd < math.inf:
            raise ValueError(f"a cost of {cost_usd}")
        if self.mean_usd is not None:
            self.mean_usd += MEAN_RATE * cost_usd
        if self.allowance_usd is not None:
            self._over_usd += cost_usd
            self._clip()

    def base(self, max_cost_usd: float) -> float:
        """Return the cost that exploration is a share of: the allowance, else the recent mean cost.

        Before anything is spent it is `max_cost_usd`, so that an expensive arm is tried at all.
        """
        if self.mean_usd is None:
            self.mean_usd = max_cost_usd
        return self.mean_usd if self.allowance_usd is None else self.allowance_usd

    @property
    def strayed(self) -> bool:
        """Whether spending has gone far above the allowance since the prices were solved."""
        return self._over_usd - self._solved_at_usd > STRAY * (self.allowance_usd or 0.0)

    def _clip(self) -> None:
        unit = self.allowance_usd or 0.0
        self._over_usd = min(max(self._over_usd, -self._credit * unit), DEBT * unit)

    @property
    def target_usd(self) -> float | None:
        """The mean spend to aim at now; None where no budget binds."""
        if self.allowance_usd is None:
            return None
        corrected = self.allowance_usd - self._over_usd / self._horizon
        # 0.5 and 1.5: the range in which one correction may move the target.
        return min(max(corrected, 0.5 * self.allowance_usd), 1.5 * self.allowance_usd)

    def prices(self, market: Market) -> Prices:
        """Return the shadow prices, in quality per dollar; 0 where no budget binds."""
        target = self.target_usd
        self._solved_at_usd = self._over_usd
        if target is None:
            return FREE
        prices = price_for_spend(market, target, self._near)
        self._near = prices.high
        return prices

    def save(self) -> dict[str, float | None]:
        """Return the state."""
        return {
            "allowance_usd": self.allowance_usd,
            "over_usd": self._over_usd,
            "mean_usd": self.mean_usd,
        }

    def load(self, state: dict[str, float | None]) -> None:
        """Load a saved state."""
        self.allowance_usd = state["allowance_usd"]
        self._over_usd = state["over_usd"] or 0.0
        self.mean_usd = state["mean_usd"]
