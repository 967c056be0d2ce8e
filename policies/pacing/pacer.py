"""Turns what is left of a budget into the shadow price: how much quality a dollar must buy.

The allowance (dollars per request) comes from the budgets. The price is re-solved over the recent
contexts, toward a target spend that also pays back earlier spending above or below the allowance:
an integral term, without which errors of the estimates would add up. Savings are credited only up
to a few requests' worth; otherwise a quiet period would be followed by a burst of spending. Savings
beyond that are a reserve: they raise no target, but pay for expensive calls that come later.

Two ratios correct the solution, and no limit on credit limits them. The contexts that prices are
solved over were learned from since, so at the same price new requests are expected to cost less (or
more) than those did: `planned` compares the two. And a call costs more or less than was expected
when it was decided, where costs are heavy-tailed: `billed` compares those.
"""

import math
from collections.abc import Sequence
from typing import Any

from tollway.policies.pacing.multiplier import FREE, Market, Prices, price_for_spend

HORIZON = 200.0  # requests over which an error is paid back
CREDIT = 20.0  # requests' worth of allowance that may be saved up
STRAY = 20.0  # requests' worth of overspending after which new prices are solved at once
MEAN_RATE = 0.01  # of the mean cost: about the last hundred requests
SPARE = 20.0  # of unspent allowance: the default share of exploration takes all of it
DEBT = 1000.0  # requests' worth of overspending that is remembered
RESERVE = 40.0  # requests' worth of savings that pay for later expensive calls
PLANNED_CALLS = 150.0  # requests of evidence that each ratio starts with, at 1
PLANNED_KEPT = 0.998  # of the evidence on new requests, per request
BILLED_KEPT = 0.9995  # of the evidence on bills, per request: a few calls make most of a bill
RATIO_MAX = 3.0  # of either ratio, and its inverse
TAIL = 20.0  # allowances: what a request costs beyond is paid for by the reserve alone


class Ratio:
    """The ratio of two sums over recent requests, at 1 without evidence."""

    # The mutable state is the two sums, in requests' worth.

    __slots__ = ("_kept", "_over", "_under")

    def __init__(self, kept: float) -> None:
        """`kept`: the share of the evidence that remains after one request."""
        self._kept = kept
        self._over = self._under = PLANNED_CALLS

    @property
    def value(self) -> float:
        """The ratio, within bounds."""
        return min(max(self._over / self._under, 1.0 / RATIO_MAX), RATIO_MAX)

    def fade(self) -> None:
        """Count a request; its parts are added."""
        self._over *= self._kept
        self._under *= self._kept

    def add(self, over: float, under: float) -> None:
        """Count a part of a request, in units of the usual request."""
        self._over += over
        self._under += under

    def save(self) -> list[float]:
        """Return the state."""
        return [self._over, self._under]

    def load(self, state: list[float]) -> None:
        """Load a saved state."""
        self._over, self._under = map(float, state)


class Pacer:
    """Keeps the mean spend per request at an allowance."""

    # The mutable state of a pacer is its allowance, the spend above it now and when the prices were
    # last solved, the last price, what it was planned to cost (None while another price is in
    # force), and the two ratios.

    def __init__(self, *, horizon: float = HORIZON, credit: float = CREDIT) -> None:
        self._horizon = horizon
        self._credit = credit
        self.allowance_usd: float | None = None
        self._over_usd = 0.0
        self._solved_at_usd = 0.0
        self._near = 0.0
        self.mean_usd: float | None = None
        self.planned_usd: float | None = None
        self._planned = Ratio(PLANNED_KEPT)
        self._billed = Ratio(BILLED_KEPT)

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
        changed = abs(allowance_usd - before) > 0.05 * before
        if changed:
            self.restart()
        self._clip()
        return changed

    def restart(self) -> None:
        """Drop the reserve and the ratios: they belong to another allowance or other prices."""
        if self.allowance_usd is not None:
            self._over_usd = max(self._over_usd, -self._credit * self.allowance_usd)
        self._planned, self._billed = Ratio(PLANNED_KEPT), Ratio(BILLED_KEPT)

    def spend(self, cost_usd: float, expected_usd: float | None = None) -> None:
        """Count the final cost of one request, and what it was expected to cost when decided."""
        if self.allowance_usd is not None:
            self._over_usd -= self.allowance_usd
        if self.mean_usd is not None:
            self.mean_usd -= MEAN_RATE * self.mean_usd
        if self.planned_usd:
            self._planned.fade()
            self._planned.add(0.0, 1.0)
            self._billed.fade()
        self.add(cost_usd, expected_usd)

    def add(self, cost_usd: float, expected_usd: float | None = None) -> None:
        """Count a further cost of a request that was counted before."""
        if not 0.0 <= cost_usd < math.inf:
            raise ValueError(f"a cost of {cost_usd}")
        if self.mean_usd is not None:
            self.mean_usd += MEAN_RATE * cost_usd
        if self.allowance_usd is not None:
            self._over_usd += cost_usd
            self._clip()
            if self.planned_usd and expected_usd is not None:
                usual = self.planned_usd
                self._planned.add(expected_usd / usual, 0.0)
                self._billed.add(min(cost_usd / usual, TAIL), expected_usd / usual)

    def base(self, costs_usd: Sequence[float]) -> float:
        """Return the cost that exploration is a share of: the allowance, else the recent mean cost.

        Where no price is needed to keep to the allowance, what it leaves unspent may be explored.
        Before anything is spent it is the highest of `costs_usd`, those of the arms offered, so
        that an expensive arm is tried at all.
        """
        if self.mean_usd is None:
            self.mean_usd = max(costs_usd)
        if self.allowance_usd is None:
            return self.mean_usd
        if self._near == 0.0 and self.mean_usd < self.allowance_usd:
            return self.allowance_usd + SPARE * (self.allowance_usd - self.mean_usd)
        return self.allowance_usd

    @property
    def strayed(self) -> bool:
        """Whether spending has gone far above the allowance since the prices were solved."""
        return self._over_usd - self._solved_at_usd > STRAY * (self.allowance_usd or 0.0)

    def _clip(self) -> None:
        unit = self.allowance_usd or 0.0
        self._over_usd = min(max(self._over_usd, -max(self._credit, RESERVE) * unit), DEBT * unit)

    @property
    def target_usd(self) -> float | None:
        """The mean spend to aim at now; None where no budget binds."""
        if self.allowance_usd is None:
            return None
        over_usd = max(self._over_usd, -self._credit * self.allowance_usd)
        corrected = self.allowance_usd - over_usd / self._horizon
        # 0.5 and 1.5: the range in which one correction may move the target.
        return min(max(corrected, 0.5 * self.allowance_usd), 1.5 * self.allowance_usd)

    def prices(self, market: Market) -> Prices:
        """Return the shadow prices, in quality per dollar; 0 where no budget binds."""
        target = self.target_usd
        self._solved_at_usd = self._over_usd
        if target is None:
            return FREE
        prices = price_for_spend(market, target / self.ratio, self._near)
        self._near = prices.high
        return prices

    @property
    def ratio(self) -> float:
        """What a request costs now, relative to the recent contexts at the same prices."""
        return self._planned.value * self._billed.value

    def plan(self, market: Market, prices: Prices | None) -> None:
        """Set the prices in force; None if they are not this pacer's own."""
        self.planned_usd = None
        if prices is not None and prices.high > 0.0 and self.allowance_usd:
            at_high = market.cost(prices.high)
            at_low = market.cost(prices.low) if prices.share else at_high
            self.planned_usd = at_high + prices.share * (at_low - at_high)

    def save(self) -> dict[str, Any]:
        """Return the state."""
        return {
            "allowance_usd": self.allowance_usd,
            "over_usd": self._over_usd,
            "mean_usd": self.mean_usd,
            "ratios": [self._planned.save(), self._billed.save()],
        }

    def load(self, state: dict[str, Any]) -> None:
        """Load a saved state."""
        self.allowance_usd = state["allowance_usd"]
        self._over_usd = state["over_usd"] or 0.0
        self.mean_usd = state["mean_usd"]
        for ratio, saved in zip(
            (self._planned, self._billed), state.get("ratios", ()), strict=False
        ):
            ratio.load(saved)
