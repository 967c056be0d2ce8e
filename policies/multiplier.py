"""Finds the price of money (lambda) that brings a mean spend or a mean quality about.

Over recent contexts with qualities q and costs c (contexts x arms), each context takes the arm that
maximises q - lambda c. Mean spend and mean quality both fall as lambda rises, in steps: at a step
many contexts change their arm at once (all of them, where contexts say nothing). So the solution is
two prices, one on each side of the step, and the share of requests to be decided at the lower one:
the relaxed knapsack's, which without any context is the best mix of fixed arms. The two are a few
percent apart, for the estimates move before the next solution, and with them the step; contexts
between the two prices are nearly indifferent, so that deciding them by lot costs next to nothing.
Units: quality per dollar.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Matrix = NDArray[np.float64]
MeanAt = Callable[[float], tuple[float, float]]
"""Returns (mean quality, mean cost in dollars) of what is chosen at a price of money."""

STEPS = 16  # halvings of the logarithm's range: to 0.05 %, far less than BESIDE
BESIDE = 0.1  # how far each of the two prices is from the step, relatively
RANGE = 1e9  # the widest ratio of the steepest and the flattest trade between two arms


@dataclass(frozen=True, slots=True)
class Prices:
    """The price of money is `low` for a share of the requests, drawn by lot, else `high`."""

    high: float = 0.0
    low: float = 0.0
    share: float = 0.0


FREE = Prices()


def at(qualities: Matrix, costs: Matrix, price: float | Matrix) -> tuple[float, float]:
    """Return (mean quality, mean cost) of the arms taken at a price, or at one per context."""
    taken = (qualities - price * costs).argmax(axis=1)
    count = len(taken)
    taken += np.arange(0, qualities.size, qualities.shape[1])  # where that is in the whole table
    # `reduce`, for `sum` itself takes a microsecond more, and this is done twenty times a solution.
    quality, cost = np.add.reduce(qualities.take(taken)), np.add.reduce(costs.take(taken))
    return float(quality) / count, float(cost) / count


def price_for_spend(mean_at: MeanAt, dearest_usd: float, target_usd: float) -> Prices:
    """Return the least prices at which the mean cost is at most `target_usd`.

    `dearest_usd` is the highest cost there is. 0 where money is no object; the highest price there
    is where nothing is cheap enough.
    """
    least, most = _ends(dearest_usd)
    if mean_at(least)[1] <= target_usd:
        return FREE
    if mean_at(most)[1] > target_usd:
        return Prices(most, most, 0.0)
    low, high = _beside(least, most, lambda price: mean_at(price)[1] <= target_usd)
    return _share(low, high, mean_at(low)[1], mean_at(high)[1], target_usd)


def price_for_quality(mean_at: MeanAt, dearest_usd: float, target: float) -> Prices:
    """Return the highest prices at which the mean quality is at least `target`; 0 if none is."""
    least, most = _ends(dearest_usd)
    if mean_at(least)[0] < target:
        return FREE
    if mean_at(most)[0] >= target:
        return Prices(most, most, 0.0)
    low, high = _beside(least, most, lambda price: mean_at(price)[0] < target)
    return _share(low, high, mean_at(low)[0], mean_at(high)[0], target)


def _share(low: float, high: float, at_low: float, at_high: float, target: float) -> Prices:
    if at_low <= at_high:
        return Prices(high, high, 0.0)
    return Prices(high, low, min(max((target - at_high) / (at_low - at_high), 0.0), 1.0))


def _ends(dearest_usd: float) -> tuple[float, float]:
    """Return prices below and above which no choice changes any more."""
    if dearest_usd <= 0.0:
        return 1.0, 1.0
    return 1.0 / dearest_usd / 1e6, 1.0 / dearest_usd * RANGE


def _beside(low: float, high: float, holds: Callable[[float], bool]) -> tuple[float, float]:
    """Return a price at which `holds` is false, and one a little above at which it is true."""
    below, above = math.log(low), math.log(high)
    for _ in range(STEPS):
        middle = (below + above) / 2
        if holds(math.exp(middle)):
            above = middle
        else:
            below = middle
    return math.exp(below) / (1.0 + BESIDE), math.exp(above) * (1.0 + BESIDE)
