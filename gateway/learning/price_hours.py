"""Applies the prices for the time of day to backends, and passes the changes to the policies.

A call is charged at the price when it ends, as DeepSeek does, the provider with such prices. Its
maximum cost is calculated for the most expensive hour.
"""

from collections.abc import Mapping

from tollway.backends.pricing import Price
from tollway.backends.types import UNBOUND
from tollway.gateway.estimation.cost_estimator import CostEstimator
from tollway.gateway.routing.plan import RoutePlan
from tollway.policies.types import Context

REPRICE_S = 1.0  # between two checks of the hour


def reprice(routes: Mapping[str, RoutePlan], wall_s: float) -> None:
    """Apply the prices for a time, in seconds since 1970, and pass the changes to the policies."""
    before = prices(routes)
    apply_hours(routes, wall_s)
    rescale(routes, before)


def prices(routes: Mapping[str, RoutePlan]) -> dict[str, Price]:
    """Return the price in force of each backend."""
    return {name: one.price for route in routes.values() for name, one in route.backends.items()}


def apply_hours(routes: Mapping[str, RoutePlan], wall_s: float) -> None:
    """Set the prices for a time; the policies keep the costs that they know."""
    for route in routes.values():
        for backend in (*route.backends.values(), *route.hidden.values()):
            if backend.tariff is not None:
                price = backend.tariff.at_time(wall_s)
                if price is not backend.price:
                    backend.reprice(price)


def rescale(routes: Mapping[str, RoutePlan], before: Mapping[str, Price]) -> None:
    """Tell each policy which prices are no longer those of `before`, and by what factor.

    A price of nothing is passed over, because no factor leads back from there, and so is a price
    of which only the maximum is new: that is nothing to a policy.
    """
    for route in routes.values():
        for name, backend in route.backends.items():
            was = before.get(name)
            if was is None or was == backend.price:
                continue
            factor = ratio(route.estimator, name, was, backend.price)
            if factor > 0.0 and factor != 1.0:
                route.policy.reprice(name, factor)


def ratio(estimator: CostEstimator, backend: str, was: Price, price: Price) -> float:
    """Return the factor by which a price changed, for a backend's current usage mix."""
    was_nano, is_nano = (
        estimator.quote(Context(()), backend, one, UNBOUND).expected_nano for one in (was, price)
    )
    return is_nano / was_nano if was_nano else 1.0
