"""The price of money, against the sum of all choices."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from policies.multiplier import at, price_for_quality, price_for_spend

RNG = np.random.default_rng(0)
QUALITIES = RNG.uniform(0.5, 1.0, (300, 3))
COSTS = np.array([1e-5, 1e-4, 1e-2]) * RNG.lognormal(0, 0.5, (300, 3))


@given(st.floats(1e-5, 1e-2))
def test_the_price_holds_the_spend_and_a_lower_one_does_not(target: float) -> None:
    price = price_for_spend(QUALITIES, COSTS, target)

    cheapest = at(QUALITIES, COSTS, 1e30)[1]
    assert at(QUALITIES, COSTS, price)[1] <= max(target, cheapest)
    if price > 0 and target > cheapest:
        assert at(QUALITIES, COSTS, price * (1 - 1e-9))[1] > target


@given(st.floats(0.5, 1.0))
def test_the_price_holds_the_quality_and_a_higher_one_does_not(target: float) -> None:
    price = price_for_quality(QUALITIES, COSTS, target)

    best, worst = at(QUALITIES, COSTS, 0.0)[0], at(QUALITIES, COSTS, 1e30)[0]
    assert at(QUALITIES, COSTS, price)[0] >= min(target, best)
    if worst < target <= best:
        assert at(QUALITIES, COSTS, price * (1 + 1e-9))[0] < target


def test_money_is_no_object_where_the_best_is_affordable() -> None:
    assert price_for_spend(QUALITIES, COSTS, 1.0) == 0.0


def test_a_target_below_the_cheapest_arm_takes_the_cheapest() -> None:
    price = price_for_spend(QUALITIES, COSTS, 0.0)

    scores = QUALITIES - price * COSTS
    assert (scores.argmax(axis=1) == COSTS.argmin(axis=1)).all()


def test_free_arms_have_no_price() -> None:
    free = np.zeros((5, 2))

    assert price_for_spend(QUALITIES[:5, :2], free, 0.0) == 0.0
    assert price_for_quality(QUALITIES[:5, :2], free, 0.4) >= 0.0


def test_an_arm_that_was_not_offered_is_never_taken() -> None:
    qualities, costs = QUALITIES.copy(), COSTS.copy()
    qualities[:, 0] = -np.inf
    costs[:, 0] = 0.0

    quality, cost = at(qualities, costs, price_for_spend(qualities, costs, 0.0))

    assert np.isfinite(quality)
    assert cost == pytest.approx(COSTS[:, 1:].min(axis=1).mean())
