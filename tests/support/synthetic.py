"""Synthetic logs with known truth: contexts, qualities of arms, a policy that learns."""

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl

from tollway.gateway.storage.journal import Journal, segments
from tollway.gateway.storage.journal_format import Row
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
    """Return a log of `count` decisions by a policy that draws the best mean so far."""
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


def rows_of(found: World, row: int, decision: str) -> list[Row]:
    """Return the journal rows of one decision of a world."""
    log = found.log
    head = {"id": decision, "time": 1e9 + row, "route": "digits", "tenant": "a", "tags": {}}
    arm = ARMS[log.arm[row]]
    draw = {
        "stage": 0,
        "arm": arm,
        "propensity": float(log.propensity[row]),
        "arms": ARMS,
        "pmf": log.pmf[row].tolist(),
        "cost_hat_usd": COST.tolist(),
        "redrawn": False,
        "dense": [float(found.x[row])],
        "sparse": [[7, 1.0]],
    }
    asked = {"backend": arm, "fallback": False, "status": 200, "error": "", "latency_s": 0.02}
    cost = round(float(log.cost_usd[row]) * 1e9)
    return [
        {"kind": "decision", **head, **draw},
        {"kind": "attempt", **head, "attempt": 0, **asked, "cost_nano": cost},
    ]


def feedback(found: World, row: int, decision: str) -> Row:
    """Return the feedback row of one decision."""
    known = {ARMS[found.log.arm[row]]: float(found.log.quality[row])}
    told = {"kind": "feedback", "id": decision, "time": 1e9 + row + 0.5, "route": "digits"}
    return {**told, "tenant": "a", "known": known}


def write_journal(folder: Path, found: World) -> list[str]:
    """Write a world as a journal of two segments and return its ids.

    Feedback comes 100 decisions later; that of the last 100 stands in the second segment.
    """
    first, count = Journal(folder), len(found.log)
    ids = []
    for row in range(count):
        ids.append(first.new_id())
        first.append(*rows_of(found, row, ids[-1]))
        if row >= 100:
            first.append(feedback(found, row - 100, ids[row - 100]))
    first.close()
    # Segments are told apart by their times of change, which a kernel counts in milliseconds.
    (earlier,) = segments(folder)
    os.utime(earlier, (0.0, earlier.stat().st_mtime - 1.0))
    second = Journal(folder)
    for row in range(count - 100, count):
        second.append(feedback(found, row, ids[row]))
    second.close()
    return ids


def as_frame(found: World) -> pl.DataFrame:
    """Return the log of a world as a table with one row per decision."""
    log = found.log
    return pl.DataFrame(
        {
            "model": [ARMS[arm] for arm in log.arm],
            "p": log.propensity,
            "reward": log.quality,
            "usd": log.cost_usd,
            "x": found.x,
        }
    )
