"""The pacer's target after spending more or less than the allowance."""

import math

import numpy as np
import pytest

from tollway.policies.pacing.multiplier import FREE, Arms
from tollway.policies.pacing.pacer import CREDIT, DEBT, HORIZON, RESERVE, STRAY, Pacer

ONE = Arms(np.array([[1.0]]), np.array([[1.0]]))  # a market of one arm, of quality and cost 1


def paced(allowance_usd: float | None = 1.0) -> Pacer:
    pacer = Pacer()
    pacer.pace(allowance_usd)
    return pacer


def test_without_a_budget_the_shadow_price_is_zero() -> None:
    assert paced(None).prices(ONE) == FREE


def test_overspending_is_paid_back_over_the_horizon() -> None:
    pacer = paced()

    pacer.spend(21.0)

    assert pacer.target_usd == pytest.approx(1.0 - 20.0 / HORIZON)


def test_one_correction_never_halves_the_target_or_more() -> None:
    pacer = paced()

    pacer.spend(10_000.0)

    assert pacer.target_usd == 0.5


def test_credit_and_debt_are_bounded() -> None:
    thrifty, lavish = paced(), paced()
    for _ in range(1000):
        thrifty.spend(0.0)
        lavish.spend(3.0)

    assert thrifty.save()["over_usd"] == -RESERVE
    assert thrifty.target_usd == pytest.approx(1.0 + CREDIT / HORIZON)
    assert lavish.save()["over_usd"] == DEBT


def test_savings_pay_for_an_expensive_call_and_not_for_another_allowance() -> None:
    pacer = paced()
    for _ in range(1000):
        pacer.spend(0.0)

    pacer.spend(RESERVE - CREDIT)
    assert pacer.target_usd == pytest.approx(1.0 + CREDIT / HORIZON)
    for _ in range(20):
        pacer.spend(0.0)
    pacer.pace(1.2)
    assert pacer.save()["over_usd"] == pytest.approx(-1.2 * CREDIT)


@pytest.mark.parametrize("expected", [0.6, 1.4])
def test_requests_that_cost_other_than_planned_move_the_target_without_a_limit(
    expected: float,
) -> None:
    """At a price, new requests are expected to cost `expected` times what the contexts do."""
    market = Arms(np.tile([0.5, 1.0], (100, 1)), np.tile([0.0, 2.0], (100, 1)))
    pacer = paced()
    spent = []
    for request in range(6000):
        if request % 25 == 0:
            pacer.plan(market, pacer.prices(market))
        planned = pacer.planned_usd
        assert planned is not None
        spent.append(expected * planned)
        pacer.spend(spent[-1], spent[-1])

    assert np.mean(spent[3000:]) == pytest.approx(1.0, abs=0.03)


def test_bills_beyond_what_was_expected_lower_the_target() -> None:
    market = Arms(np.tile([0.5, 1.0], (100, 1)), np.tile([0.0, 2.0], (100, 1)))
    pacer, rng = paced(), np.random.default_rng(0)
    spent = []
    for request in range(20_000):
        if request % 25 == 0:
            pacer.plan(market, pacer.prices(market))
        planned = pacer.planned_usd
        assert planned is not None
        # Pareto with exponent 1.5: a mean of 3, and no variance. Two thirds of it are expected.
        spent.append(planned * (1.0 + rng.pareto(1.5)) / 2.0)
        pacer.spend(spent[-1], planned)

    assert 0.85 < np.mean(spent) < 1.05


def test_the_second_call_of_a_request_does_not_earn_a_second_allowance() -> None:
    pacer = paced()

    pacer.spend(1.0)
    pacer.add(0.5)

    assert pacer.save()["over_usd"] == pytest.approx(0.5)


def test_a_run_of_expensive_requests_triggers_a_new_solution_at_once() -> None:
    pacer = paced()
    pacer.prices(ONE)

    pacer.spend(STRAY + 1.5)
    assert pacer.strayed
    pacer.prices(ONE)
    assert not pacer.strayed


def test_a_small_edit_of_the_allowance_is_no_event_and_a_large_one_is() -> None:
    pacer = paced()

    assert not pacer.pace(1.01)
    assert pacer.pace(2.0)
    assert pacer.pace(None)


@pytest.mark.parametrize("amount", [math.nan, math.inf, -1.0])
def test_invalid_amounts_are_refused(amount: float) -> None:
    pacer = paced()

    for take in (pacer.spend, pacer.add, pacer.pace):
        with pytest.raises(ValueError, match=r"cost|allowance"):
            take(amount)


def test_exploration_is_measured_by_the_allowance_else_by_what_requests_cost_lately() -> None:
    free, bound = paced(None), paced(0.25)
    assert free.base([1.0, 8.0]) == 8.0
    assert bound.base([8.0]) == 0.25

    for _ in range(1000):
        free.spend(1.0)

    assert free.base([8.0]) == pytest.approx(1.0, rel=0.01)
