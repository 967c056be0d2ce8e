"""The fair queue: reservations that wait for money held by other calls.

Theory of operation. Each tenant has a first-in, first-out queue. Whenever money returns to this
process (a call settles, or the ledger replies), `serve` distributes it before any other call can
take it. Tenants are served round-robin, and each round serves the tenant's oldest reservation that
can be held. A reservation that cannot be held blocks its tenant's younger reservations that need a
budget it lacks, so that many small calls cannot overtake a large one forever. It does not block
other tenants: one tenant's large call must not stop another tenant's small calls.

No call waits while it holds money, so no two calls can wait for each other.
"""

import asyncio
import itertools
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Literal

from tollway.gateway.budgets.leased_budget import LeasedBudget
from tollway.gateway.budgets.model import BudgetRefusal, Reservation

QUEUE_MAX = 1000  # per tenant: half of what a worker accepts at once (`max_in_flight`), so that
# the other half is left to other tenants
WAIT_S = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)

Accounts = tuple[LeasedBudget, ...]
Lacking = list[tuple[LeasedBudget, int]]
End = Literal["granted", "timed_out", "left", "refused", "full"]
ENDS: tuple[End, ...] = ("granted", "timed_out", "left", "refused", "full")

REVISED_S = 0.1  # greatest age of a waiter's amounts: computing them takes 30 us, and each call
# that ends tries the oldest waiter of every tenant

Revise = Callable[[], tuple[int, int] | BudgetRefusal]
"""Recomputes a waiter's (ceiling, maximum), or returns a refusal if the call became impossible."""


@dataclass(slots=True, eq=False)
class Waiter:
    """A waiting reservation. `lacking` is what it lacked when it was last tried.

    `revise` recomputes its amounts, because the limit under a hard budget depends on what other
    calls have cost in the meantime.
    """

    tenant: str
    accounts: Accounts
    ceiling_nano: int
    maximum_nano: int
    number: int
    since_s: float
    lacking: Lacking
    least_nano: int | None = None
    revise: Revise | None = None
    revised_s: float = 0.0
    outcome: asyncio.Future[Reservation | BudgetRefusal] = field(
        default_factory=lambda: asyncio.get_running_loop().create_future()
    )

    def refresh(self, now_s: float) -> BudgetRefusal | None:
        """Recompute the amounts if they are older than REVISED_S."""
        if self.revise is None or now_s - self.revised_s < REVISED_S:
            return None
        revised, self.revised_s = self.revise(), now_s
        if isinstance(revised, BudgetRefusal):
            return revised
        self.ceiling_nano, self.maximum_nano = revised
        return None


Take = Callable[[Waiter], Reservation | BudgetRefusal | Lacking]


class Line:
    """Waiting reservations by tenant. Owned by `Reservations`."""

    # The mutable state is the queues, with the next tenant to serve first, and the counts.

    def __init__(self, queue_max: int = QUEUE_MAX) -> None:
        self.count = 0
        """Number of waiting reservations."""
        self.ends: dict[End, int] = dict.fromkeys(ENDS, 0)
        self.on_wait: Callable[[float], None] = lambda waited_s: None
        """Called with the duration of each wait, in seconds."""
        self._queue_max = queue_max
        self._numbers = itertools.count()
        self._queues: dict[str, dict[Accounts, deque[Waiter]]] = {}
        self._lengths: dict[str, int] = {}

    def join(
        self,
        tenant: str,
        accounts: Accounts,
        *,
        ceiling_nano: int,
        maximum_nano: int,
        lacking: Lacking,
        now_s: float,
        least_nano: int | None = None,
        revise: Revise | None = None,
    ) -> Waiter | None:
        """Queue a reservation; None if its tenant's queue is full."""
        length = self._lengths.get(tenant, 0)
        if length >= self._queue_max:
            self.ends["full"] += 1
            return None
        number = next(self._numbers)
        waiter = Waiter(
            tenant,
            accounts,
            ceiling_nano,
            maximum_nano,
            number,
            now_s,
            lacking,
            least_nano,
            revise,
            revised_s=now_s,
        )
        self._queues.setdefault(tenant, {}).setdefault(accounts, deque()).append(waiter)
        self._lengths[tenant] = length + 1
        self.count += 1
        return waiter

    def leave(self, waiter: Waiter, end: End, now_s: float) -> None:
        """Count how a wait ended and remove a waiter that was not served."""
        self.ends[end] += 1
        self.on_wait(now_s - waiter.since_s)
        lane = self._queues.get(waiter.tenant, {}).get(waiter.accounts)
        if lane and waiter in lane:
            lane.remove(waiter)
            self._shrink(waiter)

    def _shrink(self, waiter: Waiter) -> None:
        tenant, accounts = waiter.tenant, waiter.accounts
        self.count -= 1
        self._lengths[tenant] -= 1
        if not self._queues[tenant][accounts]:
            del self._queues[tenant][accounts]
        if not self._queues[tenant]:
            del self._queues[tenant], self._lengths[tenant]

    def ahead(self, tenant: str, accounts: Accounts) -> LeasedBudget | None:
        """Return a budget that this call needs and an older call of its tenant waits for."""
        for lane in self._queues.get(tenant, {}).values():
            for account, _ in lane[0].lacking:
                if account in accounts:
                    return account
        return None

    def serve(self, take: Take) -> None:
        """Serve tenants round-robin, one reservation each, until none can be held."""
        idle = 0  # consecutive tenants without a reservation that could be served
        while idle < len(self._queues):
            tenant = next(iter(self._queues))
            served = self._serve(tenant, take)
            idle = 0 if served else idle + 1
            if tenant in self._queues:  # moves behind all other tenants
                self._queues[tenant] = self._queues.pop(tenant)

    def _serve(self, tenant: str, take: Take) -> bool:
        """Serve or finally refuse the tenant's oldest waiter for which that is possible."""
        lacked: set[LeasedBudget] = set()
        for waiter in sorted(self._heads(tenant), key=lambda head: head.number):
            if not lacked.isdisjoint(waiter.accounts):
                continue
            outcome = take(waiter)
            if isinstance(outcome, list):
                waiter.lacking = outcome
                lacked.update([account for account, _ in outcome])
                continue
            self._queues[tenant][waiter.accounts].popleft()
            self._shrink(waiter)
            waiter.outcome.set_result(outcome)
            return True
        return False

    def _heads(self, tenant: str) -> Iterator[Waiter]:
        return (lane[0] for lane in self._queues[tenant].values())

    @property
    def wanted(self) -> Lacking:
        """What the oldest waiter of each queue lacks: the smallest amount for each budget."""
        least: dict[LeasedBudget, int] = {}
        for lanes in self._queues.values():
            for lane in lanes.values():
                for account, amount_nano in lane[0].lacking:
                    least[account] = min(amount_nano, least.get(account, amount_nano))
        return list(least.items())

    def lengths(self) -> dict[str, int]:
        """Return the number of waiting reservations by tenant."""
        return dict(self._lengths)
