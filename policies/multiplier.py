"""Finds the price of money (lambda) that brings a mean spend or a mean quality about.

Over recent contexts with qualities q and costs c (contexts x arms), each context takes the arm that
maximises q - lambda c. Mean spend and mean quality both fall as lambda rises, in steps, so that
bisection finds the step. Units: quality per dollar.
"""

import math
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

Matrix = NDArray[np.float64]

STEPS = 40  # halvings: the answer is exact to 12 digits of its logarithm's range
RANGE = 1e9  # the widest ratio of the steepest and the flattest trade between two arms


def at(qualities: Matrix, costs: Matrix, price: float) -> tuple[float, float]:
    """Return (mean quality, mean cost) of the arms taken at a price."""
    scores = qualities - price * costs
    taken = scores.argmax(axis=1)
    rows = np.arange(len(taken))
    return float(qualities[rows, taken].mean()), float(costs[rows, taken].mean())


def price_for_spend(qualities: Matrix, costs: Matrix, target_usd: float) -> float:
    """Return the least price at which the mean cost is at most `target_usd`.

    0 where money is no object; the highest price there is where nothing is cheap enough.
    """
    least, most = _ends(costs)
    if at(qualities, costs, least)[1] <= target_usd:
        return 0.0
    return _bisect(least, most, lambda price: at(qualities, costs, price)[1] <= target_usd)


def price_for_quality(qualities: Matrix, costs: Matrix, target: float) -> float:
    """Return the highest price at which the mean quality is at least `target`; 0 if none is."""
    least, most = _ends(costs)
    if at(qualities, costs, least)[0] < target:
        return 0.0
    if at(qualities, costs, most)[0] >= target:
        return most
    fails = _bisect(least, most, lambda price: at(qualities, costs, price)[0] < target)
    # `fails` is just above the step; what is just below it holds the target.
    return fails * math.exp(-math.log(most / least) * 2.0**-STEPS)


def _ends(costs: Matrix) -> tuple[float, float]:
    """Return prices below and above which no choice changes any more."""
    dearest = float(costs.max(initial=0.0))
    if dearest <= 0.0:
        return 1.0, 1.0
    return 1.0 / dearest / 1e6, 1.0 / dearest * RANGE


def _bisect(low: float, high: float, holds: Callable[[float], bool]) -> float:
    """Return the least price, on a logarithmic scale, at which `holds` becomes true."""
    low, high = float(np.log(low)), float(np.log(high))
    for _ in range(STEPS):
        middle = (low + high) / 2
        if holds(float(np.exp(middle))):
            high = middle
        else:
            low = middle
    return float(np.exp(high))
