"""Bounds on a mean that hold at every time at once, however often one looks: betting.

Who claims that a mean is at most m is bet against: after values X1, X2, ... a gambler who staked
the amount l_t (fixed before X_t is seen) has

    K_t(m) = product of 1 + l_t (X_t - m)

If the claim holds, K is a supermartingale, and it ever reaches 1 / alpha with probability at most
alpha (Ville 1939). The least m against which it has not happened is a lower bound of the mean,
valid at all times together. Nothing is asked of the values but that they are not below
`least`: no distribution, no fixed number of them, and values weighted by inverse propensities may
be as large as they like, their policy changing all the while.

A bound's stakes are those of approximate growth (aGRAPA): (mean - m) / (variance + (mean - m)^2),
by what was seen before, and never more than half of what could be lost.

Sources: Waudby-Smith and Ramdas, Estimating means of bounded random variables by betting, JRSS B
86 (1), 2024 (arXiv 2010.09686), appendix B.3; Waudby-Smith, Wu, Ramdas, Karampatziakis and Mineiro,
Anytime-valid off-policy inference for contextual bandits, ACM/IMS J. Data Science 1 (3), 2024
(arXiv 2210.10768); for the detector Shin, Ramdas and Rinaldo, E-detectors, 2023 (arXiv 2203.03532).
"""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

BOLDNESS = 0.5  # of the most that may be staked: one value never ruins the gambler
POINTS = 200  # of the grid of claims: half a percent of the range
EARLY_VARIANCE = 0.25  # of right or wrong, evenly: what is assumed for the first values
MEMORY = 1000.0  # values over which mean and variance are taken: stakes follow a policy that learns
STAKES = (0.02, 0.1, 0.4, 1.0)  # of the boldest, by a detector's gamblers
DETECTOR_RATE = 0.01  # of the mean that a detector tells
TINY = 1e-3  # of a claim above the least value: stakes stay finite


class Moments:
    """The mean and variance of what was seen lately: what the next stake goes by."""

    # The mutable state is how many values were seen, up to MEMORY, their mean and variance.

    __slots__ = ("count", "mean", "variance")

    def __init__(self, mean: float, variance: float) -> None:
        """The values assumed before there are any; they count as one value."""
        self.count = 1.0
        self.mean = mean
        self.variance = variance

    def observe(self, value: float) -> None:
        """Take a value."""
        self.count = min(self.count + 1.0, MEMORY)
        off = value - self.mean
        self.mean += off / self.count
        self.variance += (off * (value - self.mean) - self.variance) / self.count

    def save(self) -> list[float]:
        """Return the state."""
        return [self.count, self.mean, self.variance]

    def load(self, state: Sequence[float]) -> None:
        """Take a saved state."""
        self.count, self.mean, self.variance = map(float, state)


class Detector:
    """Notices that a mean is no longer at most `claim`: cumulative sums of winnings.

    Several gamblers stake fixed parts of the boldest stake, since nobody knows by how much the mean
    will change, and each begins anew with 1 whenever less is left: so a change is noticed however
    long all was well. While the claim holds, an alarm comes once in 1 / alpha values at most, in
    the mean. 1.5 us per value.
    """

    # The mutable state is the logarithm of each gambler's capital, and the mean lately.

    def __init__(self, claim: float, *, alpha: float) -> None:
        if not 0.0 < alpha < 1.0:
            raise ValueError(f"an alpha of {alpha}, not between 0 and 1")
        self.claim = claim
        # Shared evenly among the gamblers: their sum is what must grow by 1 / alpha.
        self._log_alarm = math.log(len(STAKES) / alpha)
        self.reset()

    def reset(self) -> None:
        """Begin anew."""
        self.log_capitals = [0.0] * len(STAKES)
        self.mean = self.claim

    def observe(self, value: float, least: float = 0.0) -> bool:
        """Take a value, of which it was known to be at least `least`; return whether to alarm."""
        _check(value, least)
        self.mean += DETECTOR_RATE * (value - self.mean)
        over = BOLDNESS * (value - self.claim) / max(self.claim - least, TINY)
        self.log_capitals = [
            max(capital + math.log1p(stake * over), 0.0)
            for stake, capital in zip(STAKES, self.log_capitals, strict=True)
        ]
        return max(self.log_capitals) >= self._log_alarm

    def save(self) -> dict[str, Any]:
        """Return the state."""
        return {"mean": self.mean, "log_capitals": self.log_capitals}

    def load(self, state: dict[str, Any]) -> None:
        """Take a saved state; ValueError where it is of other gamblers."""
        capitals = [float(capital) for capital in state["log_capitals"]]
        if len(capitals) != len(STAKES):
            raise ValueError("a saved state whose bets do not fit")
        self.log_capitals, self.mean = capitals, float(state["mean"])


class LowerBound:
    """A lower bound on a mean, valid at all times with probability 1 - alpha: bets on a grid.

    7 us per value.
    """

    # The mutable state is the moments and the logarithm of the capital at each point.

    def __init__(self, *, low: float = 0.0, high: float = 1.0, alpha: float = 0.05) -> None:
        """`low`, `high`: where the mean is looked for; single values may be outside."""
        if not (low < high and 0.0 < alpha < 1.0):
            raise ValueError(f"from {low} to {high}, alpha {alpha}")
        self._low = low
        self._claims = np.linspace(low, high, POINTS + 1)[1:]
        self._log_alarm = -math.log(alpha)
        self.reset()

    def reset(self) -> None:
        """Begin anew."""
        self._log_capital = np.zeros(POINTS)
        self._moments = Moments(self._low, EARLY_VARIANCE)
        self.value = self._low

    def observe(self, value: float, least: float = 0.0) -> None:
        """Take a value, of which it was known to be at least `least`."""
        _check(value, least)
        moments = self._moments
        over = moments.mean - self._claims
        boldest = BOLDNESS / np.maximum(self._claims - least, TINY)
        stake = (over / (moments.variance + over * over)).clip(0.0, boldest)
        self._log_capital += np.log1p(stake * (value - self._claims))
        moments.observe(value)
        self._find()

    def _find(self) -> None:
        # The least claim that stands: only the one at the mean itself is sure to, with 1 - alpha.
        refuted = self._log_capital >= self._log_alarm
        count = POINTS if refuted.all() else int(refuted.argmin())
        self.value = float(self._claims[count - 1]) if count else self._low

    @property
    def mean(self) -> float:
        """The mean of the values lately."""
        return self._moments.mean

    def save(self) -> dict[str, Any]:
        """Return the state."""
        return {"moments": self._moments.save(), "log_capital": self._log_capital.tolist()}

    def load(self, state: dict[str, Any]) -> None:
        """Take a saved state; ValueError where it is of another grid."""
        capital = np.array(state["log_capital"], dtype=float)
        if capital.shape != (POINTS,) or not np.isfinite(capital).all():
            raise ValueError("a saved state whose bets do not fit")
        self._log_capital = capital
        self._moments.load(state["moments"])
        self._find()


def _check(value: float, least: float) -> None:
    # A sliver for the rounding of sums of weights.
    if not (least - 1e-9 <= value < math.inf and math.isfinite(least)):
        raise ValueError(f"a value of {value}, not at least {least}")
