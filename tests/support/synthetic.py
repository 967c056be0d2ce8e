"""Logs of which the truth is known: contexts, arms with known qualities, a logger that learns."""

from dataclasses import dataclass

import numpy as np

from tollway.policies.types import Context
from tollway.simulations.replay.logs import Floats, Log

ARMS = ("cheap", "fair", "great")
COST = np.array([0.00001, 0.0001, 0.001])
LEVEL = np.array([0.6, 0.85, 0.95])  # each arm's mean quality
SLOPE = np.array([0.3, 0.1, 0.0])  # how much of it hangs on the context, which is in [-1, 1]


@dataclass(frozen=True, slots=True)
class World:
    """A log, the qualities of all its arms (n x K, expected), and the contexts' numbers."""

    log: Log
    expected: Floats
    x: Floats


def world(
    count: int, seed: int, *, p_min: float = 0.05, learns: bool = True, told: float = 1.0
) -> World:
    """Return a log of `count` decisions by a logger that goes for the best mean so far."""
    rng = np.random.default_rng(seed)
    x = rng.uniform(-1.0, 1.0, count)
    expected = LEVEL + SLOPE * x[:, None]
    quality = (rng.random((count, 3)) < expected).astype(float)
    pmf, arm = np.empty((count, 3)), np.empty(count, int)
    wins, plays = np.ones(3), np.ones(3) * 2.0
    for row in range(count):
        best = int((wins / plays).argmax()) if learns else 1
        pmf[row] = p_min
        pmf[row, best] = 1.0 - 2.0 * p_min
        arm[row] = rng.choice(3, p=pmf[row])
        wins[arm[row]] += quality[row, arm[row]]
        plays[arm[row]] += 1.0
    rows = np.arange(count)
    seen = np.where(rng.random(count) < told, quality[rows, arm], np.nan)
    time = rows * 1.0
    cost = COST[arm]
    log = Log(
        arms=ARMS,
        time=time,
        arm=arm,
        pmf=pmf,
        offered=np.ones((count, 3), bool),
        propensity=pmf[rows, arm],
        quality=seen,
        cost_usd=cost,
        latency_s=np.full(count, 0.01),
        cost_hat_usd=np.tile(COST, (count, 1)),
        taught_s=time + 0.5,
        final_quality=seen,
        total_usd=cost,
        keeping=np.ones(count),
        features=tuple(Context((float(value),)) for value in x),
    )
    return World(log, expected, x)
