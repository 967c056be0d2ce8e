"""Hedging: repeats the slowest calls of a route; the first good reply counts.

A call that is slower than all but a configured share of its backend's calls is repeated on the same
backend, so that what is learned about that backend stays true (Dean and Barroso, "The Tail at
Scale", 2013). Both calls are reserved and paid for. A token bucket limits hedged calls to that
share of the requests even when everything has become slow: a server in trouble is not called twice.

The wait adapts to each backend. It is multiplied up when a call took longer and down when it did
not, so that the share of slower calls converges to the configured one (stochastic approximation of
a quantile, Robbins and Monro 1951, in logarithms). A call that was cancelled because the second
call won took longer, and the update needs no more than that.
"""

import asyncio
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

T = TypeVar("T")

KNOWN_AT = 20  # calls of a backend before its tail latency counts as known
STEP = 0.1  # a factor e takes about ten calls upward, 200 downward at a share of 5 %
TOKENS_MAX = 10.0  # hedged calls in a row, after a quiet period


@dataclass(slots=True)
class Waits:
    """The state of a route's hedging; a reload keeps it.

    It holds the tokens for hedged calls (`lease`), each backend's wait, the number of calls that
    the wait was learned from, and counts.
    """

    lease: float = TOKENS_MAX
    waits_s: dict[str, float] = field(default_factory=dict)
    seen: dict[str, int] = field(default_factory=dict)
    made: int = 0
    won: int = 0
    denied: int = 0


class HedgePolicy:
    """One route's hedging: how long to wait before a second call, and how many are allowed."""

    # The mutable state is `waits`; the rest is configuration.

    def __init__(self, share: float) -> None:
        """`share`: the share of requests that may be hedged, in (0, 1)."""
        self._share = share
        self.waits = Waits()

    def earn(self) -> None:
        """Add the share of a hedged call for one request."""
        self.waits.lease = min(TOKENS_MAX, self.waits.lease + self._share)

    def wait_s(self, backend: str) -> float | None:
        """Return how long to wait before a second call.

        None if the wait is not known yet or no second call is allowed.
        """
        waits = self.waits
        if waits.lease < 1.0 or waits.seen.get(backend, 0) < KNOWN_AT:
            return None
        return waits.waits_s[backend]

    def spend(self) -> None:
        """Record that a second call is made."""
        self.waits.lease -= 1.0
        self.waits.made += 1

    def took(self, backend: str, latency_s: float) -> None:
        """Learn from the latency of a first call, or the time until it was cancelled (0.4 us)."""
        waits_s = self.waits.waits_s
        seen = self.waits.seen[backend] = self.waits.seen.get(backend, 0) + 1
        wait_s = waits_s.get(backend, 0.0)
        if seen <= KNOWN_AT:
            waits_s[backend] = max(wait_s, latency_s)
        elif latency_s > wait_s:
            waits_s[backend] = wait_s * (1.0 + STEP * (1.0 - self._share))
        else:
            waits_s[backend] = wait_s * (1.0 - STEP * self._share)

    def adopt(self, old: "HedgePolicy", backends: Collection[str]) -> None:
        """Share the state of the policy that this one replaces, for the remaining `backends`."""
        self.waits = old.waits
        for name in self.waits.seen.keys() - set(backends):
            del self.waits.seen[name], self.waits.waits_s[name]


async def first_good(calls: Sequence[asyncio.Task[T]], good: Callable[[T], bool]) -> T:
    """Return the first good result; if none is good, the result of the first call."""
    waiting = set(calls)
    while waiting:
        done, waiting = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        for call in calls:
            if call in done and good(call.result()):
                return call.result()
    return calls[0].result()
