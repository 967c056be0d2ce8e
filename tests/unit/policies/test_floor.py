"""A floor is held by the baseline until labels show that the learned policy holds it too."""

from collections.abc import Sequence
from random import Random

import numpy as np
import pytest

from tests.support.two_arms import World
from tollway.policies.exploration import Exploration
from tollway.policies.floor import SHARE_MIN, Floor
from tollway.policies.lagrangian import Lagrangian, Offer
from tollway.policies.pacing.pacer import Pacer
from tollway.policies.quality import Quality
from tollway.policies.registry import build
from tollway.policies.regressors.types import Listed, Matrix, Rows, Table
from tollway.policies.types import Arm, Context, Notice, Objective

HELD = Objective("min_cost", floor=0.9, baseline="dear")


class WrongHead:
    """Predicts that every arm is nearly always right, whatever the labels."""

    cheap_many = 400

    def predict(self, context: Context, arms: Sequence[str]) -> list[float]:
        return [0.99 - 0.8 for _ in arms]

    def predict_many(self, contexts: Sequence[Context], arms: Sequence[str]) -> Matrix:
        return np.full((len(contexts), len(arms)), 0.99 - 0.8)

    def table(self, rows: int) -> Table:
        return Listed(self)

    def learn(self, context: Context, arm: str, target: float) -> float:
        return 0.99 - 0.8

    def save(self) -> bytes:
        return b""

    def load(self, state: bytes) -> None:
        pass


class Certain(Quality):
    """Trusts the regressor only."""

    def expect(
        self, context: Context, arms: Sequence[Arm], names: Sequence[str]
    ) -> tuple[list[float], list[float]]:
        _, labels = super().expect(context, arms, names)
        return [0.99 for _ in arms], labels

    def rethink(self, table: Table, rows: Rows, arms: Sequence[str]) -> Matrix:
        return np.full_like(super().rethink(table, rows, arms), 0.99)


def misspecified() -> World:
    return World(
        Lagrangian(
            HELD,
            Certain(WrongHead(), default=0.8),
            explore=Exploration(),
            pacer=Pacer(),
            floor=Floor(0.9),
        )
    )


def told(world: World) -> list[str]:
    return [notice.kind for notice in world.policy.drain() if isinstance(notice, Notice)]


def test_a_floor_that_a_misspecified_head_cannot_certify_is_held_by_the_baseline() -> None:
    world = misspecified()  # it would send all to the cheap arm, which is right in 62 of 100

    windows = [world.run(500)[0] for _ in range(8)]

    assert min(windows) >= 0.9 - 0.02
    assert "floor_released" not in told(world)
    assert world.policy.figures()["floor_share"] < 0.3


@pytest.mark.parametrize("demanded", [0.0, 0.5, 0.9])
def test_a_demand_below_the_routes_floor_does_not_lift_the_guard(demanded: float) -> None:
    world = misspecified()
    world.run(500)
    hard = Context((1.0, 0.0))

    own = world.policy.choose(hard, world.arms, Random(0))
    asked = world.policy.choose(hard, world.arms, Random(0), floor=demanded)

    dear = own.arms.index("dear")
    assert own.pmf[dear] > 0.7
    assert asked.pmf[dear] >= own.pmf[dear]
    assert asked.reason != "floor_unmet"


def test_a_stricter_floor_of_the_client_takes_precedence_over_the_guard() -> None:
    policy = misspecified().policy
    assert isinstance(policy, Lagrangian)
    offer = Offer(("cheap", "dear"), [0.97, 0.91], [1e-4, 1e-3], [100, 100])

    choice = policy._draw(offer, Random(0), 0.95)

    assert choice.pmf == (1.0, 0.0)
    assert choice.reason == "best"


def test_the_learned_policy_is_released_as_evidence_grows() -> None:
    world = World(build("lagrangian", HELD, options={}, seed=0))
    shares = []
    for _ in range(6):
        world.run(400)
        shares.append(world.policy.figures()["floor_share"])

    assert world.run(400)[0] >= 0.89
    assert shares[0] < shares[-1]
    assert shares[-1] > 0.8


def test_a_policy_that_fails_later_goes_back_to_the_baseline() -> None:
    floor = Floor(0.9)
    for _ in range(3000):
        floor.observe(0.95, 0.95, 0.0, 1.0)
    assert not floor.guarded

    notices = [floor.observe(0.5, 0.5, 0.0, 1.0) for _ in range(60)]

    kinds = [notice.kind for notice in notices if notice]
    assert kinds[0] == "floor_refuted"
    assert floor.share < 0.5


def test_a_learned_policy_that_costs_more_than_the_baseline_is_kept_small() -> None:
    floor = Floor(0.9)
    for _ in range(3000):
        floor.observe(0.95, 0.95, 0.0, 1.0)

    floor.compare(own_usd=2e-3, baseline_usd=1e-3, baseline=0.93)
    assert floor.share == SHARE_MIN
    floor.compare(own_usd=2e-3, baseline_usd=1e-3, baseline=0.85)  # it no longer holds the floor
    assert floor.share == 1.0


def test_a_floor_out_of_reach_is_reported_once_and_again_when_it_is_in_reach() -> None:
    world = World(build("lagrangian", Objective("min_cost", floor=0.97), options={}, seed=0))
    world.run(1500)
    assert told(world) == ["floor_infeasible"]
    assert world.run(500)[0] > 0.92  # the best there is

    world.right = dict.fromkeys(world.right, 1.0)
    world.run(1500)
    assert "floor_feasible" in told(world)


def test_only_labels_that_were_drawn_can_lift_the_bound() -> None:
    floor, rng = Floor(0.9), Random(0)
    for _ in range(2000):  # a tenth of the requests is the learned policy's, half of them right
        drawn = rng.random() < 0.1
        label = float(rng.random() < (0.5 if drawn else 0.95))
        value = 1.0 - 10.0 * (1.0 - label) if drawn else 1.0
        floor.observe(label, value, -9.0, 1.0)
    assert floor.lower_bound < 0.5
    assert floor.guarded


def test_a_saved_floor_goes_on_as_the_original() -> None:
    floor, copy = Floor(0.9), Floor(0.9)
    for _ in range(300):
        floor.observe(0.95, 0.95, 0.0, 1.0)
    floor.reach(0.8)
    copy.load(floor.save())
    assert (copy.share, copy.owed, copy.lower_bound) == (floor.share, floor.owed, floor.lower_bound)
    assert copy.reach(0.8) is None


def test_a_floor_is_in_range() -> None:
    with pytest.raises(ValueError, match="not in"):
        Floor(1.1)


def test_signals_repay_a_shortfall_and_add_a_surplus_only_as_far_as_they_may() -> None:
    floor = Floor(0.9)
    floor.observe(0.0, 0.0, 0.0, 0.0)
    short = floor.owed
    assert short > 0.0
    for _ in range(1000):
        floor.follow(1.0, 0.5, credit=0.0)
    assert floor.owed == 0.0
    for _ in range(100):
        floor.observe(1.0, 1.0, 0.0, 1.0)
    earned = floor.owed
    assert earned < 0.0
    floor.follow(1.0, 0.5, credit=0.0)
    assert floor.owed == earned  # what labels have earned stays
    floor.follow(0.0, 0.5, credit=0.0)
    assert floor.owed > earned
