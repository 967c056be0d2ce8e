"""Hedging: the slowest calls of a route are made a second time, and the first good reply counts.

A call that takes longer than all but a share of its backend's calls do is made again, of the same
backend, so that what is learned of that backend stays true (Dean and Barroso, "The Tail at Scale",
2013). Both calls are reserved and paid. A purse keeps the second calls at that share of the
requests also where everything has become slow: a server in trouble is not asked twice.

How long to wait follows the backend: the wait is multiplied up where a call took longer, down where
it did not, so that the share of those that take longer is the one asked for (stochastic
approximation of a quantile, Robbins and Monro 1951, in logarithms). What was cut off when the
second call won took longer, and no more needs to be known of it.
"""

import asyncio
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

T = TypeVar("T")

KNOWN_AT = 20  # calls of a backend before its tail is taken to be known
STEP = 0.1  # e-fold in about ten calls up, 200 down at a share of 5 %
PURSE_MAX = 10.0  # second calls in a row, after a lull


@dataclass(slots=True)
class Waits:
    """The state of a route's hedging: the purse, each backend's wait and how many calls it was
    learned from, and counts. A reload keeps it.
    """

    lease: float = PURSE_MAX
    waits_s: dict[str, float] = field(default_factory=dict)
    seen: dict[str, int] = field(default_factory=dict)
    made: int = 0
    won: int = 0
    denied: int = 0


class HedgePolicy:
    """One route's second calls: how long to wait for a first one, and how many there may be."""

    # The mutable state is `waits`; the rest is configuration.

    def __init__(self, share: float) -> None:
        """`share`: of the requests, in (0, 1)."""
        self._share = share
        self.waits = Waits()

    def earn(self) -> None:
        """Take note of a request."""
        self.waits.lease = min(PURSE_MAX, self.waits.lease + self._share)

    def wait_s(self, backend: str) -> float | None:
        """Return how long a call may take before it is made again; None where that is not known
        yet, or no second call can be had.
        """
        waits = self.waits
        if waits.lease < 1.0 or waits.seen.get(backend, 0) < KNOWN_AT:
            return None
        return waits.waits_s[backend]

    def spend(self) -> None:
        """Take note that a second call is made."""
        self.waits.lease -= 1.0
        self.waits.made += 1

    def took(self, backend: str, latency_s: float) -> None:
        """Learn how long a first call took, or when it was given up (0.4 us)."""
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
        """Share the state of the hedging that this one replaces, of `backends` that go on."""
        self.waits = old.waits
        for name in self.waits.seen.keys() - set(backends):
            del self.waits.seen[name], self.waits.waits_s[name]


async def first_good(calls: Sequence[asyncio.Task[T]], good: Callable[[T], bool]) -> T:
    """Return the first good result; where none is good, that of the first call."""
    waiting = set(calls)
    while waiting:
        done, waiting = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        for call in calls:
            if call in done and good(call.result()):
                return call.result()
    return calls[0].result()
