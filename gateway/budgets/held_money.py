"""Waiting for money that other calls hold.

A call waits in the queue until money returns to this process or the call times out. Returned money
is distributed at once (`hand_out`). While any call waits, one task polls the ledger, because other
gateways may hold the missing money. `Reservations` decides what can be held.
"""

import asyncio
from collections.abc import Awaitable, Callable

from tollway.gateway.budgets.fair_queue import Accounts, Lacking, Line, Revise, Take, Waiter
from tollway.gateway.budgets.model import BudgetRefusal, Reservation

HOLD_WAIT_S = 10.0  # most model calls end by then, and few clients give up earlier


class HeldMoney:
    """Calls in one process that wait for held money. Owned by `Reservations`."""

    # The mutable state is the queue, the longest wait, and the task that polls the ledger.

    def __init__(
        self,
        take: Take,
        ask: Callable[[Lacking], Awaitable[None]],
        void: Callable[[Reservation], None],
        clock: Callable[[], float],
        *,
        wait_s: float = HOLD_WAIT_S,
    ) -> None:
        """Set the callbacks.

        `take` reserves or refuses a waiter's money, or returns what it lacks. `ask` asks the ledger
        for that once, at its own pace. `void` ends a reservation that is no longer wanted.
        """
        self._take = take
        self._ask = ask
        self._void = void
        self._clock = clock
        self.wait_s = wait_s
        """Longest time that a call waits, in seconds."""
        self.line = Line()
        self._keeper: asyncio.Task[None] | None = None

    async def wait(
        self,
        refusal: BudgetRefusal,
        accounts: Accounts,
        ceiling_nano: int,
        maximum_nano: int,
        least_nano: int | None = None,
        *,
        tenant: str,
        deadline_s: float,
        revise: Revise | None = None,
    ) -> Reservation | BudgetRefusal:
        """Wait for other calls to return the money that a reservation lacks, then reserve it.

        Returns a refusal if the wait times out or the money turns out to be spent. The caller must
        hold no money while it waits. If less than `maximum_nano` is unspent, all of it is reserved,
        provided that it is at least `least_nano`. `revise` recomputes both amounts during the wait,
        because other calls may cost less than expected. A wait that is cancelled because the client
        disconnected leaves nothing reserved.
        """
        now_s, line = self._clock(), self.line
        until_s = min(now_s + self.wait_s, deadline_s)
        short = [account for account in accounts if account.budget.name == refusal.budget]
        if until_s <= now_s or not short:
            return refusal
        waiter = line.join(
            tenant,
            accounts,
            ceiling_nano=ceiling_nano,
            maximum_nano=maximum_nano,
            least_nano=least_nano,
            revise=revise,
            lacking=[(account, refusal.asked_nano) for account in short],
            now_s=now_s,
        )
        if waiter is None:
            return refusal
        if self._keeper is None or self._keeper.done():
            self._keeper = asyncio.create_task(self._keep())
        await self._wait_for(waiter, until_s - now_s)
        now_s = self._clock()
        if waiter.outcome.done():
            outcome = waiter.outcome.result()
            line.leave(waiter, "granted" if isinstance(outcome, Reservation) else "refused", now_s)
            return outcome
        line.leave(waiter, "timed_out", now_s)
        return short[0].refusal(refusal.asked_nano, "held")

    async def _wait_for(self, waiter: Waiter, timeout_s: float) -> None:
        """Wait until the waiter is served or times out."""
        try:
            await asyncio.wait([waiter.outcome], timeout=timeout_s)
        except asyncio.CancelledError:
            if waiter.outcome.done() and isinstance(hold := waiter.outcome.result(), Reservation):
                self._void(hold)  # served and cancelled in the same iteration of the event loop
            self.line.leave(waiter, "left", self._clock())
            raise

    def hand_out(self) -> None:
        """Distribute returned money to the waiting calls."""
        self.line.serve(self._take)

    async def _keep(self) -> None:
        """Poll the ledger for the waiting calls, at the rate of a single call that lacks money."""
        while self.line.count:
            await self._ask(self.line.wanted)
            self.hand_out()

    async def close(self) -> None:
        """Refuse the calls that still wait."""
        if self._keeper is not None:
            self._keeper.cancel()
            await asyncio.gather(self._keeper, return_exceptions=True)
        self.line.serve(_closing)


def _closing(waiter: Waiter) -> BudgetRefusal:
    account, amount_nano = waiter.lacking[0]
    return account.refusal(amount_nano, "ledger_down")
