"""Shares the places of a hook or guard among tenants, so that none can keep the others out.

A tenant can write texts that take a regular expression until its time limit. It may use all places
but one, and a place that becomes free goes to the tenant with the fewest in use.
"""

import asyncio
import contextlib
from collections import Counter, deque


class FairSlots:
    """A semaphore that is fair to tenants."""

    # The mutable state is the places in use and the waiting tasks, by tenant.

    def __init__(self, most: int) -> None:
        """`most`: places in all."""
        self._most = most
        self._each = max(1, most - 1)
        self._used: Counter[str] = Counter()
        self._waiting: dict[str, deque[asyncio.Future[None]]] = {}

    @property
    def waiting(self) -> int:
        """The number of tasks that wait."""
        return sum(map(len, self._waiting.values()))

    @property
    def used(self) -> int:
        """The number of places in use."""
        return self._used.total()

    async def acquire(self, tenant: str) -> None:
        """Take a place; wait until there is one."""
        # No task that could have it waits while a place is free: see `_hand_on`.
        if self._is_free_for(tenant):
            self._used[tenant] += 1
            return
        turn = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(tenant, deque()).append(turn)
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():
                self.release(tenant)
            else:
                self._forget(tenant, turn)
            raise

    def release(self, tenant: str) -> None:
        """Give a place back."""
        self._used[tenant] -= 1
        if not self._used[tenant]:
            del self._used[tenant]
        self._hand_on()

    def _is_free_for(self, tenant: str) -> bool:
        return self._used.total() < self._most and self._used[tenant] < self._each

    def _hand_on(self) -> None:
        """Give the free places to those who wait, to tenants with the fewest in use first."""
        while able := [tenant for tenant in self._waiting if self._is_free_for(tenant)]:
            tenant = min(able, key=self._used.__getitem__)
            queue = self._waiting.pop(tenant)
            turn = queue.popleft()
            if queue:
                self._waiting[tenant] = queue  # after the others
            if not turn.done():
                self._used[tenant] += 1
                turn.set_result(None)

    def _forget(self, tenant: str, turn: "asyncio.Future[None]") -> None:
        queue = self._waiting.get(tenant)
        if queue is None:
            return
        with contextlib.suppress(ValueError):
            queue.remove(turn)
        if not queue:
            del self._waiting[tenant]
