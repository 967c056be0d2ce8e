"""Confidence intervals of a mean that are valid for small samples, from values with known bounds.

Theory of operation. All three take values x_1 ... x_n, each of which has a mean conditional on the
earlier ones. If a logger or a policy learns, or if traffic changes, these means drift, and the
quantity of interest is their average.

`bernstein`, the default (Howard, Ramdas, McAuliffe and Sekhon, Annals of Statistics 2021, theorem
4): with any guess g_i of x_i made before it, y_i = x_i - g_i >= -c, and any stake s below 1 / c,

    exp(s (sum of y_i - their means) - psi(s) V),   V = sum of y_i^2,
    psi(s) = (-log(1 - c s) - c s) / c^2

is a capital process that cannot grow in expectation. A mixture over stakes is one too, so by
Markov's inequality it exceeds 2 / alpha with probability alpha / 2 at most, which bounds the
average mean from below; the upper end is symmetric. This needs no normal approximation, no constant
mean and no independence.

`betting` (Waudby-Smith and Ramdas, JRSS-B 2024, arXiv 2010.09686) bets on x_i - m with stakes that
depend on the past. It can be narrower, but only for a constant mean: if the mean drifts, the
interval may miss the average by far. `normal` (1.96 standard errors) is valid only for many
light-tailed values. The last two are here for comparison.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
STAKE_MAX = 0.75  # of the capital, on one value; all of it could be lost for good
STEPS = 40  # halvings when an end is searched for: 1e-12 of the range is left
Z_95 = 1.959964
_AWAY = np.arange(
    -9, 10
)  # stakes tried, in powers of 1.5 around the likeliest: 40 times either way
_MIX = np.log((1.0 / (1.0 + np.abs(_AWAY)) ** 2) / (1.0 / (1.0 + np.abs(_AWAY)) ** 2).sum())


@dataclass(frozen=True, slots=True)
class Bounds:
    """What is known without looking: what values lie between, and what their mean lies between.

    `variance` is a guess; a bad one makes an interval wider, not wrong.
    """

    low: float
    high: float
    mean_low: float = 0.0
    mean_high: float = 1.0
    variance: float = 0.0625

    def turned(self) -> "Bounds":
        """Return the bounds of the values with their sign turned."""
        return Bounds(-self.high, -self.low, -self.mean_high, -self.mean_low, self.variance)


Interval = Callable[[Floats, Floats, Bounds, float], tuple[float, float]]


def bernstein(low: Floats, high: Floats, bounds: Bounds, alpha: float) -> tuple[float, float]:
    """Return the interval of the average mean: its ends from `low` and from `high`.

    The two arrays differ where a value is known only to lie between; else they are the same.
    """
    return (
        _average_above(low, bounds, alpha / 2),
        -_average_above(-high, bounds.turned(), alpha / 2),
    )


def _average_above(values: Floats, bounds: Bounds, alpha: float) -> float:
    count, reach = len(values), bounds.mean_high - bounds.low
    guesses = np.clip(_means_before(values), bounds.mean_low, bounds.mean_high)
    spread = float((((values - guesses) / reach) ** 2).sum())
    likeliest = math.sqrt(2.0 * math.log(1.0 / alpha) * reach**2 / (count * bounds.variance))
    stakes = np.minimum(likeliest * 1.5**_AWAY, 0.98)
    tolls = (-np.log1p(-stakes) - stakes) * spread
    enough = math.log(1.0 / alpha)
    least, most = 0.0, float(count)
    for _ in range(STEPS):
        middle = (least + most) / 2
        if np.logaddexp.reduce(_MIX + stakes * middle - tolls) < enough:
            least = middle
        else:
            most = middle
    return float(values.mean()) - most * reach / count


def _means_before(values: Floats) -> Floats:
    """Return for each value the mean of those before it, and of the first the bounds' middle."""
    counts = np.arange(1, len(values))
    return np.concatenate([[0.5], (0.5 + np.cumsum(values[:-1])) / (counts + 1)])


def betting(low: Floats, high: Floats, bounds: Bounds, alpha: float) -> tuple[float, float]:
    """Return the interval of a mean that is the same all along; arrays as of `bernstein`."""
    return (
        _never_refuted(low, bounds, alpha / 2),
        -_never_refuted(-high, bounds.turned(), alpha / 2),
    )


def _never_refuted(values: Floats, bounds: Bounds, alpha: float) -> float:
    """Return the largest m such that every mean below m has been bet against with success."""
    count, enough = len(values), math.log(1.0 / alpha)
    stakes = np.sqrt(2.0 * enough / (count * _variances_before(values, bounds.variance)))

    def refuted(mean: float) -> bool:
        bets = np.minimum(stakes, STAKE_MAX / (mean - bounds.low))
        return bool(np.cumsum(np.log1p(bets * (values - mean))).max() >= enough)

    low, high = max(bounds.low, bounds.mean_low - 1e-9), bounds.mean_high
    for _ in range(STEPS // 2):
        middle = (low + high) / 2
        low, high = (middle, high) if refuted(middle) else (low, middle)
    return low


def _variances_before(values: Floats, guess: float) -> Floats:
    squares = np.cumsum((values - _means_before(values)) ** 2)
    before = np.concatenate([[0.0], squares[:-1]])
    variances: Floats = np.maximum((guess + before) / np.arange(1, len(values) + 1), 1e-9)
    return variances


def normal(low: Floats, high: Floats, bounds: Bounds, alpha: float) -> tuple[float, float]:
    """Return the mean and 1.96 standard errors either side, whatever `alpha`: for comparison."""

    def half(values: Floats) -> float:
        return Z_95 * math.sqrt(float(values.var(ddof=1)) / len(values))

    return float(low.mean()) - half(low), float(high.mean()) + half(high)


METHODS: dict[str, Interval] = {"bernstein": bernstein, "betting": betting, "normal": normal}
