"""What it is worth, in a cascade, that an arm's reply may still be passed over for a better one.

After each reply the policy weighs accepting it against asking on. By how much quality rises in the
mean where it may ask on, and what that costs in the mean, belongs to the arm that was asked first:
without it a cheap arm would be judged by its own answers alone.
"""

RATE = 0.02  # about the last 50 replies count


class Options:
    """Mean gain in quality, and mean further cost, after a reply of each arm."""

    # The mutable state is two means by name of arm.

    def __init__(self) -> None:
        self._gain: dict[str, float] = {}
        self._cost_usd: dict[str, float] = {}

    def observe(self, held: str, gain: float, cost_usd: float) -> None:
        """Count one reply of `held`, after which going on is expected to gain and cost this."""
        count = self._gain.setdefault(held, gain), self._cost_usd.setdefault(held, cost_usd)
        self._gain[held] += RATE * (gain - count[0])
        self._cost_usd[held] += RATE * (cost_usd - count[1])

    def after(self, arm: str) -> tuple[float, float]:
        """Return (gain, cost in dollars) of what may follow a reply of `arm`."""
        return self._gain.get(arm, 0.0), self._cost_usd.get(arm, 0.0)

    def reprice(self, ratio: float) -> None:
        """Take over that what follows costs `ratio` times what it did."""
        for arm in self._cost_usd:
            self._cost_usd[arm] *= ratio

    def save(self) -> dict[str, list[float]]:
        """Return the state."""
        return {arm: [gain, self._cost_usd[arm]] for arm, gain in self._gain.items()}

    def load(self, state: dict[str, list[float]]) -> None:
        """Take a saved state."""
        self._gain = {arm: float(gain) for arm, (gain, _) in state.items()}
        self._cost_usd = {arm: float(cost) for arm, (_, cost) in state.items()}
