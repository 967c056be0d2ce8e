"""Bounds on a mean that hold at all times together, however often one looks: by betting.

The claim that a mean is at most m is tested by a bet against it: after values X1, X2, ... a gambler
who staked the amount l_t (fixed before X_t is seen) has

    K_t(m) = product of 1 + l_t (X_t - m)

If the claim holds, K is a supermartingale, and the probability that it ever reaches 1 / alpha is at
most alpha (Ville 1939). The least m for which it has not happened is a lower bound of the mean,
valid at all times together. The only assumption on the values is that they are not below `least`:
no distribution and no fixed number is assumed. Values weighted by inverse propensities may be
arbitrarily large, and their policy may change all the while.

A bound's stakes are those of approximate growth (aGRAPA): (mean - m) / (variance + (mean - m)^2),
from the values seen before, and never more than half of what could be lost.

Sources: Waudby-Smith and Ramdas, Estimating means of bounded random variables by betting, JRSS B 86
(1), 2024 (arXiv 2010.09686), appendix B.3; Waudby-Smith, Wu, Ramdas, Karampatziakis and Mineiro,
Anytime-valid off-policy inference for contextual bandits, ACM/IMS J. Data Science 1 (3), 2024
(arXiv 2210.10768); for the detector Shin, Ramdas and Rinaldo, E-detectors, 2023 (arXiv 2203.03532).
"""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

BOLDNESS = 0.5  # of the maximum stake: one value never ruins the gambler
POINTS = 200  # of the grid of claims: half a percent of the range
EARLY_VARIANCE = 0.25  # of an even mix of right and wrong: assumed for the first values
MEMORY = 1000.0  # values over which mean and variance are taken: stakes follow a policy that learns
STAKES = (0.02, 0.1, 0.4, 1.0)  # of the maximum stake, one for each of a detector's gamblers
DETECTOR_RATE = 0.01  # of the mean that a detector reports
TINY = 1e-3  # of a claim above the least value: stakes stay finite


class Moments:
    """The recent mean and variance of the values: the next stake is computed from them."""

    # The mutable state is how many values were seen, up to MEMORY, their mean and variance.

    __slots__ = ("count", "mean", "variance")

    def __init__(self, mean: float, variance: float) -> None:
        """Start from assumed values; they count as one value."""
        self.count = 1.0
        self.mean = mean
        self.variance = variance

    def observe(self, value: float) -> None:
        """Count a value."""
        self.count = min(self.count + 1.0, MEMORY)
        off = value - self.mean
        self.mean += off / self.count
        self.variance += (off * (value - self.mean) - self.variance) / self.count

    def save(self) -> list[float]:
        """Return the state."""
        return [self.count, self.mean, self.variance]

    def load(self, state: Sequence[float]) -> None:
        """Load a saved state."""
        self.count, self.mean, self.variance = map(float, state)


class Detector:
    """Detects that a mean is no longer at most `claim`: cumulative sums of winnings.

    Several gamblers stake fixed parts of the maximum stake, since the size of a change is unknown.
    Each restarts at 1 whenever less is left, so a change is detected however long the claim held
    before. While the claim holds, there is at most one alarm in 1 / alpha values, in the mean. 1.5
    us per value.
    """

    # The mutable state is the logarithm of each gambler's capital, and the recent mean.

    def __init__(self, claim: float, *, alpha: float) -> None:
        if not 0.0 < alpha < 1.0:
            raise ValueError(f"an alpha of {alpha}, not between 0 and 1")
        self.claim = claim
        # The alarm is on the gamblers' sum, with equal shares: it must grow by 1 / alpha.
        self._log_alarm = math.log(len(STAKES) / alpha)
        self.reset()

    def reset(self) -> None:
        """Restart without evidence."""
        self.log_capitals = [0.0] * len(STAKES)
        self.mean = self.claim

    def observe(self, value: float, least: float = 0.0) -> bool:
        """Count a value, known beforehand to be at least `least`; return whether to alarm."""
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
        """Load a saved state; ValueError if it is of other gamblers."""
        capitals = [float(capital) for capital in state["log_capitals"]]
        if len(capitals) != len(STAKES):
            raise ValueError("a saved state whose bets do not fit")
        self.log_capitals, self.mean = capitals, float(state["mean"])


class LowerBound:
    """A lower bound on a mean, valid at all times with probability 1 - alpha: bets on a grid.

    7 us per value.
    """

    # The mutable state is the moments and the logarithm of the capital at each point.

    def __init__(
        self,
        *,
        low: float = 0.0,
        high: float = 1.0,
        alpha: float = 0.05,
        boldness: float = BOLDNESS,
    ) -> None:
        """`low`, `high`: the range searched for the mean; single values may be outside.

        `boldness`: the most that is staked, as a share of what could be staked.
        """
        if not (low < high and 0.0 < alpha < 1.0):
            raise ValueError(f"from {low} to {high}, alpha {alpha}")
        self._low = low
        self._boldness = boldness
        self._claims = np.linspace(low, high, POINTS + 1)[1:]
        self._log_alarm = -math.log(alpha)
        self.reset()

    def reset(self) -> None:
        """Restart without evidence."""
        self._log_capital = np.zeros(POINTS)
        self._moments = Moments(self._low, EARLY_VARIANCE)
        self.value = self._low

    def revise(self, *, alpha: float) -> None:
        """Change the probability that it is ever too high, and keep the evidence."""
        self._log_alarm = -math.log(alpha)
        self._find()

    def observe(self, value: float, least: float = 0.0) -> None:
        """Count a value, known beforehand to be at least `least`."""
        _check(value, least)
        moments = self._moments
        over = moments.mean - self._claims
        boldest = self._boldness / np.maximum(self._claims - least, TINY)
        stake = (over / (moments.variance + over * over)).clip(0.0, boldest)
        self._log_capital += np.log1p(stake * (value - self._claims))
        moments.observe(value)
        self._find()

    def _find(self) -> None:
        # The bound is the least claim not refuted. The probability that the claim at the mean
        # itself is never refuted is 1 - alpha; of the other claims nothing is guaranteed.
        refuted = self._log_capital >= self._log_alarm
        count = POINTS if refuted.all() else int(refuted.argmin())
        self.value = float(self._claims[count - 1]) if count else self._low

    @property
    def mean(self) -> float:
        """The mean of the recent values."""
        return self._moments.mean

    def save(self) -> dict[str, Any]:
        """Return the state."""
        return {"moments": self._moments.save(), "log_capital": self._log_capital.tolist()}

    def load(self, state: dict[str, Any]) -> None:
        """Load a saved state; ValueError if it is of another grid."""
        capital = np.array(state["log_capital"], dtype=float)
        if capital.shape != (POINTS,) or not np.isfinite(capital).all():
            raise ValueError("a saved state whose bets do not fit")
        self._log_capital = capital
        self._moments.load(state["moments"])
        self._find()


def _check(value: float, least: float) -> None:
    # 1e-9 allows for the rounding of sums of weights.
    if not (least - 1e-9 <= value < math.inf and math.isfinite(least)):
        raise ValueError(f"a value of {value}, not at least {least}")
