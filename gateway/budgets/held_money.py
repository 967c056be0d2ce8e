"""Waits for money that other calls hold, on behalf of calls that need it.

A call waits in the line until money comes back to this process, which hands it out at once
(`hand_out`), or until its time is up. While anybody waits, one task asks the ledger again and
again, for other gateways may hold what is missing. The wallet says what can be held.
"""

import asyncio
from collections.abc import Awaitable, Callable

from tollway.gateway.budgets.fair_queue import Accounts, Lacking, Line, Revise, Take, Waiter
from tollway.gateway.budgets.model import BudgetRefusal, Reservation

HOLD_WAIT_S = 10.0  # most calls of a model are over by then, and few clients give up before


class HeldMoney:
    """Those who wait in one process; its wallet owns it."""

    # The mutable state is the line, the longest wait, and the task that asks the ledger.

    def __init__(
        self,
        take: Take,
        ask: Callable[[Lacking], Awaitable[None]],
        void: Callable[[Reservation], None],
        clock: Callable[[], float],
        *,
        wait_s: float = HOLD_WAIT_S,
    ) -> None:
        """`take` holds or refuses what a waiter needs, or says what it lacks; `ask` asks the ledger
        for that once, at its own pace; `void` ends a reservation that nobody wants any more.
        """
        self._take = take
        self._ask = ask
        self._void = void
        self._clock = clock
        self.wait_s = wait_s
        """How long a call waits at most."""
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
        """Hold what was refused, once the calls that hold it now give it back.

        A refusal if they have not done so in time, or if it turns out to be spent. Whoever waits
        must hold no money meanwhile. Where less than `maximum_nano` is left at all, what is left is
        held, if that is at least `least_nano`. `revise` works out the two amounts again during the
        wait, as other calls may have cost less than expected. Cancelled where the client leaves, it
        leaves nothing held.
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
        await self._found(waiter, until_s - now_s)
        now_s = self._clock()
        if waiter.found.done():
            found = waiter.found.result()
            line.leave(waiter, "granted" if isinstance(found, Reservation) else "refused", now_s)
            return found
        line.leave(waiter, "timed_out", now_s)
        return short[0].refusal(refusal.asked_nano, "held")

    async def _found(self, waiter: Waiter, timeout_s: float) -> None:
        """Wait until a waiter is served or its time is up."""
        try:
            await asyncio.wait([waiter.found], timeout=timeout_s)
        except asyncio.CancelledError:
            if waiter.found.done() and isinstance(hold := waiter.found.result(), Reservation):
                self._void(hold)  # served and cancelled in the same turn of the loop
            self.line.leave(waiter, "left", self._clock())
            raise

    def hand_out(self) -> None:
        """Give what has come back to those who wait for it."""
        self.line.serve(self._take)

    async def _keep(self) -> None:
        """Ask the ledger for those who wait, as often as a single call that is short asks."""
        while self.line.count:
            await self._ask(self.line.wanted)
            self.hand_out()

    async def close(self) -> None:
        """Refuse those who still wait."""
        if self._keeper is not None:
            self._keeper.cancel()
            await asyncio.gather(self._keeper, return_exceptions=True)
        self.line.serve(_closing)


def _closing(waiter: Waiter) -> BudgetRefusal:
    account, amount_nano = waiter.lacking[0]
    return account.refusal(amount_nano, "ledger_down")
