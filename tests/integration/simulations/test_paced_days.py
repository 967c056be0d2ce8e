"""How a daily budget is spent: a burst, and a usual day; in virtual time, with seeds.

Each figure is of the production router in a simulated world; a failure prints its seed.
"""

from collections.abc import Iterator

import numpy as np
import pytest

from tollway.simulations.world import engine, grid, scenario_file

pytestmark = pytest.mark.integration

DAY_S = 86_400.0
WORLD = """
name = "pacing"
hours = {hours}
pacing_interval_s = {pacing_interval_s}
[workload]
requests_per_day = {per_day}
arrivals = "{arrivals}"
swing = 0.9
classes = {{ easy = 0.6, hard = 0.4 }}
unclear = 0
[labels]
share = 0.2
[[backends]]
name = "small"
price = {{ per_request_usd = 0.00002 }}
declared_accuracy = 0.75
quality = {{ easy = 0.93, hard = 0.48 }}
[[backends]]
name = "large"
price = {{ per_request_usd = 0.0008 }}
declared_accuracy = 0.95
quality = {{ easy = 0.96, hard = 0.93 }}
servers = 1000
[[budgets]]
name = "day"
limit_usd = 2.0
window = "day"
{pacing}
"""
SMALL, LARGE = 0, 1


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    with grid.quiet():
        yield


def run(pacing: str, seed: int, **world: object) -> engine.Run:
    line = f'pacing = "{pacing}"' if pacing else ""
    given = {"pacing_interval_s": 1, "arrivals": "poisson", **world}
    return engine.run(scenario_file.parse(WORLD.format(pacing=line, **given)), seed=seed)


def spent(found: engine.Run, from_s: float = 0.0, to_s: float = DAY_S) -> float:
    """Return what a day's requests have cost, as a share of the day's budget."""
    at = (found.requests.at_s >= from_s) & (found.requests.at_s < to_s)
    return float(found.cost_usd[at].sum()) / 2.0


def right(found: engine.Run, from_s: float = 0.0, to_s: float = DAY_S) -> float:
    """Return the share of all requests that got a right answer; one refused got none."""
    at = (found.requests.at_s >= from_s) & (found.requests.at_s < to_s)
    return float(np.mean(found.right[at]))


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_a_burst_of_twenty_seconds_may_spend_the_days_budget(seed: int) -> None:
    """2,500 requests in 20 s are all that comes, and $2 would pay for the large model for all."""
    burst = {"hours": 20 / 3600, "per_day": 2500 * 4320}
    even, usual = run("even", seed, **burst), run("", seed, **burst)
    assert spent(even) < 0.1  # 20 seconds taken for a day
    assert np.mean(even.arm == SMALL) > 0.9
    assert spent(usual) > 0.6
    assert np.mean(usual.arm == LARGE) > 0.6
    assert right(usual) > right(even) + 0.1


@pytest.mark.parametrize("seed", [1, 2])
def test_a_usual_day_is_spent_evenly_over_its_requests_once_a_day_is_known(seed: int) -> None:
    """12,000 requests a day, most of them by day; the budget pays for the large model for a fifth.

    On the first day the budget is a cap: it is gone before the evening. On the second it lasts.
    """
    world = {"hours": 48, "per_day": 12_000, "arrivals": "diurnal", "pacing_interval_s": 30}
    capped, usual = run("none", seed, **world), run("", seed, **world)
    second = DAY_S, 2 * DAY_S
    evening = 2 * DAY_S - 6 * 3600.0, 2 * DAY_S
    assert spent(usual) == pytest.approx(spent(capped), rel=0.02)  # the first day: a cap only
    assert 0.9 < spent(usual, *second) <= 1.0
    assert right(capped, *evening) == 0.0
    assert right(usual, *evening) > 0.75
    assert right(usual, *second) > right(capped, *second) + 0.5
    assert np.mean(usual.arm[usual.requests.at_s >= DAY_S] < 0) < 0.01  # next to nobody is refused
