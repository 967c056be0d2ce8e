"""Prevents open relays: calls without a key must not spend without limit on a provider account.

If the gateway sets `allow_anonymous` and a backend has `auth`, every client that reaches the
listener spends on the account of that credential. This is allowed only for clients on this machine,
or up to the limit of a hard budget.
"""

from collections.abc import Iterator

from tollway.gateway.security import addresses
from tollway.gateway.security.keys import ANONYMOUS
from tollway.gateway.settings.budget import BudgetConfig
from tollway.gateway.settings.root import Settings
from tollway.gateway.settings.route import RouteConfig


def unbounded(settings: Settings) -> Iterator[tuple[RouteConfig, str]]:
    """Yield each route where calls without a key have no hard budget, with one such backend."""
    if not settings.server.allow_anonymous:
        return
    paid = {b.name for b in settings.backends if b.credentials and b.enabled}
    for route in settings.routes:
        for backend in route.backends:
            if backend in paid and not any(
                _binds(budget, route.name, backend) for budget in settings.budgets
            ):
                yield route, backend
                break


def check(settings: Settings) -> Iterator[str]:
    """Yield a reason to reject `allow_anonymous` for each route that is an open relay."""
    open_to_others = [one for one in listeners(settings) if not addresses.is_local(one)]
    if not open_to_others:
        return  # each request is checked instead: see tollway.gateway.security.loopback
    for route, backend in unbounded(settings):
        yield (
            f"lets every client that can reach {open_to_others[0]} spend on the key of "
            f"backend {backend!r} over route {route.name!r}; listen on 127.0.0.1, or add "
            f'[[budgets]] with enforcement = "hard" and scope = {{ tenant = "{ANONYMOUS}" }}'
        )


def listeners(settings: Settings) -> list[str]:
    """Return the addresses that the gateway listens on for routes."""
    return [settings.server.listen, *([settings.grpc.listen] if settings.grpc else ())]


def _binds(budget: BudgetConfig, route: str, backend: str) -> bool:
    """Return whether a budget bounds every call without a key to this backend of this route."""
    scope = budget.scope
    return (
        budget.enforcement == "hard"
        and not scope.tags
        and scope.tenant in (None, ANONYMOUS)
        and scope.route in (None, route)
        and scope.backend in (None, backend)
    )
