"""The shadow prices of budgets that bind only some of a route's requests: a tenant's, a tag's.

Each has its own pacer and prices, solved over the same recent contexts: its requests are assumed to
be like all requests. A request uses the highest price among those that bind it and the route's own.
(A sum would be right for budgets that are independent resources; here a dollar saved in one is
saved in all.)
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np

from tollway.policies.pacing.multiplier import FREE, Market, Matrix, Prices
from tollway.policies.pacing.pacer import Pacer
from tollway.policies.types import Context

MinPrice = Matrix | None
EVERY = 25  # own requests between two solutions
AT_ONCE = 4  # scopes solved in one call: two milliseconds; the others follow in the next
SCOPES_MAX = 10_000  # tags come from clients, budgets from the config: this only stops a leak


class _Scope:
    __slots__ = ("pacer", "prices", "since")

    def __init__(self, pacer: Pacer) -> None:
        self.pacer = pacer
        self.prices = FREE
        self.since = 0


class ScopedPacers:
    """The pacers of the budgets that bind some requests, by the budget's name."""

    # The mutable state is a pacer per scope with its prices, and which of them are due.

    def __init__(self, fresh: Callable[[], Pacer]) -> None:
        """`fresh` creates a pacer."""
        self._fresh = fresh
        self._scopes: dict[str, _Scope] = {}
        self._due: dict[str, None] = {}  # in the order they became due

    def pace(self, name: str, allowance_usd: float | None) -> None:
        """Set what a budget allows per request; None removes its pacer."""
        if allowance_usd is None:
            self._scopes.pop(name, None)
            self._due.pop(name, None)
            return
        scope = self._scopes.get(name)
        if scope is None:
            if len(self._scopes) >= SCOPES_MAX:
                raise ValueError(f"more than {SCOPES_MAX} scopes")
            scope = self._scopes[name] = _Scope(self._fresh())
        if scope.pacer.pace(allowance_usd):
            self._due[name] = None

    def max_price(self, own: Prices, names: Sequence[str]) -> Prices:
        """Return the highest of the route's own prices and those of the scopes.

        Where two are at the same step, that which decides more requests at its high price.
        """
        highest, most = own, own.mean
        for name in names:
            scope = self._scopes.get(name)
            if scope is not None and scope.prices.mean > most:
                highest, most = scope.prices, scope.prices.mean
        return highest

    def least_prices(self, contexts: Sequence[Context]) -> MinPrice:
        """Return each context's minimum price, contexts x 1; None where all are 0."""
        if not self._scopes:
            return None
        prices = [self.max_price(FREE, context.scopes).high for context in contexts]
        return np.array(prices)[:, None] if any(prices) else None

    def least(self, base_usd: float, names: Iterable[str]) -> float:
        """Return the lowest of the route's allowance and those of the scopes."""
        for name in names:
            scope = self._scopes.get(name)
            own_usd = None if scope is None else scope.pacer.allowance_usd
            if own_usd is not None and own_usd < base_usd:
                base_usd = own_usd
        return base_usd

    def spend(self, names: Iterable[str], cost_usd: float) -> None:
        """Count the final cost of one request."""
        for name in names:
            scope = self._scopes.get(name)
            if scope is not None:
                scope.pacer.spend(cost_usd)
                scope.since += 1
                if scope.since >= EVERY or scope.pacer.strayed:
                    self._due[name] = None

    def add(self, names: Iterable[str], cost_usd: float) -> None:
        """Count a further cost of a request that was counted before."""
        for name in names:
            if name in self._scopes:
                self._scopes[name].pacer.add(cost_usd)

    @property
    def due(self) -> bool:
        """Whether some prices should be solved again."""
        return bool(self._due)

    def invalidate(self) -> None:
        """Mark all prices as due: an arm's price or its expected quality has changed."""
        self._due.update(dict.fromkeys(self._scopes))

    def solve(self, market: Market) -> None:
        """Solve the prices that have been due for longest."""
        for name in list(self._due)[:AT_ONCE]:
            del self._due[name]
            scope = self._scopes[name]
            scope.prices = scope.pacer.prices(market)
            scope.since = 0

    def save(self) -> dict[str, Any]:
        """Return the state."""
        return {name: scope.pacer.save() for name, scope in self._scopes.items()}

    def load(self, state: dict[str, Any]) -> None:
        """Load a saved state."""
        self._scopes = {name: _Scope(self._fresh()) for name in state}
        for name, scope in self._scopes.items():
            scope.pacer.load(state[name])
        self._due = dict.fromkeys(self._scopes)
