"""Turns: begins the requests of one worker, in a bounded part of each iteration of the event loop.

Theory of operation. An iteration of the loop handles all that has arrived, connection by
connection. While a worker has more requests than it can answer, hundreds have arrived by then, and
whoever sends most is served most: another tenant's request waits for all of them, before any
limit of the gateway has seen it. So only the first requests of an iteration begin at once. The
others wait in a line, which costs a tenth of refusing them, and begin a few milliseconds' worth in
each iteration, the tenants in turns, by the processor time that their requests have taken
(`FairLine`; not by the clock: while other processes have the core, nobody is served). The line has
one place for each connection, at most.
"""

import asyncio
import time
from collections.abc import Callable
from typing import TypeVar

from tollway.backends.concurrency.fair_line import FairLine

AT_ONCE = 16  # requests: some 3 ms
TURN_S = 0.003

T = TypeVar("T")


class Turns:
    """The requests that are about to begin."""

    # The mutable state is the line, and how many requests have begun in this iteration.
    __slots__ = ("_begun", "_line")

    def __init__(self) -> None:
        self._line: FairLine[tuple[Callable[[object], None], object]] = FairLine()
        self._begun = 0

    def is_now(self, loop: asyncio.AbstractEventLoop) -> bool:
        """Return whether a request may begin at once, and count it."""
        begun = self._begun
        if begun >= AT_ONCE:
            return False
        if not begun:
            loop.call_soon(self._end, loop)
        self._begun = begun + 1
        return True

    def wait(self, tenant: str, begin: Callable[[T], None], request: T) -> None:
        """Begin a tenant's request later, by `begin(request)`."""
        self._line.push(tenant, (begin, request))  # type: ignore[arg-type] # called with its own

    def _end(self, loop: asyncio.AbstractEventLoop) -> None:
        """Begin what waits: the iteration has read all connections that had something to read."""
        line = self._line
        if not line.count:
            self._begun = 0
            return
        now_s = time.thread_time()
        end_s = now_s + TURN_S
        try:
            while line.count and now_s < end_s:
                tenant, (begin, request) = line.pop()
                begin(request)
                since_s, now_s = now_s, time.thread_time()
                line.charge(tenant, now_s - since_s)
        finally:  # a bug in one request must not leave the others in the line
            self._begun = AT_ONCE if line.count else 1  # those who come must not overtake
            loop.call_soon(self._end, loop)
