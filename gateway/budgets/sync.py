"""Synchronizes one process's leased budgets with the ledger, off the request path.

One batch of exchanges is under way at a time, for all budgets together. `plan`, `took` and `failed`
are its steps: they do not wait, and they receive `now_s`. `run` executes them on the event loop, at
once when a call waits for money and otherwise at every tick.
"""

import asyncio
import contextlib
import itertools
import logging
import math
import os
import secrets
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal

from tollway.backends.money import format_usd
from tollway.gateway.budgets.calendar import WindowSpan
from tollway.gateway.budgets.leased_budget import LeasedBudget
from tollway.gateway.budgets.local_lease import LocalLease
from tollway.gateway.budgets.model import Budget, BudgetEvent, LeaseKey
from tollway.gateway.budgets.protocol import (
    BatchReply,
    BudgetChange,
    ExchangeReply,
    LeaseExchange,
    Ledger,
    LedgerUnavailable,
    RecoveryClaim,
)
from tollway.gateway.budgets.recovery_file import RecoveryFile, orphaned_files
from tollway.gateway.budgets.window_state import LEASE_S
from tollway.gateway.security.private_files import make_file

log = logging.getLogger(__name__)

FAILURES = 2  # consecutive failures before the ledger counts as down: one lost reply is harmless
TICK_S = 0.1  # returns an idle slice within a second and keeps refusals from going stale
SWEEP_S = 1.0  # interval between searches for recovery files of dead processes on this machine
REFRESH_S = 5.0  # greatest age of the status of a budget without exchanges
START_S = 5.0  # longest wait for the ledger at startup
CLOSE_S = 2.0  # longest attempt to return leased money at shutdown
AGAIN_S = 0.05  # delay between those attempts
SYNCS_MAX = 3  # rounds to report everything: one may be under way, and more may settle meanwhile
READS_MAX = 2  # rounds to read the figures again: one may be under way
MARKER = "ledger-id"  # file beside the recovery files: the ledger that this machine has used

Step = tuple[LeasedBudget, LocalLease, LeaseExchange]


class LedgerSync:
    """One process's connection to the ledger. Owned by `Reservations`.

    The mutable state is the budgets, the recovery file, and what is known about the ledger.
    """

    def __init__(
        self,
        ledger: Ledger,
        budgets: Sequence[Budget],
        *,
        holder: str,
        clock: Callable[[], float],
        recovery_dir: Path | None,
        on_event: Callable[[BudgetEvent], None],
    ) -> None:
        self._ledger = ledger
        self._clock = clock
        self._recovery_dir = recovery_dir
        self._on_event = on_event
        self.holder = f"{holder}-{secrets.token_hex(4)}"
        self._numbers = itertools.count(1)
        self.accounts = {budget.name: LeasedBudget(budget, self._open_lease) for budget in budgets}
        self._leaving: list[LeasedBudget] = []
        self._recovery_file: RecoveryFile | None = None
        self._ledger_id = ""
        self.lag_s = 0.0
        """The ledger's clock minus ours."""
        self.down: Literal["", "ledger_down", "ledger_lost"] = ""
        """Why the ledger cannot be used now; empty if it can."""
        self._failures = 0
        self.closing = False
        self.wanted = asyncio.Event()
        """Set to contact the ledger before the next tick."""
        self.calls = 0
        self._since_s = -math.inf  # figures that were read earlier are read again
        self._swept_s = -math.inf
        self._round: asyncio.Future[None] | None = None
        self._task: asyncio.Task[None] | None = None

    # ------------------------------------------------------------------ called by Reservations

    async def next_round(self) -> None:
        """Wait until the ledger has been asked once more, whether or not that succeeded."""
        self.wanted.set()
        if self._round is None:
            self._round = asyncio.get_running_loop().create_future()
        await asyncio.shield(self._round)

    async def sync_now(self) -> None:
        """Report all settlements of this process to the ledger now, so that others see them."""
        for _ in range(SYNCS_MAX):
            unsynced = [account for account in self.accounts.values() if account.sync_now()]
            if not unsynced or self.closing or self._task is None:
                return
            await self.next_round()

    async def read_since(self, since_s: float) -> None:
        """Read the budgets' figures again unless they were read at or after `since_s`.

        Between exchanges, since otherwise a settlement under way would count twice. If the ledger
        does not answer, the known figures stay.
        """
        self._since_s = max(self._since_s, since_s)
        for _ in range(READS_MAX):
            if self.closing or self._task is None or not self._read_before(since_s):
                return
            await self.next_round()

    def _read_before(self, since_s: float) -> list[LeasedBudget]:
        return [account for account in self.accounts.values() if account.seen_s < since_s]

    async def revise(self, budgets: Sequence[Budget]) -> None:
        """Replace the budgets. Raises LedgerUnavailable and changes nothing if the ledger fails.

        Unchanged budgets keep their leases. Reservations of a removed or changed budget settle on
        the lease that holds them.
        """
        answer = await self._ledger.register(budgets)
        if answer.ledger_id != self._ledger_id:
            raise LedgerUnavailable("the ledger is not the one that this process started with")
        before, self.accounts = self.accounts, {}
        for budget in budgets:
            account = before.pop(budget.name, None)
            if account is None:
                account = LeasedBudget(budget, self._open_lease)
            elif account.budget != budget:
                account.revise(budget)
            self.accounts[budget.name] = account
        for account in before.values():
            account.leave()
            self._leaving.append(account)
        self.wanted.set()

    # ------------------------------------------------------------------ steps

    def plan(self, now_s: float) -> list[Step]:
        """Return the exchanges that are due."""
        steps = []
        for account in (*self.accounts.values(), *self._leaving):
            for lease, asked in account.plan(now_s, now_s + self.lag_s):
                steps.append((account, lease, asked))
            self._reap(account)
        self._leaving = [account for account in self._leaving if account.draining]
        return steps

    def apply_replies(self, steps: Sequence[Step], answer: BatchReply, now_s: float) -> None:
        """Apply the ledger's reply to the planned exchanges."""
        if answer.ledger_id != self._ledger_id:
            self._lost()
            return
        self._set_down("")
        for (account, lease, asked), reply in zip(steps, answer.replies, strict=True):
            # The ledger read its clock after we sent, so its windows end no later than we compute.
            self.lag_s = answer.now_s - lease.sent_s
            was_ended = lease.ended
            lease.take(reply, now_s, LEASE_S)
            account.apply_reply(lease, asked, reply, now_s, self.lag_s)
            if lease.ended and not was_ended:
                self._notify(
                    "fenced",
                    account,
                    "a lease expired while its holder was alive; a new one is opened",
                )
            self._announce(account, lease, reply)
            self._reap(account)

    def _announce(self, account: LeasedBudget, lease: LocalLease, reply: ExchangeReply) -> None:
        """Send events for the thresholds that an exchange crossed first and for its overdraft."""
        name, start_s = lease.key.budget, lease.key.window_start_s  # may be a late settlement
        for share in reply.crossed:
            detail, used_nano = f"{share:.0%} of the limit is spent", reply.position.used_nano
            self._on_event(BudgetEvent("threshold", name, detail, share, used_nano, start_s))
        if reply.overdrawn_nano and account.limited:
            over_nano = reply.overdrawn_nano
            detail = f"{format_usd(over_nano)} was spent above the limit"
            self._on_event(BudgetEvent("overdraft", name, detail, None, over_nano, start_s))

    def failed(self, why: str) -> None:
        """Record that the ledger did not answer. The same exchanges are repeated unchanged."""
        self._failures += 1
        if self._failures >= FAILURES:
            self._set_down("ledger_down", why)

    def _reap(self, account: LeasedBudget) -> None:
        """Drop the drained leases that have nothing left to report."""
        for lease in [lease for lease in account.draining if _is_done(lease)]:
            account.draining.remove(lease)
            if self._recovery_file is not None:
                self._recovery_file.release(lease.cells)

    def _open_lease(self, budget: Budget, span: WindowSpan, now_s: float) -> LocalLease:
        key = LeaseKey(
            budget.name, span.start_s, span.end_s, f"{self.holder}.{next(self._numbers)}"
        )
        cells = self._recovery_file.claim(key) if self._recovery_file is not None else [0] * 4
        return LocalLease(key, cells, now_s, limited=budget.enforcement != "soft")

    # ------------------------------------------------------------------ life

    async def open(self, tick_s: float = TICK_S) -> None:
        """Connect, reconcile dead processes' leases, and start the background task.

        `tick_s` is the interval at which the task runs without being woken. It may be long if no
        other gateway needs the money. Raises LedgerUnavailable.
        """
        until_s = self._clock() + START_S
        while True:
            try:
                await self._connect()
                break
            except LedgerUnavailable as exc:
                if self._clock() >= until_s:
                    await self.close()
                    raise
                log.warning("waiting for the ledger: %s", exc)
                await asyncio.sleep(TICK_S)
        self._task = asyncio.create_task(self.run(tick_s))

    async def _connect(self) -> None:
        await self._ledger.open()
        sent_s = self._clock()
        answer = await self._ledger.register([a.budget for a in self.accounts.values()])
        self.lag_s, self._ledger_id = answer.now_s - sent_s, answer.ledger_id
        if self._recovery_dir is not None and self._recovery_file is None:
            if self._ledger.may_forget:
                self._remember(self._recovery_dir / MARKER)
            await self.sweep()
            path = self._recovery_dir / f"{self.holder}-{os.getpid()}.recovery"
            self._recovery_file = RecoveryFile(path, self._ledger_id)
        await self.refresh(math.inf)

    def _remember(self, marker: Path) -> None:
        """Record the id of the ledger that this machine uses; an emptied ledger has a new id."""
        if marker.exists() and marker.read_text() != self._ledger_id:
            self._lost(
                f"the ledger's id is not the one recorded here; to accept it, delete {marker}"
            )
            return
        make_file(marker)
        marker.write_text(self._ledger_id)

    async def run(self, tick_s: float = TICK_S) -> None:
        """Run what is due until closed: at once when woken, otherwise every `tick_s`."""
        # Checks the flag too: redis-py loses a cancellation that coincides with its own timeout.
        while not self.closing:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(tick_s):
                    await self.wanted.wait()
            if not await self.turn():
                await asyncio.sleep(TICK_S)

    async def turn(self) -> bool:
        """Run what is due once; return whether that succeeded."""
        self.wanted.clear()
        try:
            await self.step()
            self._end_round()
        except Exception as exc:  # retry after any error; serving continues
            if isinstance(exc, KeyError):
                self._lost()
            elif not isinstance(exc, LedgerUnavailable):
                log.exception("synchronizing budgets with the ledger failed")
            self.failed(str(exc))
            self._end_round()
            return False
        return True

    async def step(self) -> None:
        """Send the exchanges that are due; sweep and refresh when due."""
        if steps := self.plan(self._clock()):
            answer = await self._call([asked for _, _, asked in steps])
            self.apply_replies(steps, answer, self._clock())
        elif self.down == "ledger_down":  # nothing to send: check whether the ledger answers again
            await self.refresh(math.inf)
        now_s = self._clock()
        if self._recovery_dir is not None and now_s - self._swept_s >= SWEEP_S:
            await self.sweep()
        since_s = max(self._since_s, now_s - REFRESH_S)
        if self._read_before(since_s):
            await self.refresh(since_s)

    async def _call(self, asked: Sequence[LeaseExchange]) -> BatchReply:
        self.calls += 1
        return await self._ledger.exchange(asked)

    async def sweep(self) -> None:
        """Have the ledger reconcile the recovery files of dead processes on this machine."""
        assert self._recovery_dir is not None
        self._swept_s = self._clock()
        for recovery_file in orphaned_files(self._recovery_dir):
            if claims := recovery_file.claims(self._ledger_id):
                await self._ledger.reconcile(claims)
                for claim in claims:
                    if claim.open_nano and claim.key.budget in self.accounts:
                        await self._charge_open(claim)
            recovery_file.delete()

    async def _charge_open(self, claim: RecoveryClaim) -> None:
        """Report the calls that a dead process had open. Their reservations are already charged.

        A hard budget reserved their maximum cost, which stays unaccounted until there is proof. Any
        other budget reserved an estimate of their cost, which is accepted as the cost.
        """
        account, key = self.accounts[claim.key.budget], claim.key
        if account.hard:
            detail = "open calls of a dead process were charged as reserved"
            self._notify("unaccounted", account, detail, claim.open_nano)
            return
        [statement] = await self._ledger.accounts([(key.budget, key.window_start_s)])
        charged = {lease.lease: lease.charged_nano for lease in statement.leases}
        if not (amount_nano := charged.get(key.lease, 0)):
            return  # another process has already released it
        detail = "open calls of a dead process were charged at their estimate"
        at_s = self._clock() + self.lag_s
        await self._ledger.change(
            BudgetChange(
                "release",
                key.budget,
                amount_nano,
                "tollway",
                detail,
                key.window_start_s,
                key.lease,
                at_s,
            )
        )
        self._notify("estimated", account, detail, amount_nano)

    async def refresh(self, since_s: float) -> None:
        """Read from the ledger the budgets whose figures were last read before `since_s`."""
        now_s = self._clock()
        old = self._read_before(since_s)
        for account in old:
            account.roll(now_s + self.lag_s)
        self.calls += 1
        statements = await self._ledger.accounts([(a.budget.name, a.span.start_s) for a in old])
        for account, seen in zip(old, statements, strict=True):
            if seen.window_start_s == account.span.start_s:
                account.position, account.seen_s = seen.position, now_s
        self._set_down("")

    async def close(self) -> None:
        """Report all settlements, return what is left, and disconnect."""
        self.closing = True
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        self._end_round()
        for account in self.accounts.values():
            account.close()
        with contextlib.suppress(KeyError, TimeoutError):
            async with asyncio.timeout(CLOSE_S):
                await self._hand_back()
        if self._recovery_file is not None:
            if any(account.has_unsynced for account in (*self.accounts.values(), *self._leaving)):
                self._recovery_file.abandon()  # the next process on this machine reads it
            else:
                self._recovery_file.close()
        await self._ledger.close()

    async def _hand_back(self) -> None:
        """Exchange with the ledger until everything is returned; repeat unanswered exchanges."""
        while steps := self.plan(self._clock()):
            try:
                answer = await self._call([asked for *_, asked in steps])
            except LedgerUnavailable:
                await asyncio.sleep(AGAIN_S)
                continue
            self.apply_replies(steps, answer, self._clock())

    def _end_round(self) -> None:
        if self._round is not None:
            self._round.set_result(None)
            self._round = None

    # ------------------------------------------------------------------ events

    def _set_down(self, state: Literal["", "ledger_down"], why: str = "") -> None:
        if not state:
            self._failures = 0
        if self.down in (state, "ledger_lost"):
            return
        self.down = state
        kind, detail = (
            ("ledger_down", why) if state else ("ledger_up", "the ledger is reachable again")
        )
        self._on_event(BudgetEvent(kind, "", detail))

    def _lost(
        self, detail: str = "the ledger has lost its data; restore it and restart the gateway"
    ) -> None:
        if self.down != "ledger_lost":
            self.down = "ledger_lost"
            self._on_event(BudgetEvent("ledger_lost", "", detail))

    def _notify(
        self,
        kind: str,
        account: LeasedBudget,
        detail: str,
        amount_nano: int | None = None,
    ) -> None:
        name, start_s = account.budget.name, account.span.start_s
        self._on_event(BudgetEvent(kind, name, detail, None, amount_nano, start_s))


def _is_done(lease: LocalLease) -> bool:
    if lease.pending or lease.holds:
        return False
    return lease.closed or (lease.ended and not lease.unsynced_nano and not lease.idle_nano)
