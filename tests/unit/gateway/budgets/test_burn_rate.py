import math

import pytest

from tollway.gateway.budgets.burn_rate import SpendRates, burn_rate, lasts_s, mean_nano_per_s
from tollway.gateway.budgets.model import Budget, BudgetStatus, Scope

DAY_S = 86_400


def status(spent: int, *, limit: int = 1000, start: int = DAY_S, carried: int = 0) -> BudgetStatus:
    resets_at_s = start + DAY_S if start else None
    budget = Budget("b", Scope(), limit, "day" if start else "lifetime")
    return BudgetStatus(
        budget, start, resets_at_s, limit, spent, 0, limit - spent, 0, 0, carried_nano=carried
    )


def test_a_rate_is_measured_since_the_previous_time() -> None:
    rates = SpendRates(period_s=0.0)
    assert rates.nano_per_s(status(100), DAY_S) is None
    assert rates.nano_per_s(status(300), DAY_S + 10) == 20
    assert rates.nano_per_s(status(300), DAY_S + 20) == 0
    assert rates.nano_per_s(status(350), DAY_S + 30) == 5


def test_a_rate_is_measured_over_the_period_and_over_no_more() -> None:
    rates = SpendRates(period_s=3600)
    for minute in range(120):
        spent = 0 if minute < 60 else (minute - 60) * 60
        rate = rates.nano_per_s(status(spent), DAY_S + minute * 60)
    assert rate == pytest.approx(59 / 60)
    assert rates.nano_per_s(status(3600), DAY_S + 120 * 60) == 1


def test_a_rate_over_too_short_a_time_is_unknown() -> None:
    rates = SpendRates(period_s=3600, least_s=30)
    assert rates.nano_per_s(status(0), DAY_S) is None
    assert rates.nano_per_s(status(50), DAY_S + 29) is None
    assert rates.nano_per_s(status(60), DAY_S + 30) == 2


def test_a_new_window_starts_a_new_measurement() -> None:
    rates = SpendRates(period_s=3600)
    rates.nano_per_s(status(900), 2 * DAY_S - 1)
    assert rates.nano_per_s(status(5, start=2 * DAY_S), 2 * DAY_S + 1) is None
    assert rates.nano_per_s(status(15, start=2 * DAY_S), 2 * DAY_S + 11) == 1


def test_measuring_often_keeps_few_samples() -> None:
    rates = SpendRates(period_s=3600)
    for second in range(7200):
        rate = rates.nano_per_s(status(second), DAY_S + second)
    assert rate == 1
    assert len(rates._spent["b"][1]) < 370


def test_a_repaid_amount_is_no_negative_rate() -> None:
    rates = SpendRates(period_s=0.0)
    rates.nano_per_s(status(100), DAY_S)
    assert rates.nano_per_s(status(50), DAY_S + 10) == 0


def test_the_mean_is_that_since_the_windows_start() -> None:
    assert mean_nano_per_s(status(50), DAY_S + 100) == 0.5
    assert mean_nano_per_s(status(50, start=0), 100) == 0.0


def test_a_budget_lasts_until_what_is_left_is_spent() -> None:
    assert lasts_s(status(400), 2.0) == 300
    assert lasts_s(status(400, carried=500), 2.0) == 50
    assert lasts_s(status(1200), 2.0) == 0
    assert lasts_s(status(400), 0.0) == math.inf


def test_a_burn_rate_of_one_spends_the_limit_in_the_window() -> None:
    assert burn_rate(status(0), 1000 / DAY_S) == pytest.approx(1.0)
    assert burn_rate(status(0), 5000 / DAY_S) == pytest.approx(5.0)
    assert burn_rate(status(0, start=0), 1.0) is None
    assert burn_rate(status(0, limit=0), 1.0) is None
