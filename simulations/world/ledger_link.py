"""A gateway's network link to the ledger, with a delay; it can be cut."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

from tollway.gateway.budgets.model import Budget
from tollway.gateway.budgets.protocol import (
    BatchReply,
    BudgetChange,
    BudgetPosition,
    LeaseExchange,
    LedgerUnavailable,
    RecoveryClaim,
    WindowStatement,
)
from tollway.gateway.budgets.stores.memory import MemoryLedger
from tollway.simulations.world.clock import VirtualLoop

T = TypeVar("T")

NOTICED_S = 0.25  # how long it takes to notice that no reply comes


class LedgerLine:
    """A ledger across a network."""

    # The mutable state is whether it is cut.

    may_forget = False

    def __init__(self, ledger: MemoryLedger, loop: VirtualLoop, delay_s: float) -> None:
        """`delay_s` is the round-trip time."""
        self._ledger = ledger
        self._loop = loop
        self._delay_s = delay_s
        self.cut = False

    async def open(self) -> None:
        """Do nothing."""

    async def close(self) -> None:
        """Do nothing."""

    async def _carry(self, ask: Callable[[], Awaitable[T]]) -> T:
        """Send a request; it or its reply is lost while the link is cut."""
        await asyncio.sleep(self._delay_s / 2)
        await self._pass()
        answer = await ask()
        await asyncio.sleep(self._delay_s / 2)
        await self._pass()
        return answer

    async def _pass(self) -> None:
        if self.cut:
            await asyncio.sleep(NOTICED_S)
            raise LedgerUnavailable("no route to the ledger")

    async def register(self, budgets: Sequence[Budget]) -> BatchReply:
        """Register budgets."""
        return await self._carry(lambda: self._ledger.register(budgets))

    async def exchange(self, exchanges: Sequence[LeaseExchange]) -> BatchReply:
        """Apply each exchange once."""
        return await self._carry(lambda: self._ledger.exchange(exchanges))

    async def reconcile(self, claims: Sequence[RecoveryClaim]) -> int:
        """End dead leases."""
        return await self._carry(lambda: self._ledger.reconcile(claims))

    async def accounts(self, keys: Sequence[tuple[str, int]]) -> tuple[WindowStatement, ...]:
        """Return accounts."""
        return await self._carry(lambda: self._ledger.accounts(keys))

    async def change(self, change: BudgetChange) -> BudgetPosition:
        """Apply an operator's change."""
        return await self._carry(lambda: self._ledger.change(change))

    async def changes(self, budget: str) -> tuple[BudgetChange, ...]:
        """Return the changes of a budget."""
        return await self._carry(lambda: self._ledger.changes(budget))
