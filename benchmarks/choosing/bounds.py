"""Computes the best quality at a mean cost: by fixed mixes, by group, and with full knowledge.

hull:        the best mix of fixed arms, which any router must beat.
group:       the optimum that knows only each request's group (multiple-choice knapsack, in-sample).
clairvoyant: the optimum that knows every outcome.
"""

import numpy as np


def hull(quality: np.ndarray, cost: np.ndarray, budget: float) -> float:
    """Return the mean quality of the best mix of arms with a mean cost of at most `budget`."""
    best = max(
        (q for q, c in zip(quality, cost, strict=True) if c <= budget * (1 + 1e-9)), default=np.nan
    )
    for q_low, c_low in zip(quality, cost, strict=True):
        for q_high, c_high in zip(quality, cost, strict=True):
            if c_low <= budget < c_high:
                share = (budget - c_low) / (c_high - c_low)
                best = np.nanmax([best, (1 - share) * q_low + share * q_high])
    return float(best)


def best_fixed(quality: np.ndarray, cost: np.ndarray, budget: float) -> float:
    """Return the mean quality of the best single arm with a mean cost of at most `budget`."""
    # A budget equal to an arm's own mean must afford it, in spite of rounding.
    fitting = quality[cost <= budget * (1 + 1e-9)]
    return float(fitting.max(initial=-np.inf)) if len(fitting) else float("nan")


def hull_cost(quality: np.ndarray, cost: np.ndarray, floor: float) -> float:
    """Return the lowest mean cost of a mix with a mean quality of at least `floor`; nan if none."""
    best = min((c for q, c in zip(quality, cost, strict=True) if q >= floor), default=np.nan)
    for q_low, c_low in zip(quality, cost, strict=True):
        for q_high, c_high in zip(quality, cost, strict=True):
            if q_low < floor <= q_high and c_low < c_high:
                share = (floor - q_low) / (q_high - q_low)
                best = np.nanmin([best, (1 - share) * c_low + share * c_high])
    return float(best)


def optimum(
    quality: np.ndarray, cost: np.ndarray, budget: float, weights: np.ndarray | None = None
) -> float:
    """Return the value of the relaxed multiple-choice knapsack, by bisection on its multiplier."""
    count = len(quality)
    shares = np.full(count, 1.0 / count) if weights is None else weights
    rows = np.arange(count)

    def at(price: float) -> tuple[float, float]:
        taken = (quality - price * cost).argmax(axis=1)
        return float(shares @ quality[rows, taken]), float(shares @ cost[rows, taken])

    free = at(1e-9)
    if free[1] <= budget:
        return free[0]
    low, high = 0.0, 1e9
    for _ in range(200):
        middle = (low + high) / 2
        low, high = (middle, high) if at(middle)[1] > budget else (low, middle)
    (q_low, c_low), (q_high, c_high) = at(low), at(high)
    if c_low == c_high:
        return q_high
    return q_high + (budget - c_high) / (c_low - c_high) * (q_low - q_high)


def group(quality: np.ndarray, cost: np.ndarray, groups: np.ndarray, budget: float) -> float:
    """Return the optimum that knows only the group."""
    names, index = np.unique(groups, return_inverse=True)
    weights = np.bincount(index) / len(groups)
    means = [
        np.stack([np.bincount(index, column) for column in table.T], axis=1)
        / np.bincount(index)[:, None]
        for table in (quality, cost)
    ]
    assert len(names) == len(weights)
    return optimum(means[0], means[1], budget, weights)
