"""Operators' view of budgets and changes to them. The ledger records who made a change and why.

No change lowers the spent amount. A reset credits the window with what it has spent: the whole
limit is free again, and the true amount spent remains visible.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

from tollway.gateway.budgets.calendar import WindowSpan, window_at
from tollway.gateway.budgets.model import MAX_LIMIT_NANO, Budget, BudgetStatus
from tollway.gateway.budgets.protocol import BudgetChange, Clock, LeaseView, Ledger, WindowStatement


@dataclass(frozen=True, slots=True)
class BudgetDetails:
    """A budget in its current window, with its leases and its change history."""

    status: BudgetStatus
    holders: tuple[LeaseView, ...]
    changes: tuple[BudgetChange, ...]


class BudgetAdmin:
    """Operations on a configuration's budgets. Raises KeyError for an unknown budget."""

    def __init__(self, ledger: Ledger, budgets: Sequence[Budget], clock: Clock = time.time) -> None:
        """The ledger must be open. `clock` supplies the recorded time of a change."""
        self._ledger = ledger
        self._budgets = {budget.name: budget for budget in budgets}
        self._clock = clock

    async def list(self) -> list[BudgetStatus]:
        """Return every budget in its current window, read from the ledger."""
        return [_status(*row) for row in await self._look(tuple(self._budgets.values()))]

    async def show(self, name: str) -> BudgetDetails:
        """Return one budget in its current window, with its holders and its changes."""
        [(budget, span, account)] = await self._look([self._budgets[name]])
        changes = await self._ledger.changes(name)
        return BudgetDetails(_status(budget, span, account), account.leases, changes)

    async def set_limit(self, name: str, limit_nano: int, who: str, why: str) -> BudgetDetails:
        """Set the limit, effective now and until the configured limit changes."""
        if not 0 <= limit_nano <= MAX_LIMIT_NANO:
            raise ValueError(
                f"the limit must be 0 to {MAX_LIMIT_NANO} nano-dollars, not {limit_nano}"
            )
        [(_, span, _)] = await self._look([self._budgets[name]])
        return await self._act(BudgetChange("limit", name, limit_nano, who, why, span.start_s))

    async def credit(self, name: str, amount_nano: int, who: str, why: str) -> BudgetDetails:
        """Add to the limit of the current window only."""
        if not 0 < amount_nano <= MAX_LIMIT_NANO:
            raise ValueError(
                f"the credit must be 1 to {MAX_LIMIT_NANO} nano-dollars, not {amount_nano}"
            )
        [(_, span, _)] = await self._look([self._budgets[name]])
        return await self._act(BudgetChange("credit", name, amount_nano, who, why, span.start_s))

    async def reset(self, name: str, who: str, why: str) -> BudgetDetails:
        """Make the whole limit free again by crediting what was used since the last reset.

        Reservations in progress stay held. If nothing was spent, this does nothing.
        """
        before = await self.show(name)
        amount_nano = before.status.used_nano - before.status.credit_nano
        return await self.credit(name, amount_nano, who, why) if amount_nano > 0 else before

    async def release(
        self, name: str, lease: str, who: str, why: str, billed_nano: int = 0
    ) -> BudgetDetails:
        """Declare that a lease's money was not spent, except for what a provider billed.

        If its holder is still alive, it may spend no more from the lease. What it has already spent
        is still charged.
        """
        [(_, span, _)] = await self._look([self._budgets[name]])
        if not 0 <= billed_nano <= MAX_LIMIT_NANO:
            raise ValueError(
                f"the billed amount must be 0 to {MAX_LIMIT_NANO} nano-dollars, not {billed_nano}"
            )
        return await self._act(
            BudgetChange("release", name, billed_nano, who, why, span.start_s, lease)
        )

    async def _look(
        self, budgets: Sequence[Budget]
    ) -> Sequence[tuple[Budget, WindowSpan, WindowStatement]]:
        """Return budgets with their current windows and the ledger's statements.

        Reading changes nothing: gateways register their configuration when they start. If reading
        registered it too, two configurations with different limits would overwrite each other at
        every read.
        """
        now_s = (await self._ledger.register(())).now_s
        spans = [window_at(budget.window, budget.timezone, now_s) for budget in budgets]
        places = [(b.name, span.start_s) for b, span in zip(budgets, spans, strict=True)]
        try:
            accounts = await self._ledger.accounts(places)
        except KeyError:  # no gateway has started with one of these budgets yet
            await self._ledger.register(budgets)
            accounts = await self._ledger.accounts(places)
        return tuple(zip(budgets, spans, accounts, strict=True))

    async def _act(self, change: BudgetChange) -> BudgetDetails:
        if not change.who.strip() or not change.why.strip():
            raise ValueError("a budget change requires `who` and `why`")
        who, why = change.who.strip(), change.why.strip()
        await self._ledger.change(replace(change, who=who, why=why, at_s=self._clock()))
        return await self.show(change.budget)


def _status(budget: Budget, span: WindowSpan, account: WindowStatement) -> BudgetStatus:
    position = account.position
    return BudgetStatus(
        budget=budget,
        window_start_s=span.start_s,
        resets_at_s=span.end_s,
        limit_nano=position.limit_nano,
        spent_nano=position.spent_nano,
        held_nano=position.leased_nano,
        free_nano=position.free_nano,
        overdraft_nano=position.overdraft_nano,
        unaccounted_nano=position.unaccounted_nano,
        credit_nano=position.credit_nano,
        carried_nano=position.carried_nano,
    )
