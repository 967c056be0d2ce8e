"""What one request may cost, by what budgets have left and how many requests are to come."""

import pytest

from gateway.ledger.types import NANO, Budget, BudgetStatus, Scope
from gateway.pacing import Demand, Sharing, Traffic, allowances_usd


def status(budget: Budget, spent_usd: float = 0.0, resets_at_s: int | None = 100) -> BudgetStatus:
    spent_nano = int(spent_usd * NANO)
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
        demand.tell(total, total // workers, own, float(now_s))
    return demand


def budget(name: str, scope: Scope, usd: float = 10.0, **more: object) -> Budget:
    return Budget(name, scope, int(usd * NANO), **{"window": "day", **more})  # type: ignore[arg-type]


def test_what_is_left_is_spread_over_the_requests_to_come() -> None:
    allowances = allowances_usd([status(budget("all", Scope()), 4.0)], {"r": demand(6)}, 90.0)
    assert allowances == {"r": {"": pytest.approx(6.0 / 60)}}


def test_the_tightest_budget_of_the_whole_route_counts() -> None:
    both = [status(budget("all", Scope())), status(budget("route", Scope(route="r"), usd=1.0))]
    assert allowances_usd(both, {"r": demand(10)}, 0.0)["r"][""] == pytest.approx(1.0 / 1000)


def test_routes_that_share_a_budget_share_what_is_left() -> None:
    shared = [status(budget("all", Scope()))]
    allowances = allowances_usd(shared, {"a": demand(3), "b": demand(1)}, 0.0)
    assert allowances["a"][""] == allowances["b"][""] == pytest.approx(10.0 / 400)


def test_a_tenants_budget_is_spread_over_its_own_requests_in_all_workers() -> None:
    some = [status(budget("acme", Scope(tenant="acme")))]
    # Two workers have 8 requests a second; a quarter of those here are the tenant's.
    allowances = allowances_usd(some, {"r": demand(8, workers=2, acme=1)}, 0.0)
    assert allowances == {"r": {"acme": pytest.approx(10.0 / 200)}}


@pytest.mark.parametrize(
    "silent",
    [
        budget("soft", Scope(), enforcement="soft"),
        budget("backend", Scope(backend="gpu")),
        budget("ever", Scope(), window="ever"),
    ],
)
def test_some_budgets_set_no_pace(silent: Budget) -> None:
    assert allowances_usd([status(silent)], {"r": demand(1)}, 0.0) == {"r": {}}


def test_an_exhausted_budget_allows_nothing_and_no_less() -> None:
    spent = [status(budget("all", Scope()), 12.0)]
    assert allowances_usd(spent, {"r": demand(1)}, 0.0)["r"][""] == 0.0


def test_a_rate_follows_a_burst_within_minutes_and_not_at_once() -> None:
    traffic = Traffic()
    for second in range(61):
        traffic.tell(10 * second, float(second))
    assert traffic.rate_per_s == pytest.approx(10.0)
    traffic.tell(600 + 1000, 61.0)
    assert 15.0 < traffic.rate_per_s < 30.0


def test_gateways_that_share_a_budget_spend_it_together_by_its_end_however_unequal() -> None:
    """Each knows how many they are, and its own requests."""
    rates, left_usd = (9, 1), 100.0
    sharing = {"all": Sharing()}
    sharing["all"].tell(2, 0.0)
    for second in range(100):
        now = status(budget("all", Scope(), 100.0), 100.0 - left_usd)
        for rate in rates:
            allowed = allowances_usd([now], {"r": demand(rate)}, float(second), sharing)
            left_usd -= rate * allowed["r"][""]
        assert left_usd == pytest.approx(99 - second, abs=2.0)


def test_over_how_many_a_budget_is_spread_is_evened_out() -> None:
    sharing = Sharing()
    assert sharing.gateways == 1.0
    sharing.tell(0.0, 0.0)
    assert sharing.gateways == 1.0  # we are one, whether or not we have leased
    sharing.tell(3.0, 60.0)
    assert sharing.gateways == pytest.approx(2.0)
    for now_s in range(61, 1000):
        sharing.tell(2.0, float(now_s))
    assert sharing.gateways == pytest.approx(2.0, abs=0.01)
