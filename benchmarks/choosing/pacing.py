"""Checks in virtual time that spend over a window ends at the limit and is even.

An hour's window at one request per second, three arms, the gateway's own pacing
(`tollway.gateway.learning.pacing`, updated every second, as by the scheduler) and the production
policy. A hard limit refuses calls that no longer fit, as the ledger does.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from random import Random

import numpy as np

from choosing.figures import Effort, Row
from tollway.backends.money import NANO_PER_USD
from tollway.gateway.budgets.model import Budget, BudgetStatus, Scope
from tollway.gateway.learning.demand import Demand
from tollway.gateway.learning.pacing import allowances_usd
from tollway.policies.registry import build
from tollway.policies.types import Arm, Context, Objective

HOUR_S = 3600
COSTS = {"cheap": 1e-4, "middle": 5e-4, "dear": 5e-3}
EVEN = 300  # requests over which spend is compared with the allowance


@dataclass
class Scenario:
    """The changes over the hour, by second."""

    rate: Callable[[int], float] = lambda s: 1.0
    price: Callable[[int], float] = lambda s: 1.0  # of the expensive arm
    limits: dict[str, Callable[[int], float]] = field(
        default_factory=lambda: {"all": lambda s: 2.5}
    )
    tenants: float = 0.0  # the share of requests to which the tenant's budget also applies


def _two(s: int) -> float:
    return 0.4


SCENARIOS = {
    "steady": Scenario(),
    "ten times the requests, minutes 20 to 25": Scenario(
        rate=lambda s: 10.0 if 1200 <= s < 1500 else 1.0
    ),
    "a lull, minutes 20 to 40": Scenario(rate=lambda s: 0.05 if 1200 <= s < 2400 else 1.0),
    "the expensive arm at a tenth of its price, minutes 15 to 30": Scenario(
        price=lambda s: 0.1 if 900 <= s < 1800 else 1.0
    ),
    "the limit is halved at minute 30": Scenario(
        limits={"all": lambda s: 2.5 if s < 1800 else 1.8}
    ),
    "the limit is doubled at minute 30": Scenario(
        limits={"all": lambda s: 2.5 if s < 1800 else 5.0}
    ),
    "a third from a tenant with a tight budget": Scenario(
        limits={"all": lambda s: 2.5, "tenant": _two}, tenants=1 / 3
    ),
    "a third from a tenant with an ample budget": Scenario(
        limits={"all": lambda s: 2.5, "tenant": lambda s: 10.0}, tenants=1 / 3
    ),
}


def study(effort: Effort) -> Iterator[Row]:
    """Yield each scenario's spend over its budgets' limits at the window's end."""
    for name, scenario in SCENARIOS.items():
        effort.tell(f"pacing: {name}")
        hours = [_hour(scenario, seed) for seed in range(effort.seeds)]
        for budget in scenario.limits:
            spends = [hour.spend[budget] for hour in hours]
            yield {
                "scenario": name,
                "budget": budget,
                "spend": float(np.mean(spends)),
                "least_seed": min(spends),
                "most_seed": max(spends),
                "refused": float(np.mean([hour.refused for hour in hours])),
                "uneven": float(np.mean([hour.uneven for hour in hours])),
                "quality": float(np.mean([hour.quality for hour in hours])),
            }


@dataclass
class Hour:
    """The results of an hour: spend over the limit, refusals, and unevenness.

    uneven: the standard deviation of spend over allowance, between windows of `EVEN` requests.
    """

    spend: dict[str, float]
    refused: int
    uneven: float
    quality: float


def _hour(scenario: Scenario, seed: int) -> Hour:
    rng = Random(seed)
    policy = build("lagrangian", Objective(), options={}, seed=seed)
    spent = dict.fromkeys(scenario.limits, 0.0)
    demand, count, bound, refused = Demand(), 0, 0, 0
    ratio, qualities, costs, allowed = 1.0, [], [], []
    for s in range(HOUR_S):
        demand.update(count, count, {"tenant": bound}, float(s))
        limits = {name: limit(s) for name, limit in scenario.limits.items()}
        statuses = [_status(name, limits[name], spent[name]) for name in limits]
        told = allowances_usd(statuses, {"route": demand}, float(s))["route"]
        allowances = {scope: pace.allowance_usd for scope, pace in told.items()}
        for scope, allowance in allowances.items():
            policy.pace(allowance, scope)
        if scenario.price(s) != ratio:
            policy.reprice("dear", scenario.price(s) / ratio)
            ratio = scenario.price(s)
        for _ in range(_arrivals(scenario.rate(s), rng)):
            budgets = ["all"]
            if rng.random() < scenario.tenants:
                budgets.append("tenant")
            count += 1
            bound += len(budgets) - 1
            x = rng.random()
            context = Context((2.0 * x - 1.0,), scopes=tuple(budgets[1:]))
            room = min(limits[name] - spent[name] for name in budgets)
            arms = [
                Arm(name, usd * (ratio if name == "dear" else 1.0)) for name, usd in COSTS.items()
            ]
            arms = [arm for arm in arms if arm.cost_usd <= room]
            if not arms:
                refused += 1
                continue
            choice = policy.choose(context, arms, rng)
            cost = arms[choice.index].cost_usd
            for name in budgets:
                spent[name] += cost
            right = float(rng.random() < _right(choice.arm, x))
            policy.charge(choice, cost)
            policy.learn(context, choice, choice.arm, right)
            if policy.resolve_due():
                policy.resolve()
            qualities.append(right)
            costs.append(cost)
            allowed.append(allowances[""])
    limits = {name: limit(HOUR_S) for name, limit in scenario.limits.items()}
    parts = len(costs) // EVEN
    shares = [
        sum(costs[at * EVEN : (at + 1) * EVEN]) / sum(allowed[at * EVEN : (at + 1) * EVEN])
        for at in range(1, parts - 1)  # without the cold start and the last few dollars
    ]
    return Hour(
        {name: spent[name] / limits[name] for name in limits},
        refused,
        float(np.std(shares)),
        float(np.mean(qualities)),
    )


def _status(name: str, limit_usd: float, spent_usd: float) -> BudgetStatus:
    scope = Scope(tenant="acme") if name == "tenant" else Scope()
    limit_nano, spent_nano = int(limit_usd * NANO_PER_USD), int(spent_usd * NANO_PER_USD)
    return BudgetStatus(
        budget=Budget(name, scope, limit_nano, window="hour", pacing="even"),
        window_start_s=0,
        resets_at_s=HOUR_S,
        limit_nano=limit_nano,
        spent_nano=spent_nano,
        held_nano=0,
        free_nano=max(0, limit_nano - spent_nano),
        overdraft_nano=max(0, spent_nano - limit_nano),
        unaccounted_nano=0,
    )


def _arrivals(rate: float, rng: Random) -> int:
    """Return a Poisson number."""
    count, left = 0, rng.expovariate(1.0)
    while left < rate:
        count += 1
        left += rng.expovariate(1.0)
    return count


def _right(arm: str, x: float) -> float:
    """Return an arm's accuracy: the harder the request (x), the more the arms differ."""
    return {"cheap": 0.95 - 0.5 * x, "middle": 0.95 - 0.25 * x, "dear": 0.96 - 0.05 * x}[arm]
