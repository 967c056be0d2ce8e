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

from gateway.ledger.account import EMPTY, Account
from gateway.ledger.held_money import HOLD_WAIT_S, HeldMoney
from gateway.ledger.line import Lacking, Waiter
from gateway.ledger.teller import TICK_S, Teller
from gateway.ledger.types import (
    Budget,
    BudgetEvent,
    BudgetStatus,
    Ledger,
    Posture,
    Reason,
    Refusal,
    Reservation,
    Scope,
)

MATCHES_MAX = 4096  # tags come from clients: the cache of matches forgets all at this size
NO_POSTURE = Posture()


def ignore(event: BudgetEvent) -> None:
    """Let an event pass."""


class Wallet:
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
        when_down: Literal["closed", "open"] = "closed",
        hold_wait_s: float = HOLD_WAIT_S,
    ) -> None:
        """`clock` never goes back (`time.monotonic`); the time of day is the ledger's.

        `holder` names the process to operators; leases of two processes differ even where their
        holders' names do not. Without `till_dir`, what a crash leaves open stays charged.
        """
        self._teller = Teller(
            ledger, budgets, holder=holder, clock=clock, till_dir=till_dir, on_event=on_event
        )
        self._clock = clock
        self._when_down = when_down
        self.held = HeldMoney(self._take, self._ask_for, self.void, clock, wait_s=hold_wait_s)
        """Those who wait for money that other calls hold."""
        self._matches: dict[tuple[object, ...], tuple[Account, ...]] = {}
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
    ) -> tuple[Account, ...]:
        """Return the accounts of every budget that binds such a call."""
        key = (tenant, route, backend, *tags.items())
        found = self._matches.get(key)
        if found is None:
            if len(self._matches) >= MATCHES_MAX:
                self._matches.clear()
            found = self._matches[key] = tuple(
                account
                for account in self._teller.accounts.values()
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
                for account in self._teller.accounts.values()
                if account.budget.paces_some
                and _binds(account.budget.scope, tenant, route, "", tags)
            )
        return found

    def reserve_now(
        self, accounts: tuple[Account, ...], ceiling_nano: int, maximum_nano: int
    ) -> Reservation | None:
        """Hold an attempt's money in every account, or in none; None: the ledger must be asked.

        `maximum_nano` is what it can cost at most, held by hard budgets; `ceiling_nano` what it
        costs in 95 of 100 cases, held by the others. What is quoted at nothing needs no money.
        """
        now_s = self._clock()
        for account in accounts:
            purse = account.purse
            amount_nano = maximum_nano if account.hard else ceiling_nano
            lacking = purse.room_nano < amount_nano or now_s >= purse.until_s
            if lacking and (amount_nano or purse is EMPTY):
                return None
        return self._hold(accounts, ceiling_nano, maximum_nano)

    def _hold(
        self, accounts: tuple[Account, ...], ceiling_nano: int, maximum_nano: int
    ) -> Reservation:
        holds, hard_nano = [], None
        for account in accounts:
            purse, amount_nano = account.purse, ceiling_nano
            if account.hard:
                amount_nano = hard_nano = maximum_nano
            purse.hold(amount_nano)
            holds.append((purse, amount_nano))
            if purse.room_nano < purse.low_nano:
                self._teller.wanted.set()
        return Reservation(tuple(holds), hard_nano)

    async def reserve(
        self,
        accounts: tuple[Account, ...],
        ceiling_nano: int,
        maximum_nano: int,
        least_nano: int | None = None,
    ) -> Reservation | Refusal:
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
        self, accounts: tuple[Account, ...], ceiling_nano: int, maximum_nano: int
    ) -> Reservation | Refusal | Lacking:
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

    def _take(self, waiter: Waiter) -> Reservation | Refusal | Lacking:
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
        if isinstance(found, Refusal) and found.reason == "held":
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
        for purse, amount_nano in reservation.holds:
            purse.settle(amount_nano, cost_nano)
        if self.held.line.count:
            self.held.hand_out()

    def void(self, reservation: Reservation) -> None:
        """Free what was held for an attempt that was not made; once."""
        self.settle(reservation, 0)

    def posture(self, accounts: tuple[Account, ...]) -> Posture:
        """Return what budgets near their limit ask of the choice: the lowest of their prices."""
        near = [account.budget for account in accounts if account.near]
        priced = [budget for budget in near if budget.downgrade_max_usd is not None]
        if not priced:
            return NO_POSTURE
        tightest = min(priced, key=lambda budget: budget.downgrade_max_usd or 0.0)
        return Posture(tightest.downgrade_max_usd, tightest.then)

    @property
    def down(self) -> str:
        """Why the ledger cannot be asked now; empty where it can."""
        return self._teller.down

    def status(self) -> list[BudgetStatus]:
        """Return every budget in its current window, as far as this process knows."""
        return [account.status() for account in self._teller.accounts.values()]

    # ------------------------------------------------------------------ asking on the path

    def _lacking(
        self, accounts: tuple[Account, ...], ceiling_nano: int, maximum_nano: int
    ) -> list[tuple[Account, int]]:
        """Return the accounts whose purse has too little; give those that never refuse a purse."""
        now_s = self._clock()
        lacking = []
        for account in accounts:
            account.roll(now_s + self._teller.lag_s)
            amount_nano = maximum_nano if account.hard else ceiling_nano
            if not account.limited or not amount_nano or self._is_open:
                account.provide(now_s, now_s + self._teller.lag_s)
            purse = account.purse
            if amount_nano and (purse.room_nano < amount_nano or now_s >= purse.until_s):
                lacking.append((account, amount_nano))
        return lacking

    @property
    def _is_open(self) -> bool:
        """Whether calls are made unasked: never while closing, for nobody would tell of them."""
        return bool(self._teller.down) and self._when_down == "open" and not self._teller.closing

    def _refuses(self, account: Account, amount_nano: int) -> Reason | None:
        """Return why a reservation is refused now; None: it waits for the ledger's answer."""
        if self._teller.down or self._teller.closing:
            return self._teller.down or "ledger_down"
        return account.lacks(amount_nano) if account.dry(amount_nano, self._clock()) else None

    @contextlib.contextmanager
    def _keeping(
        self, accounts: tuple[Account, ...], until: Account, ceiling_nano: int, maximum_nano: int
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

    async def _ask_for(self, lacking: list[tuple[Account, int]]) -> None:
        """Wait until the ledger has been asked once more, whatever came of it."""
        now_s = self._clock()
        wakes_s = max(account.wakes_s(amount_nano, now_s) for account, amount_nano in lacking)
        if wakes_s > now_s:  # the ledger has said no a moment ago, and money is to come back
            await asyncio.sleep(wakes_s - now_s)
            return
        for account, amount_nano in lacking:
            account.waiting.append(amount_nano)
        try:
            await self._teller.next_round()
        finally:
            for account, amount_nano in lacking:
                account.waiting.remove(amount_nano)

    # ------------------------------------------------------------------ life

    async def open(self, *, tick_s: float = TICK_S) -> None:
        """Connect, reconcile what dead processes left, and start upkeep; raises LedgerDown.

        `tick_s` is how often upkeep looks unasked: rarely, where no other gateway wants the money.
        """
        await self._teller.open(tick_s)

    async def revise(self, budgets: Sequence[Budget]) -> None:
        """Hold other budgets from now on; raises LedgerDown, and nothing has changed then.

        What has not changed keeps its leases. What was reserved of one that has gone or changed is
        settled where it was reserved.
        """
        await self._teller.revise(budgets)
        self._know(budgets)

    async def tell(self) -> None:
        """Have the ledger know at once all that was settled here, so that others can read it."""
        await self._teller.tell()

    async def refresh(self, age_s: float) -> None:
        """Read from the ledger the accounts whose last figures are as old as `age_s`."""
        await self._teller.refresh(age_s)

    async def close(self) -> None:
        """Tell the ledger all, hand back what is left, and let go."""
        await self.held.close()
        await self._teller.close()

    @property
    def holder(self) -> str:
        """The name of this process at the ledger."""
        return self._teller.holder

    @property
    def ledger_calls(self) -> int:
        """How often the ledger was asked."""
        return self._teller.calls


def _lower(found: object, maximum_nano: int, least_nano: int | None) -> int | None:
    """Return the smaller amount to hold where a hard budget has less left than the maximum."""
    if least_nano is None or not isinstance(found, Refusal) or found.reason != "exhausted":
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
