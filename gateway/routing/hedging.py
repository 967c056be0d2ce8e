"""Hedging: repeats the slowest calls of a route; the first good reply counts.

A call that is slower than all but a configured share of its backend's calls is repeated on the same
backend, so that what is learned about that backend stays true (Dean and Barroso, "The Tail at
Scale", 2013). Both calls are reserved and paid for. A token bucket limits hedged calls to that
share of the requests even when everything has become slow: a server in trouble is not called twice.

The wait adapts to each backend. It is multiplied up when a call took longer and down when it did
not, so that the share of slower calls converges to the configured one (stochastic approximation of
a quantile, Robbins and Monro 1951, in logarithms). A call that was cancelled because the second
call won took longer, and the update needs no more than that.

Tokens and waits are each tenant's own: one whose requests take long cannot use up the second calls
of others, nor make theirs wait longer.
"""

import asyncio
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

from tollway.gateway.routing.health.tenant_tokens import TenantTokens

T = TypeVar("T")

KNOWN_AT = 20  # calls of a backend before its tail latency counts as known
STEP = 0.1  # a factor e takes about ten calls upward, 200 downward at a share of 5 %
TOKENS_MAX = 10.0  # hedged calls in a row, after a quiet period


@dataclass(slots=True)
class Waits:
    """The state of a route's hedging; a reload keeps it.

    It holds the tokens for hedged calls, the wait of each backend and tenant, the number of calls
    that the wait was learned from, and counts.
    """

    tokens: TenantTokens = field(default_factory=lambda: TenantTokens(TOKENS_MAX))
    waits_s: dict[tuple[str, str], float] = field(default_factory=dict)
    seen: dict[tuple[str, str], int] = field(default_factory=dict)
    made: int = 0
    won: int = 0
    denied: int = 0

    def keep(self, backends: Collection[str]) -> None:
        """Drop the waits of all other backends."""
        for key in [key for key in self.seen if key[0] not in backends]:
            del self.seen[key], self.waits_s[key]


class HedgePolicy:
    """One route's hedging: how long to wait before a second call, and how many are allowed."""

    # The mutable state is `waits`; the rest is configuration.

    def __init__(self, share: float, waits: Waits | None = None) -> None:
        """`share`: the share of requests that may be hedged, in (0, 1); `waits`: the state to go
        on from.
        """
        self._share = share
        self.waits = waits or Waits()

    def earn(self, tenant: str = "") -> None:
        """Add the share of a hedged call for one request of a tenant."""
        self.waits.tokens.earn(tenant, self._share)

    def wait_s(self, backend: str, tenant: str = "") -> float | None:
        """Return how long to wait before a second call.

        None if the wait is not known yet or no second call is allowed.
        """
        waits = self.waits
        key = backend, tenant
        if waits.tokens.of(tenant) < 1.0 or waits.seen.get(key, 0) < KNOWN_AT:
            return None
        return waits.waits_s[key]

    def spend(self, tenant: str = "") -> None:
        """Record that a second call is made."""
        self.waits.tokens.spend(tenant)
        self.waits.made += 1

    def observe(self, backend: str, latency_s: float, tenant: str = "") -> None:
        """Learn from the latency of a first call, or the time until it was cancelled (0.5 us)."""
        waits_s, key = self.waits.waits_s, (backend, tenant)
        seen = self.waits.seen[key] = self.waits.seen.get(key, 0) + 1
        wait_s = waits_s.get(key, 0.0)
        if seen <= KNOWN_AT:
            waits_s[key] = max(wait_s, latency_s)
        elif latency_s > wait_s:
            waits_s[key] = wait_s * (1.0 + STEP * (1.0 - self._share))
        else:
            waits_s[key] = wait_s * (1.0 - STEP * self._share)


async def first_good(calls: Sequence[asyncio.Task[T]], good: Callable[[T], bool]) -> T:
    """Return the first good result; if none is good, the result of the first call."""
    waiting = set(calls)
    while waiting:
        done, waiting = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        for call in calls:
            if call in done and good(call.result()):
                return call.result()
    return calls[0].result()
