"""Recommended replicas on a simulated day with a spike: utilization, changes and replica-hours.

    python benchmarks/scaling.py

Calls arrive at random with a rate that follows the hour of the day; the third day has a spike to
three times its rate. A replica serves `LEAD_S` after it is first recommended. "as wanted" does what
the highest term says at each tick; "fixed" always runs what the peak needs.
"""

import math
import sys
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from tollway.gateway.scaling.advisor import BackendScaling, ScalingPlan
from tollway.gateway.scaling.calendar import Bounds, Calendar
from tollway.gateway.scaling.load_meter import Totals
from tollway.gateway.scaling.recommendation import Target, replicas_for

TICK_S, DAY_S, DAYS = 10.0, 86_400.0, 3
SERVICE_S, LEAD_S = 0.5, 120.0
SPIKE_S = (2 * DAY_S + 10_000.0, 2 * DAY_S + 11_200.0)
TARGET = Target(
    usual=Bounds(1, 100),
    places=4,
    utilization=0.7,
    wait_s=None,
    lead_s=LEAD_S,
    up_s=30.0,
    down_s=300.0,
)


@dataclass(frozen=True, slots=True)
class Row:
    """A tick: the replicas recommended, and the utilization of those that serve."""

    time_s: float
    replicas: int
    utilization: float


def rate_per_s(now_s: float) -> float:
    """Return 5 to 100 calls per second by the hour of the day; three times as many in the spike."""
    usual = 52.5 - 47.5 * math.cos(2 * math.pi * now_s / DAY_S)
    return usual * 3.0 if SPIKE_S[0] <= now_s < SPIKE_S[1] else usual


def last_day(target: Target, seed: int = 1) -> list[Row]:
    """Return the ticks of the third day."""
    rng = np.random.default_rng(seed)
    one, now = BackendScaling(ScalingPlan(target, Calendar())), Totals()
    recent: deque[int] = deque(maxlen=round(LEAD_S / TICK_S) + 1)
    rows = []
    for tick in range(round(DAYS * DAY_S / TICK_S)):
        now_s = tick * TICK_S
        calls = rng.poisson(rate_per_s(now_s) * TICK_S)
        now = Totals(now.calls + calls, now.seconds + rng.gamma(calls, SERVICE_S))
        one.observe(now, now_s)
        recent.append(one.current.replicas if one.current else target.usual.least)
        busy = rate_per_s(now_s) * SERVICE_S / (min(recent) * target.places)
        rows.append(Row(now_s, recent[-1], busy))
    return [row for row in rows if row.time_s >= (DAYS - 1) * DAY_S]


def changes(rows: Sequence[Row]) -> list[int]:
    """Return the changes of the recommended replicas, in order."""
    return [b.replicas - a.replicas for a, b in pairwise(rows) if a.replicas != b.replicas]


def reversals(rows: Sequence[Row]) -> int:
    """Return how often a change undoes the direction of the one before."""
    return sum(a * b < 0 for a, b in pairwise(changes(rows)))


def outside_spike(rows: Sequence[Row]) -> list[Row]:
    """Return the ticks but for the first four minutes of the spike, which nothing announces."""
    return [row for row in rows if not SPIKE_S[0] <= row.time_s < SPIKE_S[0] + 240]


def hours(rows: Sequence[Row]) -> float:
    """Return the replica-hours."""
    return sum(row.replicas for row in rows) * TICK_S / 3600


def _fixed() -> list[Row]:
    times = [(DAYS - 1) * DAY_S + tick * TICK_S for tick in range(round(DAY_S / TICK_S))]
    loads = [rate_per_s(now_s) * SERVICE_S for now_s in times]
    count = replicas_for(TARGET, max(loads), SERVICE_S)
    return [
        Row(now_s, count, load / count / TARGET.places)
        for now_s, load in zip(times, loads, strict=True)
    ]


def main() -> None:
    """Print a table."""
    shown = {
        "damped": last_day(TARGET),
        "as wanted": last_day(replace(TARGET, up_s=0.0, down_s=0.0)),
        "fixed": _fixed(),
    }
    print(f"{'':10} {'changes':>8} {'reversals':>10} {'hours':>7} {'in target':>10} {'highest':>8}")
    for name, rows in shown.items():
        busy = [row.utilization for row in outside_spike(rows)]
        within = sum(share <= TARGET.utilization for share in busy) / len(busy)
        print(
            f"{name:10} {len(changes(rows)):8} {reversals(rows):10} {hours(rows):7.0f} "
            f"{within:10.1%} {max(busy):8.0%}"
        )


if __name__ == "__main__":
    main()
