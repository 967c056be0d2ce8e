"""Finds the shadow price (lambda) at which a mean spend or a mean quality is reached.

Over recent contexts with qualities q and costs c (contexts x arms), each context takes the arm that
maximises q - lambda c. Mean spend and mean quality both fall as lambda rises, in steps: at a step
many contexts change their arm at once (all of them, where contexts carry no information). So the
solution is two prices, one on each side of the step, and the share of requests to decide at the
lower one. This is the solution of the relaxed knapsack; without any context it is the best mix of
fixed arms. The two prices are a few percent apart, because the estimates, and with them the step,
move before the next solution. Contexts between the two prices are nearly indifferent, so deciding
them at random costs next to nothing. Units: quality per dollar.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

Matrix = NDArray[np.float64]
STEPS = 16  # halvings of the logarithm's range: to 0.05 %, far less than BESIDE
BESIDE = 0.1  # relative distance of each of the two prices from the step
RANGE = 1e9  # the widest ratio of the steepest and the flattest trade between two arms


@dataclass(frozen=True, slots=True)
class Prices:
    """The shadow price is `low` for a random share of the requests, `high` for the others."""

    high: float = 0.0
    low: float = 0.0
    share: float = 0.0

    @property
    def mean(self) -> float:
        """The mean price of the requests."""
        return self.high + self.share * (self.low - self.high)


FREE = Prices()


class Market(Protocol):
    """The expected quality and cost of requests like the recent ones, by shadow price."""

    @property
    def max_cost_usd(self) -> float:
        """The highest cost of any arm."""

    def quality(self, price: float) -> float:
        """Return the mean quality of the choices made at a price."""

    def cost(self, price: float) -> float:
        """Return the mean cost in dollars of the choices made at a price."""


class Arms:
    """The market of contexts x arms, where each context takes one arm."""

    def __init__(self, qualities: Matrix, costs: Matrix, least: Matrix | None = None) -> None:
        """`least`: the minimum price of each context, contexts x 1, where other budgets set one."""
        self._qualities = qualities
        self._costs = costs
        self._least = least
        self._rows = np.arange(0, qualities.size, max(1, qualities.shape[1]))

    @property
    def max_cost_usd(self) -> float:
        """The highest cost of any arm."""
        return float(self._costs.max(initial=0.0))

    def _taken(self, price: float) -> NDArray[np.intp]:
        """Return the flat table indices of the arms taken at a price."""
        asked = price if self._least is None else np.maximum(price, self._least)
        taken: NDArray[np.intp] = (self._qualities - asked * self._costs).argmax(axis=1)
        taken += self._rows
        return taken

    def _mean(self, table: Matrix, taken: NDArray[np.intp]) -> float:
        # `sum` itself takes a microsecond more, and this is called twenty times per solution.
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
    """Return the lowest prices at which the mean cost is at most `target_usd`.

    Returns 0 where the target does not bind, and the highest possible price where nothing is cheap
    enough. `near`: the previous solution; it only makes this one faster to find.
    """
    least, most = _ends(market.max_cost_usd)
    if market.cost(least) <= target_usd:
        return FREE
    if market.cost(most) > target_usd:
        return Prices(most, most, 0.0)
    low, high = _beside(least, most, lambda price: market.cost(price) <= target_usd, near)
    return _share(low, high, market.cost(low), market.cost(high), target_usd)


def price_for_quality(market: Market, target: float) -> Prices:
    """Return the highest prices at which the mean quality is at least `target`; 0 if none is."""
    least, most = _ends(market.max_cost_usd)
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


def _ends(max_cost_usd: float) -> tuple[float, float]:
    """Return prices below and above which no choice changes any more."""
    if max_cost_usd <= 0.0:
        return 1.0, 1.0
    return 1.0 / max_cost_usd / 1e6, 1.0 / max_cost_usd * RANGE


def _beside(
    low: float, high: float, holds: Callable[[float], bool], near: float = 0.0
) -> tuple[float, float]:
    """Return a price at which `holds` is false, and one a little above at which it is true.

    `holds` is true from some price on. If that is near the last one, two evaluations save five.
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
