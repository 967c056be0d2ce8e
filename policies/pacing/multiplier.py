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
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

Matrix = NDArray[np.float64]
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


class Market(Protocol):
    """What requests like the recent ones would bring and cost, by the price of money."""

    @property
    def dearest_usd(self) -> float:
        """The highest cost there is."""

    def quality(self, price: float) -> float:
        """Return the mean quality of what is chosen at a price."""

    def cost(self, price: float) -> float:
        """Return the mean cost in dollars of what is chosen at a price."""


class Arms:
    """The market of contexts x arms, each context taking one arm."""

    def __init__(self, qualities: Matrix, costs: Matrix, least: Matrix | None = None) -> None:
        """`least`: the least price of each context, contexts x 1, where other budgets set one."""
        self._qualities = qualities
        self._costs = costs
        self._least = least
        self._rows = np.arange(0, qualities.size, max(1, qualities.shape[1]))

    @property
    def dearest_usd(self) -> float:
        """The highest cost there is."""
        return float(self._costs.max(initial=0.0))

    def _taken(self, price: float) -> NDArray[np.intp]:
        """Return where in the tables the arms are that are taken."""
        asked = price if self._least is None else np.maximum(price, self._least)
        taken: NDArray[np.intp] = (self._qualities - asked * self._costs).argmax(axis=1)
        taken += self._rows
        return taken

    def _mean(self, table: Matrix, taken: NDArray[np.intp]) -> float:
        # `sum` itself takes a microsecond more, and this is done twenty times a solution.
        return float(np.add.reduce(table.take(taken))) / len(taken)

    def quality(self, price: float) -> float:
        """Return the mean quality of the arms taken at a price."""
        return self._mean(self._qualities, self._taken(price))

    def cost(self, price: float) -> float:
        """Return the mean cost in dollars of the arms taken at a price."""
        return self._mean(self._costs, self._taken(price))

    def both(self, price: float) -> tuple[float, float]:
        """Return (mean quality, mean cost) of the arms taken at a price."""
        taken = self._taken(price)
        return self._mean(self._qualities, taken), self._mean(self._costs, taken)


def price_for_spend(market: Market, target_usd: float, near: float = 0.0) -> Prices:
    """Return the least prices at which the mean cost is at most `target_usd`.

    0 where money is no object; the highest price there is where nothing is cheap enough. `near`:
    the price that was found last, which changes nothing but how soon this one is.
    """
    least, most = _ends(market.dearest_usd)
    if market.cost(least) <= target_usd:
        return FREE
    if market.cost(most) > target_usd:
        return Prices(most, most, 0.0)
    low, high = _beside(least, most, lambda price: market.cost(price) <= target_usd, near)
    return _share(low, high, market.cost(low), market.cost(high), target_usd)


def price_for_quality(market: Market, target: float) -> Prices:
    """Return the highest prices at which the mean quality is at least `target`; 0 if none is."""
    least, most = _ends(market.dearest_usd)
    if market.quality(least) < target:
        return FREE
    if market.quality(most) >= target:
        return Prices(most, most, 0.0)
    low, high = _beside(least, most, lambda price: market.quality(price) < target)
    return _share(low, high, market.quality(low), market.quality(high), target)


def _share(low: float, high: float, at_low: float, at_high: float, target: float) -> Prices:
    if at_low <= at_high:
        return Prices(high, high, 0.0)
    return Prices(high, low, min(max((target - at_high) / (at_low - at_high), 0.0), 1.0))


def _ends(dearest_usd: float) -> tuple[float, float]:
    """Return prices below and above which no choice changes any more."""
    if dearest_usd <= 0.0:
        return 1.0, 1.0
    return 1.0 / dearest_usd / 1e6, 1.0 / dearest_usd * RANGE


def _beside(
    low: float, high: float, holds: Callable[[float], bool], near: float = 0.0
) -> tuple[float, float]:
    """Return a price at which `holds` is false, and one a little above at which it is true.

    It is true from some price on; where that is near the last one, two questions save five.
    """
    below, above = math.log(low), math.log(high)
    false_to, true_from = below, above
    if low < near < high:
        for guess in (math.log(near) - 2 * BESIDE, math.log(near)):
            if holds(math.exp(guess)):
                true_from = min(true_from, guess)
            else:
                false_to = max(false_to, guess)
    for _ in range(STEPS):
        middle = (below + above) / 2
        if middle >= true_from or (middle > false_to and holds(math.exp(middle))):
            above = middle
        else:
            below = middle
    return math.exp(below) / (1.0 + BESIDE), math.exp(above) * (1.0 + BESIDE)
