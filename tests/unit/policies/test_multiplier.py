"""The shadow price, compared with an enumeration of all choices."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tollway.policies.pacing.multiplier import (
    FREE,
    Arms,
    Prices,
    price_for_quality,
    price_for_spend,
)

RNG = np.random.default_rng(0)
QUALITIES = RNG.uniform(0.5, 1.0, (300, 3))
COSTS = np.array([1e-5, 1e-4, 1e-2]) * RNG.lognormal(0, 0.5, (300, 3))


def mixed(prices: Prices) -> tuple[float, float]:
    """Return (quality, cost) where a share is decided at the lower price."""
    low, high = Arms(QUALITIES, COSTS).both(prices.low), Arms(QUALITIES, COSTS).both(prices.high)
    quality, cost = (h + prices.share * (lo - h) for lo, h in zip(low, high, strict=True))
    return quality, cost


@given(st.floats(1e-5, 1e-2))
def test_the_spend_is_the_target_wherever_that_can_be(target: float) -> None:
    prices = price_for_spend(Arms(QUALITIES, COSTS), target)

    cheapest, best = Arms(QUALITIES, COSTS).both(1e30)[1], Arms(QUALITIES, COSTS).both(0.0)[1]
    assert 0.0 <= prices.share <= 1.0
    assert mixed(prices)[1] == pytest.approx(min(max(target, cheapest), best))


@given(st.floats(0.5, 1.0))
def test_the_quality_is_the_target_wherever_that_can_be(target: float) -> None:
    prices = price_for_quality(Arms(QUALITIES, COSTS), target)

    best, worst = Arms(QUALITIES, COSTS).both(0.0)[0], Arms(QUALITIES, COSTS).both(1e30)[0]
    assert 0.0 <= prices.share <= 1.0
    assert mixed(prices)[0] == pytest.approx(min(max(target, worst), best))


@given(st.floats(1e-5, 1e-2), st.floats(0.01, 100.0))
def test_the_price_is_the_same_wherever_the_last_one_was(target: float, off: float) -> None:
    market = Arms(QUALITIES, COSTS)

    prices = price_for_spend(market, target)

    assert price_for_spend(market, target, off * prices.high) == prices
    assert price_for_spend(market, target, prices.high) == prices


def test_where_contexts_say_nothing_the_mix_is_the_hull() -> None:
    qualities, costs = np.tile([0.6, 0.8, 0.85], (50, 1)), np.tile([1.0, 3.0, 9.0], (50, 1))

    prices = price_for_spend(Arms(qualities, costs), 2.0)

    assert Arms(qualities, costs).both(prices.high) == pytest.approx((0.6, 1.0))
    assert Arms(qualities, costs).both(prices.low) == pytest.approx((0.8, 3.0))
    assert prices.share == pytest.approx(0.5)


def test_the_shadow_price_is_zero_if_the_best_arm_is_affordable() -> None:
    assert price_for_spend(Arms(QUALITIES, COSTS), 1.0) == FREE


def test_a_target_below_the_cheapest_arm_takes_the_cheapest() -> None:
    price = price_for_spend(Arms(QUALITIES, COSTS), 0.0).high

    scores = QUALITIES - price * COSTS
    assert (scores.argmax(axis=1) == COSTS.argmin(axis=1)).all()


def test_free_arms_have_no_price() -> None:
    free = np.zeros((5, 2))

    assert price_for_spend(Arms(QUALITIES[:5, :2], free), 0.0) == FREE
    assert price_for_quality(Arms(QUALITIES[:5, :2], free), 0.4).high >= 0.0


def test_an_arm_that_was_not_offered_is_never_taken() -> None:
    qualities, costs = QUALITIES.copy(), COSTS.copy()
    qualities[:, 0] = -np.inf
    costs[:, 0] = 0.0

    quality, cost = Arms(qualities, costs).both(price_for_spend(Arms(qualities, costs), 0.0).high)

    assert np.isfinite(quality)
    assert cost == pytest.approx(COSTS[:, 1:].min(axis=1).mean())
