"""Reserves money for calls in every budget that matches them, normally without network access.

    reserve_now    in memory, all or nothing; None if any budget's lease has too little
    reserve        the same, after asking the ledger for what is missing
    held.wait      the same, queued while other calls hold what is missing
    settle, void   end a reservation, once

`LedgerSync` does the rest off the request path: it leases ahead of need and reports what was spent.
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

MATCHES_MAX = 4096  # tags come from clients, so the cache of matches is cleared at this size
NO_POSTURE = DowngradeAdvice()


def ignore(event: BudgetEvent) -> None:
    """Ignore an event."""


class Reservations:
    """The budget reservations of one process.

    Its own mutable state is two caches of matching budgets and the queue of waiting calls.
    """

    def __init__(
        self,
        ledger: Ledger,
        budgets: Sequence[Budget],
        *,
        holder: str,
        clock: Callable[[], float],
        recovery_dir: Path | None = None,
        on_event: Callable[[BudgetEvent], None] = ignore,
        on_ledger_failure: Literal["refuse", "allow"] = "refuse",
        hold_wait_s: float = HOLD_WAIT_S,
    ) -> None:
        """Set up the budgets without connecting to the ledger.

        `clock` must be monotonic (`time.monotonic`); the time of day comes from the ledger.
        `holder` names the process to operators. Two processes' leases differ even if their holder
        names are equal. Without `recovery_dir`, whatever a crash leaves open stays charged.
        """
        self._sync = LedgerSync(
            ledger,
            budgets,
            holder=holder,
            clock=clock,
            recovery_dir=recovery_dir,
            on_event=on_event,
        )
        self._clock = clock
        self._when_down = on_ledger_failure
        self.held = HeldMoney(self._take, self._ask_for, self.void, clock, wait_s=hold_wait_s)
        """Calls that wait for money held by other calls."""
        self._matches: dict[tuple[object, ...], tuple[LeasedBudget, ...]] = {}
        self._pacing: dict[tuple[object, ...], tuple[str, ...]] = {}
        self._know(budgets)

    def _know(self, budgets: Sequence[Budget]) -> None:
        self._matches.clear()
        self._pacing.clear()
        self._some_paced = any(budget.paces_some for budget in budgets)
        self.downgrades = any(budget.downgrade_at is not None for budget in budgets)
        """Whether any budget can ask for cheaper arms."""

    # ------------------------------------------------------------------ on the path

    def matching(
        self, tenant: str, route: str, backend: str, tags: Mapping[str, str]
    ) -> tuple[LeasedBudget, ...]:
        """Return every budget that matches such a call."""
        key = (tenant, route, backend, *tags.items()) if tags else (tenant, route, backend)
        budgets = self._matches.get(key)
        if budgets is not None:
            return budgets
        if len(self._matches) >= MATCHES_MAX:
            self._matches.clear()
        budgets = self._matches[key] = tuple(
            account
            for account in self._sync.accounts.values()
            if _binds(account.budget.scope, tenant, route, backend, tags)
        )
        return budgets

    def pacing(self, tenant: str, route: str, tags: Mapping[str, str]) -> tuple[str, ...]:
        """Return the names of the budgets that pace such a call but not its whole route."""
        if not self._some_paced:
            return ()
        key = (tenant, route, *tags.items()) if tags else (tenant, route)
        scopes = self._pacing.get(key)
        if scopes is not None:
            return scopes
        if len(self._pacing) >= MATCHES_MAX:
            self._pacing.clear()
        scopes = self._pacing[key] = tuple(
            account.budget.name
            for account in self._sync.accounts.values()
            if account.budget.paces_some and _binds(account.budget.scope, tenant, route, "", tags)
        )
        return scopes

    def reserve_now(
        self, accounts: tuple[LeasedBudget, ...], ceiling_nano: int, maximum_nano: int
    ) -> Reservation | None:
        """Reserve an attempt's money in every budget or in none. None: the ledger must be asked.

        `maximum_nano` is the attempt's greatest possible cost, reserved in hard budgets.
        `ceiling_nano` is its cost in 95 of 100 cases, reserved in the others. An attempt quoted at
        $0 needs no money.
        """
        now_s = self._clock()
        for account in accounts:
            lease = account.lease
            amount_nano = maximum_nano if account.hard else ceiling_nano
            lacking = lease.room_nano < amount_nano or now_s >= lease.until_s
            if lacking and (amount_nano or lease is EMPTY):
                return None
        return self.hold(accounts, ceiling_nano, maximum_nano)

    def hold(
        self, accounts: tuple[LeasedBudget, ...], ceiling_nano: int, maximum_nano: int
    ) -> Reservation:
        """Reserve amounts that the leases were found to cover."""
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
        """Reserve an attempt's money, asking the ledger for what is missing.

        If less than `maximum_nano` is unspent, all of it is reserved, provided that it is at least
        `least_nano`. The caller must then limit the call's cost to `Reservation.hard_nano`.
        """
        while True:
            outcome = self._try(accounts, ceiling_nano, maximum_nano)
            if isinstance(outcome, list):
                with self._retaining(accounts, outcome[0][0], ceiling_nano, maximum_nano):
                    await self._ask_for(outcome)
                continue
            lower_nano = _lower(outcome, maximum_nano, least_nano)
            if lower_nano is None:
                return outcome
            maximum_nano, ceiling_nano = lower_nano, min(ceiling_nano, lower_nano)

    def _try(
        self, accounts: tuple[LeasedBudget, ...], ceiling_nano: int, maximum_nano: int
    ) -> Reservation | BudgetRefusal | Lacking:
        """Reserve or refuse an attempt's money; otherwise return what to ask the ledger for."""
        while (hold := self.reserve_now(accounts, ceiling_nano, maximum_nano)) is None:
            accounts = tuple(account for account in accounts if not account.gone)
            lacking = self._lacking(accounts, ceiling_nano, maximum_nano)
            for account, amount_nano in lacking:
                if reason := self._refuses(account, amount_nano):
                    if reason not in ("exhausted", "held") and self._is_open:
                        return self.hold(accounts, ceiling_nano, maximum_nano)
                    return account.refusal(amount_nano, reason)
            if lacking:  # else only a lease was missing, for a call that needs no money; now open
                return lacking
        return hold

    def _take(self, waiter: Waiter) -> Reservation | BudgetRefusal | Lacking:
        """Reserve or refuse a waiter's money; otherwise return what it lacks."""
        if (refusal := waiter.refresh(self._clock())) is not None:
            return refusal
        if waiter.least_nano is not None:  # do not ask the ledger for money known to be spent
            lefts = [account.left_nano for account in waiter.accounts if account.hard]
            left_nano = min(lefts, default=waiter.maximum_nano)
            if waiter.least_nano <= left_nano < waiter.maximum_nano:
                waiter.maximum_nano = left_nano
                waiter.ceiling_nano = min(waiter.ceiling_nano, left_nano)
        outcome = self._try(waiter.accounts, waiter.ceiling_nano, waiter.maximum_nano)
        while (lower := _lower(outcome, waiter.maximum_nano, waiter.least_nano)) is not None:
            waiter.maximum_nano, waiter.ceiling_nano = lower, min(waiter.ceiling_nano, lower)
            outcome = self._try(waiter.accounts, waiter.ceiling_nano, waiter.maximum_nano)
        if isinstance(outcome, BudgetRefusal) and outcome.reason == "held":
            accounts = tuple(account for account in waiter.accounts if not account.gone)
            return self._lacking(accounts, waiter.ceiling_nano, waiter.maximum_nano)
        return outcome

    def settle(self, reservation: Reservation, cost_nano: int) -> None:
        """Charge an attempt's cost and free the rest of its reservation. Call it once."""
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
        """Free the reservation of an attempt that was not made. Call it once."""
        self.settle(reservation, 0)

    def advice(self, accounts: tuple[LeasedBudget, ...]) -> DowngradeAdvice:
        """Return the lowest price cap among the budgets that are near their limit."""
        near = [account.budget for account in accounts if account.near]
        priced = [budget for budget in near if budget.downgrade_max_usd is not None]
        if not priced:
            return NO_POSTURE
        tightest = min(priced, key=lambda budget: budget.downgrade_max_usd or 0.0)
        return DowngradeAdvice(tightest.downgrade_max_usd, tightest.then)

    @property
    def down(self) -> str:
        """Why the ledger cannot be used now; empty if it can."""
        return self._sync.down

    def status(self) -> list[BudgetStatus]:
        """Return the status of every budget in its current window, as this process knows it."""
        return [account.status() for account in self._sync.accounts.values()]

    # ------------------------------------------------------------------ requests to the ledger

    def _lacking(
        self, accounts: tuple[LeasedBudget, ...], ceiling_nano: int, maximum_nano: int
    ) -> list[tuple[LeasedBudget, int]]:
        """Return the budgets with too little on their lease.

        Opens a missing lease without asking the ledger if the budget never refuses, if the call
        needs no money, or if calls go ahead without the ledger.
        """
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
        """Whether calls go ahead without the ledger.

        Never while closing, because their costs would not be reported.
        """
        return bool(self._sync.down) and self._when_down == "allow" and not self._sync.closing

    def _refuses(self, account: LeasedBudget, amount_nano: int) -> Reason | None:
        """Return why to refuse a reservation now; None: wait for the ledger's reply."""
        if self._sync.down or self._sync.closing:
            return self._sync.down or "ledger_down"
        return account.lacks(amount_nano) if account.exhausted(amount_nano, self._clock()) else None

    @contextlib.contextmanager
    def _retaining(
        self,
        accounts: tuple[LeasedBudget, ...],
        until: LeasedBudget,
        ceiling_nano: int,
        maximum_nano: int,
    ) -> Iterator[None]:
        """Retain idle money in the budgets that come before `until`, the first that lacks money.

        All calls take budgets in configuration order, so no two calls wait for each other.
        """
        retained = []
        for account in accounts:
            if account is until:
                break
            amount_nano = maximum_nano if account.hard else ceiling_nano
            account.retained_nano += amount_nano
            retained.append((account, amount_nano))
        try:
            yield
        finally:
            for account, amount_nano in retained:
                account.retained_nano -= amount_nano

    async def _ask_for(self, lacking: list[tuple[LeasedBudget, int]]) -> None:
        """Wait until the ledger has been asked once more, whether or not that succeeded."""
        now_s = self._clock()
        wakes_s = max(account.wakes_s(amount_nano, now_s) for account, amount_nano in lacking)
        if wakes_s > now_s:  # the ledger has just refused, and money is expected back
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
        """Connect, reconcile dead processes' leases, and start the background task.

        `tick_s` is the interval at which the task runs without being woken. It may be long if no
        other gateway needs the money. Raises LedgerUnavailable.
        """
        await self._sync.open(tick_s)

    async def revise(self, budgets: Sequence[Budget]) -> None:
        """Replace the budgets. Raises LedgerUnavailable and changes nothing if the ledger fails.

        Unchanged budgets keep their leases. Reservations of a removed or changed budget settle on
        the lease that holds them.
        """
        await self._sync.revise(budgets)
        self._know(budgets)

    async def sync_now(self) -> None:
        """Report all settlements of this process to the ledger now, so that others see them."""
        await self._sync.sync_now()

    async def refresh(self, age_s: float) -> None:
        """Read the budgets whose figures are older than `age_s` from the ledger, if it answers."""
        await self._sync.read_since(self._clock() - age_s)

    async def close(self) -> None:
        """Report all settlements, return what is left, and disconnect."""
        await self.held.close()
        await self._sync.close()

    @property
    def holder(self) -> str:
        """Holder name of this process at the ledger."""
        return self._sync.holder

    @property
    def ledger_requests(self) -> int:
        """Number of requests sent to the ledger."""
        return self._sync.calls


def _lower(refusal: object, maximum_nano: int, least_nano: int | None) -> int | None:
    """Return the smaller amount to reserve if a hard budget has less left than the maximum."""
    if (
        least_nano is None
        or not isinstance(refusal, BudgetRefusal)
        or refusal.reason != "exhausted"
    ):
        return None
    return refusal.left_nano if least_nano <= refusal.left_nano < maximum_nano else None


def _binds(scope: Scope, tenant: str, route: str, backend: str, tags: Mapping[str, str]) -> bool:
    """Return whether a scope matches a call: every part that is set must equal the call's."""
    return (
        scope.tenant in (None, tenant)
        and scope.route in (None, route)
        and scope.backend in (None, backend)
        and all(tags.get(name) == value for name, value in scope.tags)
    )
