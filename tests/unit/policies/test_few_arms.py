from random import Random

import pytest

from tollway.policies import lagrangian, registry
from tollway.policies.types import Arm, Choice, Context, Objective

NAMES = ("a", "b", "c", "d", "e", "f", "g", "h", "i", "j")
FLOOR = Objective("min_cost", floor=0.8, baseline="c")
OPTIONS = ({}, {"p_min": 0.02}, {"short_list": 3.0}, {"explore_share": 0.001})
WORTH = Objective("value", value_per_correct_usd=0.01)


def played(objective: Objective, options: dict[str, float], seed: int, arms: int) -> list[Choice]:
    """Return the choices of a policy that is paced, learns, and has arms come and go."""
    policy = registry.build("lagrangian", objective, options=options, seed=1)
    world, rng = Random(seed), Random(seed)
    choices = []
    for number in range(150):
        if number % 30 == 15:
            policy.pace(world.choice((None, 1e-4, 3e-5)))
            policy.pace(world.choice((None, 2e-5)), "team")
        dense = tuple([world.uniform(-1.0, 1.0) for _ in range(3)])
        scopes = ("team",) if world.random() < 0.3 else ()
        offered = [
            Arm(name, 10.0 ** world.uniform(-6.0, -3.0))
            for name in NAMES[:arms]
            if world.random() < 0.9
        ] or [Arm("a", 1e-5)]
        floor = 0.7 if world.random() < 0.05 else None
        context = Context(dense, scopes=scopes)
        choice = policy.choose(context, offered, rng, floor)
        choices.append(choice)
        policy.charge(choice, world.uniform(0.5, 2.0) * choice.cost_hat_usd[choice.index])
        if world.random() < 0.5:
            quality = float(world.random() < 0.5 + 0.1 * NAMES.index(choice.arm) % 0.5)
            policy.learn(context, choice, choice.arm, quality)
        if policy.resolve_due():
            policy.resolve()
    return choices


@pytest.mark.parametrize("objective", [Objective(), WORTH, FLOOR], ids=lambda one: one.kind)
@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.parametrize("arms", [1, 3, 8])
def test_few_arms_are_drawn_as_many_are_to_the_last_bit(
    objective: Objective, options: dict[str, float], arms: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    quick = played(objective, options, 7 + arms, arms)
    monkeypatch.setattr(lagrangian, "FEW", 0)
    assert quick == played(objective, options, 7 + arms, arms)


def test_few_arms_are_drawn_in_one_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: object) -> Choice:
        raise AssertionError("the general form was used")

    policy = registry.build("lagrangian", Objective(), options={}, seed=1)
    offered = [Arm("a", 1e-5), Arm("b", 1e-4)]
    policy.choose(Context((0.5,)), offered, Random(1))  # solves the first price
    monkeypatch.setattr(lagrangian.Lagrangian, "_draw", refused)
    policy.choose(Context((0.5,)), offered, Random(1))
