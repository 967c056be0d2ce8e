"""No open relay: calls without a key may not spend without a bound on a key of the gateway's.

Where the gateway has `allow_anonymous` and a backend has `auth`, whoever reaches the listener
spends on that
account. That is for programs of this machine alone, or for as much as a hard budget allows.
"""

from collections.abc import Iterator

from tollway.gateway.security import addresses
from tollway.gateway.security.keys import ANONYMOUS
from tollway.gateway.settings.budget import BudgetConfig
from tollway.gateway.settings.root import Settings
from tollway.gateway.settings.route import RouteConfig


def unbounded(settings: Settings) -> Iterator[tuple[RouteConfig, str]]:
    """Yield each route, and one backend of it, where calls without a key have no hard budget."""
    if not settings.server.allow_anonymous:
        return
    paid = {b.name for b in settings.backends if b.auth is not None and b.enabled}
    for route in settings.routes:
        for backend in route.backends:
            if backend in paid and not any(
                _binds(budget, route.name, backend) for budget in settings.budgets
            ):
                yield route, backend
                break


def check(settings: Settings) -> Iterator[str]:
    """Yield why `allow_anonymous` cannot stand: a line for each route that is an open relay."""
    if addresses.is_local(settings.server.listen):
        return  # where each request is looked at: see tollway.gateway.security.loopback
    for route, backend in unbounded(settings):
        yield (
            f"lets anyone who reaches {settings.server.listen} spend on the key of backend "
            f"{backend!r} over route {route.name!r}; listen on 127.0.0.1, or add [[budgets]] with "
            f'enforcement = "hard" and scope = {{ tenant = "{ANONYMOUS}" }}'
        )


def _binds(budget: BudgetConfig, route: str, backend: str) -> bool:
    """Say whether a budget bounds every call without a key to this backend of this route."""
    scope = budget.scope
    return (
        budget.enforcement == "hard"
        and not scope.tags
        and scope.tenant in (None, ANONYMOUS)
        and scope.route in (None, route)
        and scope.backend in (None, backend)
    )
