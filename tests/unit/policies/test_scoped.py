"""Shadow prices of budgets that apply to only some of a route's requests."""

from random import Random

import numpy as np
import pytest

from tollway.policies.pacing.multiplier import Arms, Prices
from tollway.policies.pacing.pacer import Pacer
from tollway.policies.pacing.scoped import AT_ONCE, EVERY, ScopedPacers
from tollway.policies.registry import build
from tollway.policies.types import Arm, Context, Objective

ARMS = (Arm("cheap", 1e-4), Arm("dear", 1e-3))
RIGHT = {"cheap": 0.6, "dear": 0.95}
NOTHING = Arms(np.array([[1.0]]), np.array([[0.0]]))  # a market where all is free
BUYS_TO_FIVE = Arms(np.array([[0.0, 5.0]]), np.array([[0.0, 1.0]]))  # ... a dollar, below 5


def spend(policy: object, scopes: tuple[str, ...], count: int, seed: int = 0) -> float:
    """Return the mean cost of `count` requests; the scopes apply to every other one."""
    rng, usd = Random(seed), 0.0
    for at in range(2 * count):
        bound = at % 2 == 0
        context = Context((rng.random(),), scopes=scopes if bound else ())
        choice = policy.choose(context, ARMS, rng)  # type: ignore[attr-defined]
        cost = ARMS[choice.index].cost_usd
        policy.charge(choice, cost)  # type: ignore[attr-defined]
        right = float(rng.random() < RIGHT[choice.arm])
        policy.learn(context, choice, choice.arm, right)  # type: ignore[attr-defined]
        if policy.resolve_due():  # type: ignore[attr-defined]
            policy.resolve()  # type: ignore[attr-defined]
        usd += cost * bound
    return usd / count


def test_a_tenant_and_its_route_are_paced_each_to_its_own_budget() -> None:
    policy = build("lagrangian", Objective(), options={}, seed=0)
    policy.pace(6e-4)
    policy.pace(3e-4, "acme")
    assert spend(policy, ("acme",), 1500) == pytest.approx(3e-4, rel=0.05)
    assert policy.figures()["allowance_usd"] == 6e-4


def test_the_highest_shadow_price_of_several_scopes_counts() -> None:
    policy = build("lagrangian", Objective(), options={}, seed=0)
    policy.pace(6e-4)
    policy.pace(3e-4, "acme")
    policy.pace(2e-4, "staging")
    assert spend(policy, ("acme", "staging"), 1500) == pytest.approx(2e-4, rel=0.05)


def test_of_two_prices_at_one_step_that_of_fewer_requests_at_the_low_price_counts() -> None:
    """The ends of a step differ by chance; the share is what tells the budgets apart."""
    scopes = ScopedPacers(Pacer)
    scopes.pace("acme", 1.0)
    scopes._scopes["acme"].prices = Prices(396.0, 327.0, 0.1)

    assert scopes.max_price(Prices(400.0, 330.0, 0.8), ("acme",)).share == 0.1
    assert scopes.max_price(Prices(500.0, 410.0, 0.8), ("acme",)).share == 0.8


def test_money_that_a_scope_does_not_use_is_for_the_others() -> None:
    policy = build("lagrangian", Objective(), options={}, seed=0)
    policy.pace(6e-4)
    policy.pace(2e-4, "acme")
    rng, usd = Random(3), []
    for at in range(4000):
        context = Context((rng.random(),), scopes=("acme",) if at % 2 else ())
        choice = policy.choose(context, ARMS, rng)
        usd.append(ARMS[choice.index].cost_usd)
        policy.charge(choice, usd[-1])
        policy.learn(context, choice, choice.arm, float(rng.random() < RIGHT[choice.arm]))
        if policy.resolve_due():
            policy.resolve()
    assert sum(usd) / len(usd) == pytest.approx(6e-4, rel=0.05)


def test_a_scope_that_is_gone_paces_nothing() -> None:
    scoped = ScopedPacers(Pacer)
    scoped.pace("acme", 1e-4)
    scoped.solve(BUYS_TO_FIVE)
    assert scoped.max_price(Prices(), ("acme",)).high > 0.0
    scoped.pace("acme", None)
    assert scoped.max_price(Prices(), ("acme",)) == Prices()
    assert not scoped.due


def test_many_scopes_are_solved_a_few_at_a_time_and_none_is_forgotten() -> None:
    scoped = ScopedPacers(Pacer)
    for at in range(3 * AT_ONCE):
        scoped.pace(str(at), 1e-4)
    rounds = 0
    while scoped.due:
        scoped.solve(BUYS_TO_FIVE)
        rounds += 1
    assert rounds == 3
    assert all(scoped.max_price(Prices(), (str(at),)).high > 0.0 for at in range(3 * AT_ONCE))


def test_a_scope_is_due_by_its_own_requests() -> None:
    scoped = ScopedPacers(Pacer)
    scoped.pace("acme", 1e-4)
    scoped.pace("other", 1e-4)
    scoped.solve(NOTHING)
    for _ in range(EVERY):
        assert not scoped.due
        scoped.spend(("acme", "unknown"), 1e-4)
    assert scoped.due


def test_a_saved_policy_goes_on_pacing_its_scopes() -> None:
    policy = build("lagrangian", Objective(), options={}, seed=0)
    policy.pace(6e-4)
    policy.pace(3e-4, "acme")
    spend(policy, ("acme",), 300)
    copy = build("lagrangian", Objective(), options={}, seed=1)
    copy.load(policy.save())
    assert spend(copy, ("acme",), 1000, seed=5) == pytest.approx(3e-4, rel=0.06)
