"""Slots: who may call a backend now; the rest wait in a queue as long as it can serve in time.

A slot is held from before a call is sent until its reply has ended. When all are taken, a call
waits for the next, in order of arrival, unless it would wait too long: then it is refused at once,
which a client can act on, rather than late, which it cannot. How long it would wait is known by
Little's law: (calls waiting + 1) * how long a slot is held / slots.
"""

import asyncio
from collections import deque
from typing import Protocol, Self

from tollway.backends.types import DeadlineExceeded, Overloaded

QUEUE_MAX = 10_000  # futures of a kilobyte each: a limit of last resort
ADMIT = 0.5  # of the patience: a longer wait than expected is then still in time
RATE = 0.05  # of the mean holding time: about the last twenty calls


class Limit(Protocol):
    """How many calls at once a backend should have, found from its replies (see `limiter.py`)."""

    @property
    def by_first_event(self) -> bool:
        """Whether the first event of a stream tells more than its head."""

    def adopt(self, old: Self) -> None:
        """Go on where a limiter of the same kind with other settings has come to."""

    @property
    def limit(self) -> int:
        """Calls that may be made at once."""

    @property
    def usual(self) -> int:
        """The limit, but for a change that lasts a moment."""

    def observe(self, now_s: float, latency_s: float, busy: int) -> None:
        """Take a good reply, whole or its head; `busy` are the calls there were, it included."""

    def begun(self, now_s: float, latency_s: float, busy: int) -> None:
        """Take the first event of a stream."""

    def refused(self, now_s: float) -> None:
        """Note that the backend said that it has too much to do."""

    def press(self, now_s: float) -> None:
        """Note that a call finds no place."""


class ConcurrencyQueue:
    """The slots of one backend."""

    # The mutable state: how many are taken, who waits, how long slots are held, who was refused.

    def __init__(
        self,
        most: int,
        *,
        patience_s: float | None = None,
        queue: int = QUEUE_MAX,
        limiter: Limit | None = None,
    ) -> None:
        """`most` calls at once, or what `limiter` finds below that. With `patience_s` calls that
        would wait longer are refused; without, they wait until their deadline.
        """
        self._most = most
        self._patience_s = patience_s
        self._queue_most = queue
        self._limiter = limiter
        self._waiters: deque[asyncio.Future[bool]] = deque()
        self._held_s = 0.0
        self.busy = 0
        self.refused = 0

    @property
    def limit(self) -> int:
        """Calls that may be made at once, as of now."""
        return self._most if self._limiter is None else self._limiter.limit

    def revise(self, most: int, *, patience_s: float | None, limiter: Limit | None) -> None:
        """Take other settings. Calls keep their slots and their places in the queue, and a limiter
        of the same kind goes on where the last one has come to.
        """
        if limiter is not None and type(limiter) is type(self._limiter):
            limiter.adopt(self._limiter)
        self._most, self._patience_s, self._limiter = most, patience_s, limiter
        self._admit()

    @property
    def waiting(self) -> int:
        """Calls in the queue."""
        return len(self._waiters)

    @property
    def full(self) -> bool:
        """Whether a call now would be refused."""
        limiter = self._limiter
        if self.busy < (self._most if limiter is None else limiter.limit):
            return False
        if limiter is not None:
            limiter.press(asyncio.get_running_loop().time())
            self._admit()
            if self.busy < self.limit:
                return False
        if self.waiting >= self._queue_most:
            return True
        if self._patience_s is None:
            return False
        most = self._most if limiter is None else limiter.usual
        return (self.waiting + 1) * self._held_s / most > ADMIT * self._patience_s

    async def enter(self, deadline_s: float) -> None:
        """Take a slot; Overloaded or DeadlineExceeded (the loop's time) where there is none."""
        if self.busy < self.limit:
            self.busy += 1
        else:
            await self._wait(deadline_s)

    def leave(self, held_s: float) -> None:
        """Give a slot back that was held for `held_s`: to the first in the queue."""
        self._held_s += (RATE if self._held_s else 1.0) * (held_s - self._held_s)
        self.busy -= 1
        self._admit()

    @property
    def awaits_events(self) -> bool:
        """Whether it wants to know of the first event of a stream (`begun`)."""
        return self._limiter is not None and self._limiter.by_first_event

    def answered(self, latency_s: float, status: int, *, streamed: bool = False) -> None:
        """Note how long the head of a reply took, and whether the backend had too much to do.

        `streamed`: its first event is told of later, where that is wanted.
        """
        limiter = self._limiter
        if limiter is None:
            return
        now_s = asyncio.get_running_loop().time()
        if status in (429, 503):
            limiter.refused(now_s)
        elif limiter.by_first_event:
            if status < 400 and not streamed:
                limiter.observe(now_s, latency_s, self.busy)
        elif status < 500:
            limiter.observe(now_s, latency_s, self.busy)

    def begun(self, latency_s: float) -> None:
        """Note how long the first event of a stream took."""
        if self._limiter is not None:
            self._limiter.begun(asyncio.get_running_loop().time(), latency_s, self.busy)

    def close(self) -> None:
        """Have all who wait fail."""
        for waiter in list(self._waiters):
            settle(waiter, False)

    # ------------------------------------------------------------------ the queue

    def _admit(self) -> None:
        while self._waiters and self.busy < self.limit:
            if settle(self._waiters.popleft(), True):
                self.busy += 1

    async def _wait(self, deadline_s: float) -> None:
        loop = asyncio.get_running_loop()
        if self.full:
            self.refused += 1
            raise Overloaded(f"{self.busy} calls are under way and {self.waiting} wait already")
        if self.busy < self.limit:  # a probe ended just now
            self.busy += 1
            return
        until_s = deadline_s
        if self._patience_s is not None:
            until_s = min(deadline_s, loop.time() + self._patience_s)
        waiter: asyncio.Future[bool] = loop.create_future()
        self._waiters.append(waiter)
        timer = loop.call_at(until_s, settle, waiter, False)
        try:
            granted = await waiter
        except asyncio.CancelledError:
            if not waiter.cancelled() and waiter.result():
                self.busy -= 1  # the slot came in the same turn as the cancellation
                self._admit()
            raise
        finally:
            timer.cancel()
            if waiter in self._waiters:
                self._waiters.remove(waiter)
        if not granted:
            if until_s < deadline_s:
                self.refused += 1
                raise Overloaded(f"no turn within {self._patience_s} s")
            raise DeadlineExceeded("no connection became free within the deadline", ran=False)


def settle(waiter: asyncio.Future[bool], granted: bool) -> bool:
    """Tell one who waits; return whether it still does."""
    if waiter.done():
        return False
    waiter.set_result(granted)
    return True
