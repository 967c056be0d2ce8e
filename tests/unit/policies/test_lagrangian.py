"""The policy in small worlds whose optimum is known."""

import pytest

from tests.support.two_arms import CHEAP, DEAR, World
from tollway.policies.registry import build
from tollway.policies.types import Arm, Context, Objective, Policy


def policy(objective: Objective | None = None, **options: object) -> Policy:
    return build("lagrangian", objective or Objective(), options=options, seed=0)


@pytest.mark.parametrize("head", ["vowpal", "ridge"])
def test_the_dear_arm_gets_the_hard_half_where_the_budget_pays_for_half(head: str) -> None:
    world = World(policy(head=head))
    world.policy.pace(5.5e-4)
    world.run(500)

    quality, spent = world.run(2000)

    assert spent == pytest.approx(5.5e-4, rel=0.05)
    assert quality > 0.92  # a mix that ignores the request has .79 at this spend


def test_spend_follows_the_allowance_up_and_down_at_once() -> None:
    world = World(policy())
    world.policy.pace(5.5e-4)
    world.run(800)

    for allowance in (3e-4, 8e-4, 2e-4):
        world.policy.pace(allowance)
        assert world.run(600)[1] == pytest.approx(min(allowance, 5.6e-4), rel=0.08)


def test_saved_credit_does_not_allow_a_burst_of_overspending() -> None:
    world = World(policy())
    world.policy.pace(9e-4)  # more than can be spent well
    world.run(800)

    world.policy.pace(3e-4)

    world.run(300)
    assert world.run(500)[1] <= 3e-4 * 1.05


def test_a_price_change_acts_on_the_next_request() -> None:
    world = World(policy())
    world.policy.pace(2e-4)
    world.run(800)

    world.policy.reprice("dear", 0.1)
    world.arms = (CHEAP, Arm("dear", 1e-4))

    quality, _ = world.run(300)
    assert quality > 0.92


def test_a_floor_is_held_at_less_than_the_baseline_costs() -> None:
    objective = Objective("min_cost", floor=0.9, baseline="dear")
    world = World(policy(objective))
    world.run(500)

    quality, spent = world.run(3000)

    assert quality >= 0.895
    assert spent < 0.75 * DEAR.cost_usd


def test_a_floor_out_of_reach_gets_the_best_there_is() -> None:
    world = World(policy(Objective("min_cost", floor=0.99)))
    world.run(500)

    assert world.run(1000)[0] > 0.92


def test_value_buys_what_is_worth_its_price_and_no_more() -> None:
    rich = World(policy(Objective("value", value_per_correct_usd=0.1)))
    poor = World(policy(Objective("value", value_per_correct_usd=0.0001)))
    for world in (rich, poor):
        world.run(500)

    assert rich.run(1000)[0] > 0.92
    assert poor.run(1000)[1] < 1.5e-4


def test_a_stricter_floor_of_one_request_is_met_or_said_to_be_unmet() -> None:
    world = World(policy())
    world.policy.pace(2e-4)
    world.run(1500)
    hard = Context((1.0, 0.0))

    choice = world.policy.choose(hard, world.arms, world.rng, floor=0.8)
    assert choice.arm == "dear"
    unmet = world.policy.choose(hard, world.arms, world.rng, floor=1.0)
    assert (unmet.arm, unmet.reason, unmet.propensity) == ("dear", "floor_unmet", 1.0)


def test_a_newcomer_that_is_better_and_cheaper_takes_over() -> None:
    world = World(policy())
    world.policy.pace(5e-4)
    world.run(800)

    world.arms = (CHEAP, DEAR, Arm("new", 2e-4))
    world.right |= {("new", False): 0.97, ("new", True): 0.97}
    world.run(400)

    quality, spent = world.run(400)
    assert quality > 0.94
    assert spent < 3e-4


def test_a_drop_of_quality_and_its_end_change_the_choice() -> None:
    world = World(policy())
    world.policy.pace(8e-4)
    world.run(1500)
    well = dict(world.right)

    world.right |= {("dear", False): 0.2, ("dear", True): 0.2}
    world.run(300)
    assert world.run(300)[0] > 0.57  # the cheap arm's .625 is the best there is

    world.right = well
    world.run(800)
    assert world.run(500)[0] > 0.85


def test_a_dearer_quote_without_notice_is_paced_for_at_once() -> None:
    world = World(policy(head="ridge"), arms=(CHEAP, Arm("dear", 1e-5)))
    world.policy.pace(1.5e-4)
    world.run(800)
    world.arms = (CHEAP, DEAR)

    _, spent = world.run(100)

    assert spent < 1.5 * 1.5e-4  # 2.5 times with the earlier quotes
