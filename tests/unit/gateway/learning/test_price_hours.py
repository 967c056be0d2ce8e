"""Prices that depend on the time of day, and when they apply."""

from types import SimpleNamespace
from typing import Any

import pytest

from tollway.backends.price import bounded
from tollway.backends.pricing import Price, parse_price
from tollway.backends.types import Usage
from tollway.gateway.estimation.cost_estimator import CostEstimator
from tollway.gateway.learning.price_hours import apply_hours, reprice, rescale

NOON = 20_000 * 86_400 + 43_200.0
TABLE = {
    "per_request_usd": 0.001,
    "hours": [{"from": "12:00", "to": "13:00", "factor": 0.5}],
}


class Told:
    """A policy that records price changes."""

    def __init__(self) -> None:
        self.ratios: list[tuple[str, float]] = []

    def reprice(self, arm: str, ratio: float) -> None:
        self.ratios.append((arm, ratio))


def route(*backends: Any) -> Any:
    return SimpleNamespace(
        backends={b.name: b for b in backends},
        hidden={},
        estimator=CostEstimator(),
        policy=Told(),
    )


def backend(price: Price) -> Any:
    one = SimpleNamespace(name="b", price=price, tariff=price if price.hours else None)
    one.reprice = lambda price: setattr(one, "price", price)
    return one


def test_a_price_changes_with_the_hour_and_each_policy_is_told_once() -> None:
    shared = backend(parse_price(TABLE))
    one, two = route(shared), route(shared)
    routes = {"one": one, "two": two}

    reprice(routes, NOON - 1)
    assert (shared.price.cost_nano(Usage()), one.policy.ratios) == (1_000_000, [])
    reprice(routes, NOON)
    reprice(routes, NOON + 1)
    assert shared.price.cost_nano(Usage()) == 500_000
    assert one.policy.ratios == two.policy.ratios == [("b", 0.5)]
    reprice(routes, NOON + 3600)
    assert shared.price.cost_nano(Usage()) == 1_000_000
    assert one.policy.ratios == [("b", 0.5), ("b", pytest.approx(2.0))]


def test_the_price_of_a_backend_that_a_rollout_hides_changes_too() -> None:
    one, hidden = route(), backend(parse_price(TABLE))
    one.hidden = {"b": hidden}
    apply_hours({"one": one}, NOON)
    assert hidden.price.cost_nano(Usage()) == 500_000


def test_a_price_that_does_not_depend_on_the_hour_is_left_alone() -> None:
    one = route(backend(parse_price({"per_request_usd": 1})))
    reprice({"one": one}, NOON)

    assert one.policy.ratios == []


def test_a_hold_made_in_a_cheap_hour_covers_a_call_that_ends_in_another() -> None:
    price = parse_price(TABLE).at_time(NOON)
    quote = CostEstimator().quote(SimpleNamespace(), "b", price, Usage(exact=False))  # type: ignore[arg-type]

    assert (quote.expected_nano, quote.maximum_nano) == (500_000, 1_000_000)


def test_no_policy_is_told_of_a_price_of_which_only_the_maximum_is_new() -> None:
    price, later = (parse_price({"per_request_usd": usd}) for usd in (0.001, 0.002))
    one = route(backend(bounded(price, later)))
    rescale({"one": one}, {"b": price})

    assert one.policy.ratios == []


def test_no_policy_is_told_of_a_price_of_nothing() -> None:
    paid, free = parse_price({"per_request_usd": 0.001}), parse_price({"free": True})
    one = route(backend(free))
    rescale({"one": one}, {"b": paid})

    assert one.policy.ratios == []
