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
from collections.abc import Callable, Sequence
from typing import TypeVar

T = TypeVar("T")

KNOWN_AT = 20  # calls of a backend before its tail is taken to be known
STEP = 0.1  # e-fold in about ten calls up, 200 down at a share of 5 %
PURSE_MAX = 10.0  # second calls in a row, after a lull


class Hedge:
    """One route's second calls: how long to wait for a first one, and how many there may be."""

    # The mutable state is the purse, the waits (and of how many calls), and what came of it all.

    def __init__(self, share: float) -> None:
        """`share`: of the requests, in (0, 1)."""
        self._share = share
        self._purse = PURSE_MAX
        self._waits_s: dict[str, float] = {}
        self._seen: dict[str, int] = {}
        self.made = self.won = self.denied = 0

    def earn(self) -> None:
        """Take note of a request."""
        self._purse = min(PURSE_MAX, self._purse + self._share)

    def wait_s(self, backend: str) -> float | None:
        """Return how long a call may take before it is made again; None where that is not known
        yet, or no second call can be had.
        """
        if self._purse < 1.0 or self._seen.get(backend, 0) < KNOWN_AT:
            return None
        return self._waits_s[backend]

    def spend(self) -> None:
        """Take note that a second call is made."""
        self._purse -= 1.0
        self.made += 1

    def took(self, backend: str, latency_s: float) -> None:
        """Learn how long a first call took, or when it was given up (0.4 us)."""
        seen = self._seen[backend] = self._seen.get(backend, 0) + 1
        wait_s = self._waits_s.get(backend, 0.0)
        if seen <= KNOWN_AT:
            self._waits_s[backend] = max(wait_s, latency_s)
        elif latency_s > wait_s:
            self._waits_s[backend] = wait_s * (1.0 + STEP * (1.0 - self._share))
        else:
            self._waits_s[backend] = wait_s * (1.0 - STEP * self._share)


async def first_good(calls: Sequence[asyncio.Task[T]], good: Callable[[T], bool]) -> T:
    """Return the first good result; where none is good, that of the first call."""
    waiting = set(calls)
    while waiting:
        done, waiting = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        for call in calls:
            if call in done and good(call.result()):
                return call.result()
    return calls[0].result()
