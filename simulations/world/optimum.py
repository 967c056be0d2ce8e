"""The best quality attainable for a cost: by the best fixed mix, and by knowing the truth.

An optimum is the relaxed multiple-choice knapsack: at a shadow price each request takes the arm
with the most quality less price times cost, and the price is the one at which spend equals the
allowance. Not answering is an arm too, with quality 0 and cost 0.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
STEPS = 60  # bisections of the price: down to 1e-18 of its range


@dataclass(frozen=True, slots=True)
class Optimum:
    """The best mean quality, its mean cost, and its shadow price (quality per dollar)."""

    quality: float
    cost_usd: float
    price: float


def at(quality: Floats, cost_usd: Floats, price: float) -> tuple[float, float]:
    """Return mean (quality, cost) of the best arms at a shadow price; -inf excludes an arm."""
    score = quality - price * cost_usd
    taken = score.argmax(axis=1)
    rows = np.arange(len(score))
    return float(quality[rows, taken].mean()), float(cost_usd[rows, taken].mean())


def for_budget(quality: Floats, cost_usd: Floats, mean_usd: float) -> Optimum:
    """Return the best for a mean cost."""
    quality, cost_usd = _may_refuse(quality, cost_usd)
    free = at(quality, cost_usd, 0.0)
    if free[1] <= mean_usd:
        return Optimum(*free, 0.0)
    low, high = _bracket(lambda price: at(quality, cost_usd, price)[1] <= mean_usd)
    (q_low, c_low), (q_high, c_high) = at(quality, cost_usd, low), at(quality, cost_usd, high)
    share = 0.0 if c_low == c_high else (mean_usd - c_high) / (c_low - c_high)
    return Optimum(q_high + share * (q_low - q_high), mean_usd if share else c_high, high)


def for_floor(quality: Floats, cost_usd: Floats, floor: float) -> Optimum:
    """Return the cheapest optimum of a mean quality; the best quality if none reaches it."""
    best = at(quality, cost_usd, 0.0)
    if best[0] <= floor:
        return Optimum(*best, 0.0)
    low, high = _bracket(lambda price: at(quality, cost_usd, price)[0] < floor)
    (q_low, c_low), (q_high, c_high) = at(quality, cost_usd, low), at(quality, cost_usd, high)
    share = 0.0 if q_low == q_high else (floor - q_high) / (q_low - q_high)
    return Optimum(floor, c_high + share * (c_low - c_high), low)


def _may_refuse(quality: Floats, cost_usd: Floats) -> tuple[Floats, Floats]:
    nothing = np.zeros((len(quality), 1))
    return np.hstack([nothing, quality]), np.hstack([nothing, cost_usd])


def _bracket(is_high: object) -> tuple[float, float]:
    low, high = 0.0, 1.0
    while not is_high(high) and high < 1e15:  # type: ignore[operator]
        high *= 4.0
    for _ in range(STEPS):
        middle = (low + high) / 2
        low, high = (low, middle) if is_high(middle) else (middle, high)  # type: ignore[operator]
    return low, high


def hull(quality: Floats, cost_usd: Floats, mean_usd: float) -> float:
    """Return the best mean quality of a fixed mix of arms, or of no answer, for a mean cost.

    `quality` and `cost_usd` are the arms' means.
    """
    q, c = np.append(quality, 0.0), np.append(cost_usd, 0.0)
    best = float(q[c <= mean_usd].max(initial=0.0))
    for low in range(len(q)):
        for high in range(len(q)):
            if c[low] <= mean_usd < c[high]:
                share = (mean_usd - c[low]) / (c[high] - c[low])
                best = max(best, float((1 - share) * q[low] + share * q[high]))
    return best


def by_group(values: Floats, group: NDArray[np.int64], count: int) -> Floats:
    """Return the mean of each row's group, per column."""
    sizes = np.maximum(np.bincount(group, minlength=count), 1)
    means = np.stack(
        [np.bincount(group, column, minlength=count) / sizes for column in values.T], axis=1
    )
    averages: Floats = means[group]
    return averages
