"""The wallet: reserves money for calls, over all budgets that bind them, without asking anybody.

    reserve_now    in memory, all or nothing; None where some budget's purse has too little
    reserve        the same, asking the ledger first for what is missing
    held.wait      the same, waiting in line while other calls hold what is missing
    settle, void   end a reservation, once

Its teller does all else, off the path: it leases ahead of need, and tells what was spent.
"""

import asyncio
import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Literal

from tollway.gateway.budgets.fair_queue import Lacking, Waiter
from tollway.gateway.budgets.held_money import HOLD_WAIT_S, HeldMoney
from tollway.gateway.budgets.leased_budget import EMPTY, LeasedBudget
from tollway.gateway.budgets.model import (
    Budget,
    BudgetEvent,
    BudgetRefusal,
    BudgetStatus,
    DowngradeAdvice,
    Reason,
    Reservation,
    Scope,
)
from tollway.gateway.budgets.protocol import Ledger
from tollway.gateway.budgets.sync import TICK_S, LedgerSync

MATCHES_MAX = 4096  # tags come from clients: the cache of matches forgets all at this size
NO_POSTURE = DowngradeAdvice()


def ignore(event: BudgetEvent) -> None:
    """Let an event pass."""


class Reservations:
    """The money of one process.

    Its own mutable state is two caches of which budgets bind whom, and those who wait.
    """

    def __init__(
        self,
        ledger: Ledger,
        budgets: Sequence[Budget],
        *,
        holder: str,
        clock: Callable[[], float],
        till_dir: Path | None = None,
        on_event: Callable[[BudgetEvent], None] = ignore,
        on_ledger_failure: Literal["refuse", "allow"] = "refuse",
        hold_wait_s: float = HOLD_WAIT_S,
    ) -> None:
        """`clock` never goes back (`time.monotonic`); the time of day is the ledger's.

        `holder` names the process to operators; leases of two processes differ even where their
        holders' names do not. Without `till_dir`, what a crash leaves open stays charged.
        """
        self._sync = LedgerSync(
            ledger, budgets, holder=holder, clock=clock, till_dir=till_dir, on_event=on_event
        )
        self._clock = clock
        self._when_down = on_ledger_failure
        self.held = HeldMoney(self._take, self._ask_for, self.void, clock, wait_s=hold_wait_s)
        """Those who wait for money that other calls hold."""
        self._matches: dict[tuple[object, ...], tuple[LeasedBudget, ...]] = {}
        self._pacing: dict[tuple[object, ...], tuple[str, ...]] = {}
        self._know(budgets)

    def _know(self, budgets: Sequence[Budget]) -> None:
        self._matches.clear()
        self._pacing.clear()
        self._some_paced = any(budget.paces_some for budget in budgets)
        self.downgrades = any(budget.downgrade_at is not None for budget in budgets)
        """Whether any budget ever asks for cheaper arms."""

    # ------------------------------------------------------------------ on the path

    def matching(
        self, tenant: str, route: str, backend: str, tags: Mapping[str, str]
    ) -> tuple[LeasedBudget, ...]:
        """Return the accounts of every budget that binds such a call."""
        key = (tenant, route, backend, *tags.items())
        found = self._matches.get(key)
        if found is None:
            if len(self._matches) >= MATCHES_MAX:
                self._matches.clear()
            found = self._matches[key] = tuple(
                account
                for account in self._sync.accounts.values()
                if _binds(account.budget.scope, tenant, route, backend, tags)
            )
        return found

    def pacing(self, tenant: str, route: str, tags: Mapping[str, str]) -> tuple[str, ...]:
        """Return the names of the budgets that pace such a call and not all calls of its route."""
        if not self._some_paced:
            return ()
        key = (tenant, route, *tags.items())
        found = self._pacing.get(key)
        if found is None:
            if len(self._pacing) >= MATCHES_MAX:
                self._pacing.clear()
            found = self._pacing[key] = tuple(
                account.budget.name
                for account in self._sync.accounts.values()
                if account.budget.paces_some
                and _binds(account.budget.scope, tenant, route, "", tags)
            )
        return found

    def reserve_now(
        self, accounts: tuple[LeasedBudget, ...], ceiling_nano: int, maximum_nano: int
    ) -> Reservation | None:
        """Hold an attempt's money in every account, or in none; None: the ledger must be asked.

        `maximum_nano` is what it can cost at most, held by hard budgets; `ceiling_nano` what it
        costs in 95 of 100 cases, held by the others. What is quoted at nothing needs no money.
        """
        now_s = self._clock()
        for account in accounts:
            lease = account.lease
            amount_nano = maximum_nano if account.hard else ceiling_nano
            lacking = lease.room_nano < amount_nano or now_s >= lease.until_s
            if lacking and (amount_nano or lease is EMPTY):
                return None
        return self._hold(accounts, ceiling_nano, maximum_nano)

    def _hold(
        self, accounts: tuple[LeasedBudget, ...], ceiling_nano: int, maximum_nano: int
    ) -> Reservation:
        holds, hard_nano = [], None
        for account in accounts:
            lease, amount_nano = account.lease, ceiling_nano
            if account.hard:
                amount_nano = hard_nano = maximum_nano
            lease.hold(amount_nano)
            holds.append((lease, amount_nano))
            if lease.room_nano < lease.low_nano:
                self._sync.wanted.set()
        return Reservation(tuple(holds), hard_nano)

    async def reserve(
        self,
        accounts: tuple[LeasedBudget, ...],
        ceiling_nano: int,
        maximum_nano: int,
        least_nano: int | None = None,
    ) -> Reservation | BudgetRefusal:
        """Hold an attempt's money, asking the ledger for what is missing.

        Where what is not spent is less than `maximum_nano`, all of it is held, if that is at least
        `least_nano`: the caller then limits what the call can cost to `Reservation.hard_nano`.
        """
        while True:
            found = self._try(accounts, ceiling_nano, maximum_nano)
            if isinstance(found, list):
                with self._keeping(accounts, found[0][0], ceiling_nano, maximum_nano):
                    await self._ask_for(found)
                continue
            lower_nano = _lower(found, maximum_nano, least_nano)
            if lower_nano is None:
                return found
            maximum_nano, ceiling_nano = lower_nano, min(ceiling_nano, lower_nano)

    def _try(
        self, accounts: tuple[LeasedBudget, ...], ceiling_nano: int, maximum_nano: int
    ) -> Reservation | BudgetRefusal | Lacking:
        """Hold an attempt's money or refuse it; else return what the ledger must be asked for."""
        while (hold := self.reserve_now(accounts, ceiling_nano, maximum_nano)) is None:
            accounts = tuple(account for account in accounts if not account.gone)
            lacking = self._lacking(accounts, ceiling_nano, maximum_nano)
            for account, amount_nano in lacking:
                if reason := self._refuses(account, amount_nano):
                    if reason not in ("exhausted", "held") and self._is_open:
                        return self._hold(accounts, ceiling_nano, maximum_nano)
                    return account.refusal(amount_nano, reason)
            if lacking:  # else only a purse was missing, of what needs no money: it is there now
                return lacking
        return hold

    def _take(self, waiter: Waiter) -> Reservation | BudgetRefusal | Lacking:
        """Hold or refuse what one in the line asks for; else return what it lacks."""
        if (refusal := waiter.refresh(self._clock())) is not None:
            return refusal
        if waiter.least_nano is not None:  # no need to ask the ledger for what is spent for certain
            lefts = [account.left_nano for account in waiter.accounts if account.hard]
            left_nano = min(lefts, default=waiter.maximum_nano)
            if waiter.least_nano <= left_nano < waiter.maximum_nano:
                waiter.maximum_nano = left_nano
                waiter.ceiling_nano = min(waiter.ceiling_nano, left_nano)
        found = self._try(waiter.accounts, waiter.ceiling_nano, waiter.maximum_nano)
        while (lower := _lower(found, waiter.maximum_nano, waiter.least_nano)) is not None:
            waiter.maximum_nano, waiter.ceiling_nano = lower, min(waiter.ceiling_nano, lower)
            found = self._try(waiter.accounts, waiter.ceiling_nano, waiter.maximum_nano)
        if isinstance(found, BudgetRefusal) and found.reason == "held":
            accounts = tuple(account for account in waiter.accounts if not account.gone)
            return self._lacking(accounts, waiter.ceiling_nano, waiter.maximum_nano)
        return found

    def settle(self, reservation: Reservation, cost_nano: int) -> None:
        """Charge what an attempt has cost, and free the rest of what was held for it; once."""
        if cost_nano < 0:
            raise ValueError(f"a call cannot cost {cost_nano} nano-dollars")
        if reservation.ended:
            raise RuntimeError("a reservation ends once")
        reservation.ended = True
        for lease, amount_nano in reservation.holds:
            lease.settle(amount_nano, cost_nano)
        if self.held.line.count:
            self.held.hand_out()

    def void(self, reservation: Reservation) -> None:
        """Free what was held for an attempt that was not made; once."""
        self.settle(reservation, 0)

    def advice(self, accounts: tuple[LeasedBudget, ...]) -> DowngradeAdvice:
        """Return what budgets near their limit ask of the choice: the lowest of their prices."""
        near = [account.budget for account in accounts if account.near]
        priced = [budget for budget in near if budget.downgrade_max_usd is not None]
        if not priced:
            return NO_POSTURE
        tightest = min(priced, key=lambda budget: budget.downgrade_max_usd or 0.0)
        return DowngradeAdvice(tightest.downgrade_max_usd, tightest.then)

    @property
    def down(self) -> str:
        """Why the ledger cannot be asked now; empty where it can."""
        return self._sync.down

    def status(self) -> list[BudgetStatus]:
        """Return every budget in its current window, as far as this process knows."""
        return [account.status() for account in self._sync.accounts.values()]

    # ------------------------------------------------------------------ asking on the path

    def _lacking(
        self, accounts: tuple[LeasedBudget, ...], ceiling_nano: int, maximum_nano: int
    ) -> list[tuple[LeasedBudget, int]]:
        """Return the accounts whose purse has too little; give those that never refuse a purse."""
        now_s = self._clock()
        lacking = []
        for account in accounts:
            account.roll(now_s + self._sync.lag_s)
            amount_nano = maximum_nano if account.hard else ceiling_nano
            if not account.limited or not amount_nano or self._is_open:
                account.provide(now_s, now_s + self._sync.lag_s)
            lease = account.lease
            if amount_nano and (lease.room_nano < amount_nano or now_s >= lease.until_s):
                lacking.append((account, amount_nano))
        return lacking

    @property
    def _is_open(self) -> bool:
        """Whether calls are made unasked: never while closing, for nobody would tell of them."""
        return bool(self._sync.down) and self._when_down == "allow" and not self._sync.closing

    def _refuses(self, account: LeasedBudget, amount_nano: int) -> Reason | None:
        """Return why a reservation is refused now; None: it waits for the ledger's answer."""
        if self._sync.down or self._sync.closing:
            return self._sync.down or "ledger_down"
        return account.lacks(amount_nano) if account.dry(amount_nano, self._clock()) else None

    @contextlib.contextmanager
    def _keeping(
        self,
        accounts: tuple[LeasedBudget, ...],
        until: LeasedBudget,
        ceiling_nano: int,
        maximum_nano: int,
    ) -> Iterator[None]:
        """Keep what there is in the accounts before the first that lacks, and not beyond it.

        All take budgets in the order of the configuration, so no two wait for each other.
        """
        kept = []
        for account in accounts:
            if account is until:
                break
            amount_nano = maximum_nano if account.hard else ceiling_nano
            account.kept_nano += amount_nano
            kept.append((account, amount_nano))
        try:
            yield
        finally:
            for account, amount_nano in kept:
                account.kept_nano -= amount_nano

    async def _ask_for(self, lacking: list[tuple[LeasedBudget, int]]) -> None:
        """Wait until the ledger has been asked once more, whatever came of it."""
        now_s = self._clock()
        wakes_s = max(account.wakes_s(amount_nano, now_s) for account, amount_nano in lacking)
        if wakes_s > now_s:  # the ledger has said no a moment ago, and money is to come back
            await asyncio.sleep(wakes_s - now_s)
            return
        for account, amount_nano in lacking:
            account.waiting.append(amount_nano)
        try:
            await self._sync.next_round()
        finally:
            for account, amount_nano in lacking:
                account.waiting.remove(amount_nano)

    # ------------------------------------------------------------------ life

    async def open(self, *, tick_s: float = TICK_S) -> None:
        """Connect, reconcile what dead processes left, and start upkeep; raises LedgerDown.

        `tick_s` is how often upkeep looks unasked: rarely, where no other gateway wants the money.
        """
        await self._sync.open(tick_s)

    async def revise(self, budgets: Sequence[Budget]) -> None:
        """Hold other budgets from now on; raises LedgerDown, and nothing has changed then.

        What has not changed keeps its leases. What was reserved of one that has gone or changed is
        settled where it was reserved.
        """
        await self._sync.revise(budgets)
        self._know(budgets)

    async def tell(self) -> None:
        """Have the ledger know at once all that was settled here, so that others can read it."""
        await self._sync.tell()

    async def refresh(self, age_s: float) -> None:
        """Read from the ledger the accounts whose last figures are as old as `age_s`."""
        await self._sync.refresh(age_s)

    async def close(self) -> None:
        """Tell the ledger all, hand back what is left, and let go."""
        await self.held.close()
        await self._sync.close()

    @property
    def holder(self) -> str:
        """The name of this process at the ledger."""
        return self._sync.holder

    @property
    def ledger_calls(self) -> int:
        """How often the ledger was asked."""
        return self._sync.calls


def _lower(found: object, maximum_nano: int, least_nano: int | None) -> int | None:
    """Return the smaller amount to hold where a hard budget has less left than the maximum."""
    if least_nano is None or not isinstance(found, BudgetRefusal) or found.reason != "exhausted":
        return None
    return found.left_nano if least_nano <= found.left_nano < maximum_nano else None


def _binds(scope: Scope, tenant: str, route: str, backend: str, tags: Mapping[str, str]) -> bool:
    """Say whether a scope takes in a call: every part that it gives must be the call's."""
    return (
        scope.tenant in (None, tenant)
        and scope.route in (None, route)
        and scope.backend in (None, backend)
        and all(tags.get(name) == value for name, value in scope.tags)
    )
