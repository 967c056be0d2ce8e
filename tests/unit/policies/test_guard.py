"""A learned policy stays in the shadow until it is shown to be worth more, and no longer."""

from random import Random

import pytest

from tests.support.two_arms import CHEAP, DEAR, World
from tollway.policies.registry import build
from tollway.policies.types import Context, Notice, Objective

VALUE = Objective("value", value_per_correct_usd=0.005, baseline="dear")
"""A dear call costs 0.2 of an answer: for half of the requests it is worth nothing more."""


def world(guard: str = "shadow", objective: Objective = VALUE) -> World:
    return World(build("lagrangian", objective, options={}, seed=0, guard=guard))


def told(world: World) -> list[str]:
    return [notice.kind for notice in world.policy.drain() if isinstance(notice, Notice)]


def taken_over() -> World:
    """Return a world whose policy acts, as it does after some hundred to some thousand labels."""
    shadowed = world()
    for _ in range(100):
        shadowed.run(50)
        if shadowed.policy.figures()["guard_active"]:
            break
    assert told(shadowed) == ["guard_took_over"]
    return shadowed


def test_it_acts_by_the_baseline_and_logs_what_the_policy_wanted() -> None:
    shadowed = world()
    shadowed.run(200)
    easy = Context((0.0, 1.0))

    choice = shadowed.policy.choose(easy, shadowed.arms, Random(0))

    dear = choice.arms.index("dear")
    assert choice.pmf[dear] == pytest.approx(0.9 + 0.1 * choice.shadow[dear])
    assert sum(choice.pmf) == pytest.approx(1.0)
    assert sum(choice.shadow) == pytest.approx(1.0)
    assert choice.shadow[choice.arms.index("cheap")] > 0.5
    assert told(shadowed) == []


def test_a_clients_floor_above_the_fixed_arm_takes_precedence_over_the_guard() -> None:
    shadowed = world(objective=Objective("value", value_per_correct_usd=0.005, baseline="cheap"))
    shadowed.run(400)
    hard = Context((1.0, 0.0))

    plain = shadowed.policy.choose(hard, shadowed.arms, Random(0))
    strict = shadowed.policy.choose(hard, shadowed.arms, Random(0), floor=0.7)

    assert plain.guarded_by == "cheap"
    assert (strict.arm, strict.guarded_by) == ("dear", "")
    assert strict.pmf[strict.arms.index("cheap")] == 0.0


def test_it_takes_over_once_it_is_shown_to_be_worth_more() -> None:
    _, before = world().run(100)

    quality, after = (shadowed := taken_over()).run(1000)
    assert before > 0.9 * DEAR.cost_usd
    assert after < 0.7 * DEAR.cost_usd
    assert quality > 0.92
    assert shadowed.policy.figures()["guard_active"] == 1.0


@pytest.mark.integration
def test_it_never_takes_over_where_the_fixed_arm_is_the_best_for_all() -> None:
    for seed in range(5):
        shadowed = world(objective=Objective("value", value_per_correct_usd=0.005))
        shadowed.rng = Random(seed)
        shadowed.right = {(arm, hard): 0.9 for arm in ("cheap", "dear") for hard in (False, True)}
        shadowed.run(2500)
        assert told(shadowed) == []


def test_it_hands_back_when_it_is_no_longer_worth_more() -> None:
    shadowed = taken_over()
    inner = shadowed.policy._inner  # type: ignore[attr-defined]

    # From now on it takes the cheap arm for hard requests, and does not learn better.
    shadowed.right["cheap", False] = shadowed.right["cheap", True] = 0.2
    inner.learn = lambda *told: None
    shadowed.run(1000)

    assert told(shadowed) == ["guard_handed_back"]
    assert shadowed.policy.choose(Context((0.0, 1.0)), shadowed.arms, Random(0)).pmf[1] >= 0.89


def test_with_guard_observe_the_learned_policy_never_acts() -> None:
    observed = world("observe")

    _, spent = observed.run(2500)

    assert spent == pytest.approx(DEAR.cost_usd)
    assert told(observed) == []
    choice = observed.policy.choose(Context((0.0, 1.0)), observed.arms, Random(0))
    assert choice.pmf == (0.0, 1.0)
    assert choice.shadow != choice.pmf
    assert "guard_gain" not in observed.policy.figures()


def test_without_a_baseline_the_best_fixed_arm_acts() -> None:
    shadowed = world(objective=Objective("value", value_per_correct_usd=0.0005))
    shadowed.right = {(arm, hard): 0.9 for arm in ("cheap", "dear") for hard in (False, True)}

    shadowed.run(300)

    assert shadowed.run(500)[1] == pytest.approx(CHEAP.cost_usd, rel=0.2)


def test_a_saved_guard_goes_on_acting() -> None:
    shadowed, copy = taken_over(), world()

    copy.policy.load(shadowed.policy.save())

    restored = {**copy.policy.figures(), "explored_usd": shadowed.policy.figures()["explored_usd"]}
    assert restored == shadowed.policy.figures()  # exploration is counted from the start
    assert copy.policy.figures()["guard_active"] == 1.0
