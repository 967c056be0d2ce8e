"""What one request may cost, by what budgets have left and how many requests are to come."""

from typing import Any

import pytest

from tollway.backends.money import NANO_PER_USD
from tollway.gateway.budgets.model import Budget, BudgetStatus, Scope
from tollway.gateway.learning.demand import Demand, Sharing, Traffic
from tollway.gateway.learning.known_events import KnownEvent
from tollway.gateway.learning.pacing import allowances_usd

DAY_S = 86_400


def status(budget: Budget, spent_usd: float = 0.0, resets_at_s: int | None = 100) -> BudgetStatus:
    spent_nano = int(spent_usd * NANO_PER_USD)
    return BudgetStatus(
        budget=budget,
        window_start_s=0,
        resets_at_s=resets_at_s,
        limit_nano=budget.limit_nano,
        spent_nano=spent_nano,
        held_nano=0,
        free_nano=budget.limit_nano - spent_nano,
        overdraft_nano=0,
        unaccounted_nano=0,
    )


def demand(rate_per_s: int, workers: int = 1, **bound: int) -> Demand:
    """Return the demand of a route with these requests per second, in all and by budget here."""
    demand = Demand()
    for now_s in (0, 1):
        total = rate_per_s * now_s
        own = {name: rate * now_s for name, rate in bound.items()}
        demand.update(total, total // workers, own, float(now_s))
    return demand


def allowances(*given: Any, **more: Any) -> dict[str, dict[str, float]]:
    """Return what each request may cost, without the budgets that say so."""
    found = allowances_usd(*given, **more)
    return {
        r: {scope: pace.allowance_usd for scope, pace in told.items()} for r, told in found.items()
    }


def budget(name: str, scope: Scope, usd: float = 10.0, **more: object) -> Budget:
    return Budget(
        name, scope, int(usd * NANO_PER_USD), **{"window": "day", "pacing": "even", **more}
    )  # type: ignore[arg-type]


def test_an_event_that_is_known_is_among_the_requests_to_come() -> None:
    told = demand(1)
    told.events = (KnownEvent(40.0, 60.0, 10.0), KnownEvent(50.0, 55.0, 2.0))
    found = allowances([status(budget("all", Scope()))], {"r": told}, 0.0)
    assert found == {"r": {"": pytest.approx(10.0 / (80 + 20 * 10))}}
    told = demand(10)  # during the event, the usual rate is a tenth of what is seen
    told.events = (KnownEvent(0.0, 60.0, 10.0),)
    found = allowances([status(budget("all", Scope()))], {"r": told}, 50.0)
    assert found == {"r": {"": pytest.approx(10.0 / (10 * 10 + 40))}}


def test_of_an_event_the_usual_demand_is_learned_and_a_later_one_is_expected() -> None:
    learned = Demand()
    sale = KnownEvent(30 * 3600.0, 36 * 3600.0, 5.0)
    later_sale = KnownEvent(56 * 3600.0, 57 * 3600.0, 3.0)
    learned.events = (sale, later_sale)
    total = 0.0
    for now_s in range(0, 48 * 3600 + 1, 60):
        learned.update(int(total), int(total), {}, float(now_s), float(now_s))
        total += 60.0 * (5.0 if 30 <= now_s // 3600 < 36 else 1.0)
    usual = learned.to_come("", "forecast", 54 * 3600.0, 56 * 3600.0)
    assert usual == pytest.approx(7200.0, rel=0.02)
    later = learned.to_come("", "forecast", 56 * 3600.0, 58 * 3600.0)
    assert later == pytest.approx(4 * 3600.0, rel=0.02)


def test_what_is_left_is_spread_over_the_requests_to_come() -> None:
    found = allowances([status(budget("all", Scope()), 4.0)], {"r": demand(6)}, 90.0)
    assert found == {"r": {"": pytest.approx(6.0 / 60)}}


def test_the_tightest_budget_of_the_whole_route_counts() -> None:
    both = [status(budget("all", Scope())), status(budget("route", Scope(route="r"), usd=1.0))]
    assert allowances(both, {"r": demand(10)}, 0.0)["r"][""] == pytest.approx(1.0 / 1000)


def test_routes_that_share_a_budget_share_what_is_left() -> None:
    shared = [status(budget("all", Scope()))]
    found = allowances(shared, {"a": demand(3), "b": demand(1)}, 0.0)
    assert found["a"][""] == found["b"][""] == pytest.approx(10.0 / 400)


def test_a_tenants_budget_is_spread_over_its_own_requests_in_all_workers() -> None:
    some = [status(budget("acme", Scope(tenant="acme")))]
    # Two workers have 8 requests a second; a quarter of those here are the tenant's.
    found = allowances(some, {"r": demand(8, workers=2, acme=1)}, 0.0)
    assert found == {"r": {"acme": pytest.approx(10.0 / 200)}}


@pytest.mark.parametrize(
    "silent",
    [
        budget("soft", Scope(), enforcement="soft"),
        budget("backend", Scope(backend="gpu")),
        budget("lifetime", Scope(), window="lifetime"),
    ],
)
def test_some_budgets_set_no_pace(silent: Budget) -> None:
    assert allowances([status(silent)], {"r": demand(1)}, 0.0) == {"r": {}}


def test_an_exhausted_budget_allows_nothing_and_no_less() -> None:
    spent = [status(budget("all", Scope()), 12.0)]
    assert allowances(spent, {"r": demand(1)}, 0.0)["r"][""] == 0.0


def test_a_rate_follows_a_burst_within_minutes_and_not_at_once() -> None:
    traffic = Traffic()
    for second in range(61):
        traffic.update(10 * second, float(second))
    assert traffic.rate_per_s == pytest.approx(10.0)
    traffic.update(600 + 1000, 61.0)
    assert 15.0 < traffic.rate_per_s < 30.0


def test_gateways_that_share_a_budget_spend_it_together_by_its_end_however_unequal() -> None:
    """Each knows how many they are, and its own requests."""
    rates, left_usd = (9, 1), 100.0
    sharing = {"all": Sharing()}
    sharing["all"].update(2, 0.0)
    for second in range(100):
        now = status(budget("all", Scope(), 100.0), 100.0 - left_usd)
        for rate in rates:
            allowed = allowances([now], {"r": demand(rate)}, float(second), sharing)
            left_usd -= rate * allowed["r"][""]
        assert left_usd == pytest.approx(99 - second, abs=2.0)


def test_the_number_of_gateways_that_share_a_budget_is_smoothed() -> None:
    sharing = Sharing()
    assert sharing.gateways == 1.0
    sharing.update(0.0, 0.0)
    assert sharing.gateways == 1.0  # we are one, whether or not we have leased
    sharing.update(3.0, 60.0)
    assert sharing.gateways == pytest.approx(2.0)
    for now_s in range(61, 1000):
        sharing.update(2.0, float(now_s))
    assert sharing.gateways == pytest.approx(2.0, abs=0.01)


def forecasting(name: str = "all", usd: float = 10.0, **more: Any) -> Budget:
    return budget(name, Scope(), usd, pacing=None, **more)


def days(count: float, per_hour: Any, start_s: int = 0, step_s: int = 60) -> Demand:
    """Return the demand of a route over some days, `per_hour(hour)` requests in each."""
    demand, total = Demand(), 0.0
    for now_s in range(start_s, start_s + int(count * DAY_S) + 1, step_s):
        demand.update(int(total), int(total), {}, float(now_s), float(now_s))
        total += per_hour(now_s // 3600) * step_s / 3600
    return demand


def test_twenty_seconds_of_traffic_are_not_extrapolated_to_a_day() -> None:
    demand = Demand()
    for second in range(21):
        demand.update(125 * second, 125 * second, {}, float(second), 1000.0 + second)
    told = [status(forecasting(usd=2.0), resets_at_s=DAY_S)]
    assert allowances(told, {"r": demand}, 1020.0) == {"r": {}}
    even = [status(budget("all", Scope(), 2.0), resets_at_s=DAY_S)]
    assert allowances(even, {"r": demand}, 1020.0)["r"][""] < 2.0 / 1e7  # what `even` makes of it


def test_once_a_day_is_known_what_is_left_is_spread_over_the_hours_usual_demand() -> None:
    night_and_day = days(1.1, lambda hour: 1000 if 8 <= hour % 24 < 20 else 10)
    told = [status(forecasting(), resets_at_s=3 * DAY_S)]
    # At two in the morning nearly all of the day's 12,120 requests are still to come, ...
    at_two = allowances(told, {"r": night_and_day}, 2 * DAY_S + 2 * 3600.0)["r"][""]
    assert at_two == pytest.approx(10.0 / (12 * 1000 + 10 * 10), rel=0.01)
    # ... and at eight in the evening next to none.
    at_eight = allowances(told, {"r": night_and_day}, 2 * DAY_S + 20 * 3600.0)["r"][""]
    assert at_eight == pytest.approx(10.0 / 40, rel=0.01)


def test_a_week_has_its_own_season_once_it_is_known() -> None:
    weekdays = days(9, lambda hour: 100 if (hour // 24) % 7 < 5 else 0, step_s=300)
    told = [status(forecasting(window="week"), resets_at_s=14 * DAY_S)]
    # Two days of the second week are over: three days of work are left in it.
    found = allowances(told, {"r": weekdays}, 9.0 * DAY_S)["r"][""]
    assert found == pytest.approx(10.0 / (3 * 24 * 100), rel=0.02)


def test_only_routes_of_the_best_quality_are_paced_unless_a_budget_says_so() -> None:
    demand = days(1.1, lambda hour: 100)
    for pacing, objective, paced in (
        (None, "max_quality", True),
        (None, "value", False),
        (None, "min_cost", False),
        ("forecast", "value", True),
        ("none", "max_quality", False),
        ("even", "max_quality", True),
    ):
        one = status(budget("all", Scope(), pacing=pacing), resets_at_s=2 * DAY_S)
        found = allowances([one], {"r": demand}, 1.2 * DAY_S, objectives={"r": objective})
        assert bool(found["r"]) == paced, (pacing, objective)


def test_forecasts_are_saved_and_damaged_ones_are_refused() -> None:
    demand, again = days(1.1, lambda hour: 100), Demand()
    again.load(demand.save())
    told = [status(forecasting(), resets_at_s=2 * DAY_S)]
    at_s = 1.2 * DAY_S
    assert allowances(told, {"r": again}, at_s) == allowances(told, {"r": demand}, at_s)
    with pytest.raises((ValueError, KeyError, TypeError)):
        again.load({"": {"hours": [1], "per_s": []}})
    assert allowances(told, {"r": again}, at_s) == allowances(told, {"r": demand}, at_s)


def test_hours_in_which_no_gateway_ran_are_not_hours_without_demand() -> None:
    demand, total = Demand(), 0
    for hour in range(50):
        for minute in range(60):
            now_s = 3600.0 * hour + 60 * minute
            if not 24 <= hour < 25:
                total += 1
                demand.update(total, total, {}, now_s, now_s)
    told = [status(forecasting(), resets_at_s=3 * DAY_S)]
    found = allowances(told, {"r": demand}, 2.0 * DAY_S)["r"][""]
    assert found == pytest.approx(10.0 / (24 * 60), rel=0.02)
