"""The office: what operators see of budgets, and do to them; the ledger keeps who did it and why.

Nothing here ever lowers what is spent. A reset credits the window with what it has spent, so that
the whole limit is free again and the true figure still stands beside it.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

from tollway.gateway.budgets.calendar import WindowSpan, window_at
from tollway.gateway.budgets.model import MAX_LIMIT_NANO, Budget, BudgetStatus
from tollway.gateway.budgets.protocol import BudgetChange, Clock, LeaseView, Ledger, WindowStatement


@dataclass(frozen=True, slots=True)
class BudgetDetails:
    """A budget with all that is known of it in its current window."""

    status: BudgetStatus
    holders: tuple[LeaseView, ...]
    changes: tuple[BudgetChange, ...]


class BudgetAdmin:
    """Operators' view of the budgets of a configuration. Raises KeyError for one not in it."""

    def __init__(self, ledger: Ledger, budgets: Sequence[Budget], clock: Clock = time.time) -> None:
        """The ledger must be open; `clock` says when a change was made, for the record."""
        self._ledger = ledger
        self._budgets = {budget.name: budget for budget in budgets}
        self._clock = clock

    async def list(self) -> list[BudgetStatus]:
        """Return every budget in its current window, straight from the ledger."""
        return [_status(*row) for row in await self._look(tuple(self._budgets.values()))]

    async def show(self, name: str) -> BudgetDetails:
        """Return one budget with its holders, in the current window, and its changes."""
        [(budget, span, account)] = await self._look([self._budgets[name]])
        changes = await self._ledger.changes(name)
        return BudgetDetails(_status(budget, span, account), account.leases, changes)

    async def set_limit(self, name: str, limit_nano: int, who: str, why: str) -> BudgetDetails:
        """Set the limit, from now on and until the configuration's own limit changes."""
        if not 0 <= limit_nano <= MAX_LIMIT_NANO:
            raise ValueError(f"a limit is 0 to {MAX_LIMIT_NANO} nano-dollars, not {limit_nano}")
        [(_, span, _)] = await self._look([self._budgets[name]])
        return await self._act(BudgetChange("limit", name, limit_nano, who, why, span.start_s))

    async def credit(self, name: str, amount_nano: int, who: str, why: str) -> BudgetDetails:
        """Add to the limit of the current window alone."""
        if not 0 < amount_nano <= MAX_LIMIT_NANO:
            raise ValueError(f"a credit is 1 to {MAX_LIMIT_NANO} nano-dollars, not {amount_nano}")
        [(_, span, _)] = await self._look([self._budgets[name]])
        return await self._act(BudgetChange("credit", name, amount_nano, who, why, span.start_s))

    async def reset(self, name: str, who: str, why: str) -> BudgetDetails:
        """Make the whole limit free again: credit what was used of it since the last reset.

        What is under way stays held. Where nothing was spent, nothing is done.
        """
        before = await self.show(name)
        amount_nano = before.status.used_nano - before.status.credit_nano
        return await self.credit(name, amount_nano, who, why) if amount_nano > 0 else before

    async def release(
        self, name: str, lease: str, who: str, why: str, billed_nano: int = 0
    ) -> BudgetDetails:
        """Declare that a lease's money was not spent, but for what a provider billed of it.

        Its holder, should it live, spends no more of it, but what it has spent is still charged.
        """
        [(_, span, _)] = await self._look([self._budgets[name]])
        if not 0 <= billed_nano <= MAX_LIMIT_NANO:
            raise ValueError(f"a bill is 0 to {MAX_LIMIT_NANO} nano-dollars, not {billed_nano}")
        return await self._act(
            BudgetChange("release", name, billed_nano, who, why, span.start_s, lease)
        )

    async def _look(
        self, budgets: Sequence[Budget]
    ) -> Sequence[tuple[Budget, WindowSpan, WindowStatement]]:
        """Return budgets with their current windows and what the ledger has of them.

        Looking changes nothing: a configuration is registered by the gateways that start with it.
        Were it here, two whose limits differ would set them to and fro as they are looked at.
        """
        now_s = (await self._ledger.register(())).now_s
        spans = [window_at(budget.window, budget.timezone, now_s) for budget in budgets]
        places = [(b.name, span.start_s) for b, span in zip(budgets, spans, strict=True)]
        try:
            accounts = await self._ledger.accounts(places)
        except KeyError:  # no gateway has begun with one of them yet
            await self._ledger.register(budgets)
            accounts = await self._ledger.accounts(places)
        return tuple(zip(budgets, spans, accounts, strict=True))

    async def _act(self, change: BudgetChange) -> BudgetDetails:
        if not change.who.strip() or not change.why.strip():
            raise ValueError("a change to a budget says who made it and why")
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
