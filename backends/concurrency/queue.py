"""The concurrency queue: grants slots to call a backend, and queues calls it can serve in time.

A call holds a slot from before it is sent until its reply has ended. When all slots are taken, a
call waits for the next one. Tenants are served fairly by the time for which their calls hold slots
(`fair_line.py`), the calls of one tenant in order of arrival. If a call would wait too long, it is
refused at once: a client can react to an early refusal, but not to a late one. The expected wait
follows from Little's law: (calls waiting ahead of it + 1) * how long a slot is held / slots.
"""

import asyncio
from typing import Protocol, Self

from tollway.backends.concurrency.fair_line import FairLine
from tollway.backends.errors import DeadlineExceeded, Overloaded

QUEUE_MAX = 10_000  # futures of a kilobyte each: a limit of last resort
ADMIT = 0.5  # of the patience: a call that waits longer than expected is then still in time
RATE = 0.05  # of the mean holding time: about the last twenty calls


class Limit(Protocol):
    """A limit of concurrent calls to a backend, found from its replies (see `limiter.py`)."""

    @property
    def by_first_event(self) -> bool:
        """Whether it measures the first event of a stream rather than the reply's head."""

    def adopt(self, old: Self) -> None:
        """Take over the state of a limiter of the same kind with other settings."""

    @property
    def limit(self) -> int:
        """Maximum concurrent calls."""

    @property
    def usual(self) -> int:
        """The limit, ignoring a short change."""

    def observe(self, now_s: float, latency_s: float, busy: int, tenant: str = "") -> None:
        """Record a good reply, whole or its head; `busy` are the concurrent calls, including this
        one.
        """

    def begun(self, now_s: float, latency_s: float, busy: int, tenant: str = "") -> None:
        """Record the first event of a stream."""

    def refused(self, now_s: float, tenant: str = "") -> None:
        """Record that the backend reported overload."""

    def press(self, now_s: float) -> None:
        """Record that a call found no free slot."""


class ConcurrencyQueue:
    """The slots of one backend."""

    # The mutable state: taken slots, waiting calls, how long slots are held, and recent refusals.

    def __init__(
        self,
        most: int,
        *,
        patience_s: float | None = None,
        queue: int = QUEUE_MAX,
        limiter: Limit | None = None,
    ) -> None:
        """`most` concurrent calls, or the limit that `limiter` finds below that.

        With `patience_s`, calls that would wait longer are refused; without it, they wait until
        their deadline.
        """
        self._most = most
        self.patience_s = patience_s
        self._queue_most = queue
        self._limiter = limiter
        self._waiters: FairLine[asyncio.Future[bool]] = FairLine()
        self._held_s = 0.0
        self.busy = 0
        self.refused = 0

    @property
    def limit(self) -> int:
        """Current maximum of concurrent calls."""
        return self._most if self._limiter is None else self._limiter.limit

    def revise(self, most: int, *, patience_s: float | None, limiter: Limit | None) -> None:
        """Change the settings.

        Calls keep their slots and their places in the queue, and a limiter of the same kind takes
        over the state of the last one.
        """
        if limiter is not None and type(limiter) is type(self._limiter):
            limiter.adopt(self._limiter)
        self._most, self.patience_s, self._limiter = most, patience_s, limiter
        self._admit()

    @property
    def waiting(self) -> int:
        """Calls in the queue."""
        return self._waiters.count

    def is_full(self, tenant: str = "") -> bool:
        """Whether a tenant's call now would be refused."""
        limiter = self._limiter
        if self.busy < (self._most if limiter is None else limiter.limit):
            return False
        if limiter is not None:
            limiter.press(asyncio.get_running_loop().time())
            self._admit()
            if self.busy < self.limit:
                return False
        ahead = self._waiters.ahead(tenant)
        return ahead >= self._queue_most or self.is_too_long(ahead)

    def is_too_long(self, ahead: float) -> bool:
        """Whether a call with so many ahead of it would probably wait too long."""
        if self.patience_s is None:
            return False
        most = self._most if self._limiter is None else self._limiter.usual
        return (ahead + 1) * self._held_s / most > ADMIT * self.patience_s

    def enter_now(self) -> bool:
        """Take a slot if one is free, and return whether."""
        limiter = self._limiter
        if self.busy >= (self._most if limiter is None else limiter.limit):
            return False
        self.busy += 1
        return True

    async def enter(self, deadline_s: float, tenant: str = "") -> None:
        """Take a slot, or raise Overloaded or DeadlineExceeded (on the loop's clock)."""
        if self.busy < self.limit:
            self.busy += 1
        else:
            await self._wait(deadline_s, tenant)

    def leave(self, held_s: float, tenant: str = "") -> None:
        """Return a slot that a tenant held for `held_s`: it goes to the next call in the queue."""
        if self._waiters.count:
            self._waiters.charge(tenant, held_s - self._held_s)
        self._held_s += (RATE if self._held_s else 1.0) * (held_s - self._held_s)
        self.busy -= 1
        if self._waiters.count:
            self._admit()

    @property
    def awaits_events(self) -> bool:
        """Whether it needs the first event of a stream (`begun`)."""
        return self._limiter is not None and self._limiter.by_first_event

    def answered(
        self, latency_s: float, status: int, *, streamed: bool = False, tenant: str = ""
    ) -> None:
        """Record how long the head of a reply took, and whether the backend reported overload.

        `streamed`: the first event is reported later (`begun`), where that is needed.
        """
        limiter = self._limiter
        if limiter is None:
            return
        now_s = asyncio.get_running_loop().time()
        if status in (429, 503):
            limiter.refused(now_s, tenant)
        elif limiter.by_first_event:
            if status < 400 and not streamed:
                limiter.observe(now_s, latency_s, self.busy, tenant)
        elif status < 500:
            limiter.observe(now_s, latency_s, self.busy, tenant)

    def begun(self, latency_s: float, tenant: str = "") -> None:
        """Record how long the first event of a stream took."""
        if self._limiter is not None:
            self._limiter.begun(asyncio.get_running_loop().time(), latency_s, self.busy, tenant)

    def close(self) -> None:
        """Fail all waiting calls."""
        for waiter in self._waiters.items():
            settle(waiter, False)

    # ------------------------------------------------------------------ the queue

    def _admit(self) -> None:
        while self._waiters.count and self.busy < self.limit:
            tenant, waiter = self._waiters.pop()
            if settle(waiter, True):
                self.busy += 1
                self._waiters.charge(tenant, self._held_s)  # corrected when the slot comes back

    async def _wait(self, deadline_s: float, tenant: str) -> None:
        loop = asyncio.get_running_loop()
        if self.is_full(tenant):
            self.refused += 1
            raise Overloaded(f"{self.busy} calls are running and {self.waiting} are waiting")
        if self.busy < self.limit:  # a probe ended just now
            self.busy += 1
            return
        until_s = deadline_s
        if self.patience_s is not None:
            until_s = min(deadline_s, loop.time() + self.patience_s)
        waiter: asyncio.Future[bool] = loop.create_future()
        self._waiters.push(tenant, waiter)
        timer = loop.call_at(until_s, settle, waiter, False)
        try:
            granted = await waiter
        except asyncio.CancelledError:
            if not waiter.cancelled() and waiter.result():
                self.busy -= 1  # the slot came in the same loop iteration as the cancellation
                self._admit()
            raise
        finally:
            timer.cancel()
            self._waiters.discard(tenant, waiter)  # if it was not served
        if not granted:
            if until_s < deadline_s:
                self.refused += 1
                raise Overloaded(f"no slot became free within {self.patience_s} s")
            raise DeadlineExceeded("no connection became free within the deadline", ran=False)


def settle(waiter: asyncio.Future[bool], granted: bool) -> bool:
    """Resolve a waiting call's future; return whether it was still waiting."""
    if waiter.done():
        return False
    waiter.set_result(granted)
    return True
