"""Turns measured quality against the promised one into how much may be saved.

The same machine as the pacer on the other axis: the price of money is the highest at which the
expected mean quality still is at the floor, plus a margin, plus what is owed from before. What the
heads expect cannot certify a floor (a misspecified one holds it in its own eyes only), so a guard
judges the labels alone: owed too much, requests go to the declared baseline arm until it is repaid.
"""

from policies.multiplier import MeanAt, Prices, price_for_quality

HORIZON = 200.0  # labels over which a shortfall is made good
CREDIT = 5.0  # labels' worth of surplus that may be used up: small, or good luck is gambled away
DEBT = 50.0  # the shortfall that is remembered
GUARD = 6.0  # owed answers at which the baseline takes over: twice the noise of a fair 100 labels


class Floor:
    """Keeps the mean quality at a floor."""

    # The mutable state of a floor is what is owed, in answers, and whether the guard is on.

    def __init__(
        self, floor: float, *, margin: float = 0.0, horizon: float = HORIZON, guard: float = GUARD
    ) -> None:
        if not 0.0 <= floor <= 1.0:
            raise ValueError(f"a floor of {floor}, not in [0, 1]")
        self.floor = floor
        self._margin = margin
        self._horizon = horizon
        self._guard = guard
        self.owed = 0.0
        self.guarded = False
        self.estimate = floor

    def observe(self, quality: float) -> None:
        """Count the quality of an answer that was given."""
        self.estimate += (quality - self.estimate) / self._horizon
        self.owed = min(max(self.owed + self.floor - quality, -CREDIT), DEBT)
        # Off again at half: one label must not switch it to and fro.
        self.guarded = self.owed > (0.5 * self._guard if self.guarded else self._guard)

    @property
    def target(self) -> float:
        """The mean quality to aim at now."""
        return min(self.floor + self._margin + self.owed / self._horizon, 1.0)

    def prices(self, mean_at: MeanAt, dearest_usd: float) -> Prices:
        """Return the highest prices of money at which the expected quality is on target."""
        return price_for_quality(mean_at, dearest_usd, self.target)

    def save(self) -> dict[str, float]:
        """Return the state."""
        return {
            "owed": self.owed,
            "guarded": float(self.guarded),
            "estimate": self.estimate,
        }

    def load(self, state: dict[str, float]) -> None:
        """Take a saved state."""
        self.owed, self.guarded = float(state["owed"]), bool(state["guarded"])
        self.estimate = float(state["estimate"])
