"""The contract of `Policy`, run over every implementation."""

import math
from collections.abc import Callable
from random import Random

import pytest

from tollway.policies.registry import build
from tollway.policies.types import Arm, Context, Objective, Policy

OPTIONS: dict[str, dict[str, object]] = {
    "lagrangian": {},
    "lagrangian/vowpal": {"head": "vowpal"},
    "lagrangian//shadow": {},
    "lagrangian//observe": {},
    "lagrangian///embedded": {},
    "cascade": {},
    "fixed": {"arm": "b"},
    "weighted": {"weights": {"a": 90, "b": 10}},
    "cheapest": {},
    "most_accurate": {},
    "epsilon_greedy": {},
    "cb_explore_adf": {},
}
ARMS = (Arm("a", 1e-5), Arm("b", 1e-4), Arm("c", 1e-3, 0.9))
TRUTH = {"a": 0.5, "b": 0.7, "c": 0.95}
Make = Callable[[], Policy]


@pytest.fixture(params=OPTIONS)
def make(request: pytest.FixtureRequest) -> Make:
    name = request.param
    return lambda: built(name, 3)


def built(name: str, seed: int) -> Policy:
    """Build `policy/head/guard/embedded`."""
    policy, _, guard, embedded = (*name.split("/"), "", "", "")[:4]
    return build(
        policy,
        Objective(),
        options=OPTIONS[name],
        seed=seed,
        guard=guard or "off",
        embedded=bool(embedded),
    )


def context(rng: Random) -> Context:
    return Context(tuple(rng.uniform(-1, 1) for _ in range(4)), ((rng.randrange(1 << 18), 1.0),))


def drive(policy: Policy, count: int, seed: int = 0) -> list[tuple[str, float]]:
    rng, world = Random(seed), Random(seed + 1)
    taken = []
    policy.pace(2e-4)
    for _ in range(count):
        seen = context(world)
        choice = policy.choose(seen, ARMS, rng)
        taken.append((choice.arm, choice.propensity))
        policy.charge(choice, ARMS[choice.index].cost_usd)
        policy.learn(seen, choice, choice.arm, float(world.random() < TRUTH[choice.arm]))
        if policy.resolve_due():
            policy.resolve()
    return taken


def test_the_probabilities_logged_are_a_distribution_over_the_arms_offered(make: Make) -> None:
    policy, rng = make(), Random(0)
    drive(policy, 50)

    for arms in (ARMS, ARMS[:2], ARMS[1:], ARMS[:1]):
        choice = policy.choose(context(rng), arms, rng)
        assert choice.arms == tuple(arm.name for arm in arms)
        assert sum(choice.pmf) == pytest.approx(1.0)
        assert min(choice.pmf) >= 0.0
        assert choice.propensity > 0.0
        assert len(choice.pmf) == len(choice.quality_hat) == len(choice.cost_hat_usd) == len(arms)
        assert choice.reason


def test_it_is_deterministic_under_a_seed(make: Make) -> None:
    assert drive(make(), 150) == drive(make(), 150)


def test_a_saved_state_goes_on_as_the_original(make: Make) -> None:
    policy, copy = make(), make()
    drive(policy, 150)
    copy.load(policy.save())

    assert copy.version == policy.version
    seen = context(Random(1))
    one, other = (both.choose(seen, ARMS, Random(2)) for both in (policy, copy))
    assert other.quality_hat == one.quality_hat
    assert other.pmf == pytest.approx(one.pmf)


def test_a_damaged_state_is_refused_and_changes_nothing_in_the_policy(make: Make) -> None:
    policy = make()
    drive(policy, 40)
    state, rng = policy.save(), Random(4)

    for _ in range(40):
        at = rng.randrange(len(state))
        flipped = state[:at] + bytes([state[at] ^ 1 << rng.randrange(8)]) + state[at + 1 :]
        for blob in (state[:at], flipped):
            with pytest.raises(ValueError, match="state"):
                policy.load(blob)
    assert policy.save() == state


def test_a_state_of_another_policy_is_refused(make: Make) -> None:
    stranger = build("weighted", Objective(), options={"weights": {"a": 1}}, seed=0).save()
    mine = make()
    if mine.save() != stranger:
        with pytest.raises(ValueError, match="not of"):
            mine.load(stranger)


def test_arms_come_go_and_return_without_a_restart(make: Make) -> None:
    policy, rng = make(), Random(5)
    drive(policy, 60)

    for arms in (ARMS[1:], (*ARMS[:2], Arm("new", 5e-4)), ARMS):
        for _ in range(40):
            seen = context(rng)
            choice = policy.choose(seen, arms, rng)
            assert choice.arm in {arm.name for arm in arms}
            policy.learn(seen, choice, choice.arm, 1.0)
            policy.charge(choice, 1e-4)
            if policy.resolve_due():
                policy.resolve()


def test_feedback_comes_late_and_out_of_order(make: Make) -> None:
    policy, rng = make(), Random(6)
    pending = []
    for _ in range(60):
        seen = context(rng)
        pending.append((seen, policy.choose(seen, ARMS, rng)))
    rng.shuffle(pending)

    for seen, choice in pending:
        policy.learn(seen, choice, choice.arm, 0.5)

    assert sum(policy.choose(context(rng), ARMS, rng).pmf) == pytest.approx(1.0)


LEARNS = [name for name in OPTIONS if name not in ("fixed", "weighted", "cheapest")]


@pytest.mark.parametrize("name", LEARNS)
@pytest.mark.parametrize("quality", [math.nan, math.inf, -0.1, 1.1])
def test_a_quality_out_of_range_is_refused(name: str, quality: float) -> None:
    policy = built(name, 0)
    seen = context(Random(0))
    choice = policy.choose(seen, ARMS, Random(0))

    with pytest.raises(ValueError, match="quality"):
        policy.learn(seen, choice, choice.arm, quality)


@pytest.mark.parametrize("name", ["lagrangian", "lagrangian/vowpal", "cascade", "epsilon_greedy"])
def test_a_cost_that_is_not_finite_is_refused(name: str) -> None:
    policy = built(name, 0)
    policy.pace(1e-3)
    seen = context(Random(0))

    for cost in (math.nan, math.inf, -1.0):
        with pytest.raises(ValueError, match="cost"):
            policy.choose(seen, (Arm("a", cost), Arm("b", 1.0)), Random(0))
    choice = policy.choose(seen, ARMS, Random(0))
    for cost in (math.nan, math.inf, -1.0):
        with pytest.raises(ValueError, match="cost"):
            policy.charge(choice, cost)
