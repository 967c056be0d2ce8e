"""One budget as one process sees it: its purse, the purses it is winding up, what it asks for.

Theory of operation. A purse is filled ahead of need: when less than half of the last slice is left,
the next is asked for, twice as large, and the ledger grants no more than a fair share of what is
free. So slices grow with traffic and shrink with the budget, down to one reservation. What has not
been used for a moment goes back, and what would last for too long.

When the ledger has too little, three cases. Others hold idle money: they hear of it (`short`) when
they next speak, so we wait for it, but no longer than PATIENCE_S. All that is held is reserved, or
we waited that long: refuse, and do not ask again for DRY_S, or a storm of refusals would become a
storm on the ledger. The ledger is silent: `on_ledger_failure` decides, in the wallet.
"""

import math
from collections.abc import Callable, Iterator

from tollway.gateway.budgets.calendar import WindowSpan, window_at
from tollway.gateway.budgets.local_lease import LocalLease
from tollway.gateway.budgets.model import Budget, BudgetRefusal, BudgetStatus, LeaseKey, Reason
from tollway.gateway.budgets.protocol import BudgetPosition, ExchangeReply, LeaseExchange
from tollway.gateway.budgets.window_state import LEASE_S

FIRST_SLICE = 32  # reservations; enough that a thousand requests need about ten slices
IDLE_S = 0.4  # between two looks; a slice unused from one to the next is back within a second
HORIZON_S = 2.0  # a slice that lasts longer than this is trimmed
TELL_S = 5.0  # settlements are told at least as often while money is in use
POLL_S = 0.5  # ... and as often while the budget is nearly empty and others may want ours
RENEW_S = LEASE_S / 3  # two answers may be lost before a lease is
DRY_S = 0.1  # a refusal is good for as long, twice as long if the next is refused too
DRY_S_MAX = 0.8  # ... at most: less than the second in which idle money comes back
PATIENCE_S = 1.5  # idle money of others comes back within a second, or its holder is gone

OpenPurse = Callable[[Budget, WindowSpan, float], LocalLease]


class LeasedBudget:
    """A budget in this process. Its mutable state is all below; the wallet owns it."""

    __slots__ = (
        "_drain",
        "_dry_nano",
        "_dry_s",
        "_dry_until_s",
        "_mark_s",
        "_mark_used_nano",
        "_open_purse",
        "_short",
        "_short_since_s",
        "_slice_nano",
        "_unit_nano",
        "budget",
        "closed",
        "gone",
        "hard",
        "kept_nano",
        "lease",
        "limited",
        "position",
        "seen_s",
        "span",
        "waiting",
    )

    def __init__(self, budget: Budget, open_purse: OpenPurse) -> None:
        self.budget = budget
        self.hard = budget.enforcement == "hard"
        self.limited = budget.enforcement != "soft"
        self.span = WindowSpan(0, 0)
        self.position = BudgetPosition(budget.limit_nano, 0, 0, 0, 0, 0)
        self.seen_s = -math.inf
        self.lease: LocalLease = EMPTY
        self.waiting: list[int] = []
        self.kept_nano = 0  # what those need who have it here and wait for it elsewhere
        self.closed = False
        self.gone = False
        self._open_purse = open_purse
        self._drain: list[LocalLease] = []
        self._slice_nano = 0
        self._unit_nano = 1
        self._mark_s = -math.inf
        self._mark_used_nano = 0
        self._short = False
        self._short_since_s = math.inf
        self._dry_until_s = -math.inf
        self._dry_nano = 0
        self._dry_s = DRY_S

    # ------------------------------------------------------------------ windows and purses

    def roll(self, ledger_now_s: float) -> None:
        """Enter the window that the ledger's clock is in; the old purse winds up."""
        start_s, end_s = self.span
        if start_s <= ledger_now_s and (end_s is None or ledger_now_s < end_s):
            return
        self.retire()
        self.span = window_at(self.budget.window, self.budget.timezone, ledger_now_s)
        self.position = BudgetPosition(
            self.position.limit_nano - self.position.credit_nano, *[0] * 5
        )
        self.seen_s = self._dry_until_s = -math.inf
        self._short_since_s = math.inf

    def retire(self) -> None:
        """Wind up the current purse: what it has left goes back, what is open settles there."""
        if self.lease is not EMPTY:
            self.lease.until_s = -math.inf
            self._drain.append(self.lease)
            self.lease = EMPTY

    def close(self) -> None:
        """Wind up for good: nothing more is asked for."""
        self.closed = True
        self.retire()

    def revise(self, budget: Budget) -> None:
        """Be another budget of the same name: what was leased as the old one goes back."""
        self.retire()
        self.budget = budget
        self.hard = budget.enforcement == "hard"
        self.limited = budget.enforcement != "soft"
        self.span = WindowSpan(0, 0)
        self.seen_s = -math.inf

    def leave(self) -> None:
        """Wind up for good, and bind nobody any more."""
        self.gone = True
        self.close()

    def provide(self, now_s: float, ledger_now_s: float) -> LocalLease:
        """Return the current purse, opened if there is none; the ledger need not know yet."""
        if self.lease is EMPTY:
            self.lease = self._open_purse(self.budget, self.span, now_s)
            self._mark_s, self._mark_used_nano = now_s, 0
        if not self.limited:
            end_s = self.span.end_s
            self.lease.until_s = math.inf if end_s is None else now_s + end_s - ledger_now_s
        return self.lease

    @property
    def draining(self) -> list[LocalLease]:
        """The purses that wind up."""
        return self._drain

    @property
    def tells(self) -> bool:
        """Whether there is anything that the ledger may not have heard."""
        return bool(self._drain) or self.lease is not EMPTY

    # ------------------------------------------------------------------ what to say and ask

    def plan(self, now_s: float, ledger_now_s: float) -> Iterator[tuple[LocalLease, LeaseExchange]]:
        """Yield what is due to be told or asked now."""
        self.roll(ledger_now_s)
        self._look(now_s)
        for lease in self._drain:
            if asked := self._wind_up(lease, now_s):
                yield lease, asked
        if self.limited and self.waiting and not self.closed and not self._rests(now_s):
            self.provide(now_s, ledger_now_s)
        if self.lease is not EMPTY and (asked := self._current(self.lease, now_s)):
            yield self.lease, asked

    def tell_now(self) -> bool:
        """Have the next plan tell all that is settled; return whether there is anything to tell."""
        untold = [lease for lease in (*self._drain, self.lease) if lease.untold_nano]
        for lease in untold:
            lease.told_s = -math.inf
        return bool(untold)

    def _wind_up(self, lease: LocalLease, now_s: float) -> LeaseExchange | None:
        if lease.pending:
            return lease.ask(now_s)
        if lease.fresh and not lease.holds and not lease.settled_nano:
            lease.closed = True  # the ledger never heard of it, and need not
            return None
        if not lease.holds:  # a first exchange closes nothing: it could not be asked again
            return lease.ask(now_s, give_nano=lease.idle_nano, close=not lease.fresh)
        since_s = now_s - lease.told_s
        if lease.idle_nano or since_s >= RENEW_S or (lease.untold_nano and since_s >= POLL_S):
            return lease.ask(now_s, give_nano=lease.idle_nano)
        return None

    def _current(self, lease: LocalLease, now_s: float) -> LeaseExchange | None:
        if lease.pending:
            return lease.ask(now_s)
        if self.limited:
            if self.waiting and not self._rests(now_s):
                return self._ask_for_waiting(lease, now_s)
            if not self.waiting and lease.room_nano < lease.low_nano and now_s >= self._dry_until_s:
                lease.low_nano = 0
                return lease.ask(now_s, need_nano=self._unit_nano, want_nano=self._slice_nano)
        give_nano, since_s = self._excess(lease), now_s - lease.told_s
        if give_nano:
            return lease.ask(now_s, give_nano=give_nano)
        if lease.room_nano < 0:  # it spends what others may think is theirs: told at once
            due_s = 0.0
        else:
            due_s = POLL_S if self._watched else TELL_S if lease.untold_nano else RENEW_S
        return lease.ask(now_s) if since_s >= due_s else None

    def _ask_for_waiting(self, lease: LocalLease, now_s: float) -> LeaseExchange:
        """Ask for all who wait; of use is what lets the smallest of them go on."""
        self._unit_nano = min(self.waiting)
        self._slice_nano = max(self._slice_nano, FIRST_SLICE * self._unit_nano)
        need_nano = max(1, self._unit_nano - lease.room_nano)
        due_nano = max(need_nano, sum(self.waiting) - lease.room_nano)
        return lease.ask(now_s, need_nano=need_nano, due_nano=due_nano, want_nano=self._slice_nano)

    def _look(self, now_s: float) -> None:
        """Now and then, see what has been used; retire a purse that nobody needs."""
        lease, passed_s = self.lease, now_s - self._mark_s
        if lease is EMPTY or passed_s < IDLE_S or lease.pending:
            return
        used_nano = lease.used_nano - self._mark_used_nano
        self._mark_s, self._mark_used_nano = now_s, lease.used_nano
        if not used_nano and not self.waiting and not self.kept_nano:
            self._slice_nano = 0
            if not self._bare or now_s - lease.told_s >= RENEW_S:
                self.retire()
            return
        lasts_nano = int(used_nano / passed_s * HORIZON_S)
        self._slice_nano = max(self._unit_nano, min(self._slice_nano, lasts_nano))
        lease.low_nano = min(lease.low_nano, self._slice_nano)

    @property
    def _bare(self) -> bool:
        """Whether the purse holds and hides nothing: it may wait for the next who ask."""
        return not (self.lease.idle_nano or self.lease.holds or self.lease.untold_nano)

    def _excess(self, lease: LocalLease) -> int:
        """Return what a purse has above what it will need soon; all, where others go without.

        But not what is kept: two budgets that are short would else give it back in turns for ever.
        """
        keep_nano = self.kept_nano if self._short else max(self.kept_nano, 2 * self._slice_nano)
        return max(0, lease.idle_nano - keep_nano)

    @property
    def _watched(self) -> bool:
        """Whether others may soon want what is idle here."""
        position = self.position
        return self.lease.idle_nano > 0 and position.free_nano * 10 < position.limit_nano

    # ------------------------------------------------------------------ what came back

    def took(
        self,
        lease: LocalLease,
        asked: LeaseExchange,
        reply: ExchangeReply,
        now_s: float,
        lag_s: float,
    ) -> None:
        """Note a reply that `lease` took; `lag_s` is the ledger's clock minus ours."""
        if lease.key.window_start_s == self.span.start_s:
            self.position, self.seen_s = reply.position, now_s
        if lease is not self.lease:
            return
        if lease.ended:
            self.retire()
            return
        if self.span.end_s is not None:
            lease.until_s = min(lease.until_s, self.span.end_s - lag_s)
        self._short = reply.short
        if asked.need_nano and reply.grant_nano:
            self._short_since_s, self._dry_until_s = math.inf, -math.inf
            lease.low_nano = max(lease.room_nano, 0) // 2
            self._slice_nano *= 2
        elif asked.need_nano and not reply.stale:
            self._short_since_s = min(self._short_since_s, now_s)
            hopeless = self._elsewhere_nano < asked.need_nano
            self._dry_s = min(DRY_S_MAX, 2 * self._dry_s) if hopeless else DRY_S
            self._dry_until_s, self._dry_nano = now_s + self._dry_s, asked.need_nano

    def dry(self, amount_nano: int, now_s: float) -> bool:
        """Say whether a reservation is to be refused now, for lack of money."""
        short_nano = amount_nano - self.lease.room_nano
        if now_s >= self._dry_until_s or short_nano < self._dry_nano:
            return False
        waited_s = now_s - self._short_since_s
        return self._elsewhere_nano < short_nano or waited_s >= PATIENCE_S

    def lacks(self, amount_nano: int) -> Reason:
        """Say why there is too little for a reservation: it is spent, or others hold it."""
        return "held" if amount_nano <= self.left_nano else "exhausted"

    @property
    def left_nano(self) -> int:
        """What is not spent, as far as known here, whoever holds it (0.5 us)."""
        position, start_s = self.position, self.span.start_s
        untold_nano = self.lease.untold_nano
        for lease in self._drain:
            if lease.key.window_start_s == start_s:
                untold_nano += lease.untold_nano
        return position.limit_nano - position.used_nano - untold_nano

    @property
    def _elsewhere_nano(self) -> int:
        """What others may yet hand back, with what is free: enough to wait for?"""
        position = self.position
        idle_nano = position.leased_nano - position.open_nano - self.lease.idle_nano
        return idle_nano + position.free_nano

    def _rests(self, now_s: float) -> bool:
        """Whether the ledger is not asked for those who wait: it has just refused no more."""
        smallest_nano = min(self.waiting) - self.lease.room_nano
        return now_s < self._dry_until_s and smallest_nano >= self._dry_nano

    def wakes_s(self, amount_nano: int, now_s: float) -> float:
        """Return when the ledger may be asked for what a reservation lacks.

        At once, where it has refused only a larger amount: that says nothing of this one.
        """
        if amount_nano - self.lease.room_nano < self._dry_nano:
            return now_s
        return max(now_s, self._dry_until_s)

    # ------------------------------------------------------------------ what others may know

    def refusal(self, amount_nano: int, reason: Reason, why: str = "") -> BudgetRefusal:
        """Say why a reservation is refused."""
        status = self.status()
        return BudgetRefusal(
            budget=self.budget.name,
            scope=self.budget.scope.parts(),
            limit_nano=status.limit_nano,
            spent_nano=status.spent_nano,
            held_nano=status.held_nano,
            free_nano=status.free_nano,
            asked_nano=amount_nano,
            resets_at_s=status.resets_at_s,
            reason=reason,
            then=self.budget.then,
            on_exhausted=self.budget.on_exhausted,
            left_nano=self.left_nano,
            why=why,
        )

    def status(self) -> BudgetStatus:
        """Return the budget as the ledger last told it, with what this process has done since."""
        position, limit_nano = self.position, self.position.limit_nano
        mine = [lease for lease in self._drain if lease.key.window_start_s == self.span.start_s]
        mine += [self.lease]
        untold_nano = sum(lease.untold_nano for lease in mine)
        covered_nano = sum(min(lease.untold_nano, lease.held_nano) for lease in mine)
        spent_nano, carried_nano = position.spent_nano + untold_nano, position.carried_nano
        held_nano = max(0, position.leased_nano - covered_nano)
        return BudgetStatus(
            budget=self.budget,
            window_start_s=self.span.start_s,
            resets_at_s=self.span.end_s,
            limit_nano=limit_nano,
            spent_nano=spent_nano,
            held_nano=held_nano,
            free_nano=max(0, limit_nano - carried_nano - spent_nano - held_nano),
            overdraft_nano=max(0, carried_nano + spent_nano + held_nano - limit_nano),
            unaccounted_nano=position.unaccounted_nano,
            credit_nano=position.credit_nano,
            carried_nano=carried_nano,
            spenders=position.spenders,
        )

    @property
    def near(self) -> bool:
        """Whether so much is spent that only cheaper arms are wanted."""
        share = self.budget.downgrade_at
        if share is None:
            return False
        used_nano = self.position.used_nano + self.lease.untold_nano
        return used_nano >= share * self.position.limit_nano


class _Empty(LocalLease):
    """No purse: no room, and no time left."""

    def hold(self, amount_nano: int) -> None:
        """Refuse: nothing may be reserved where there is no lease."""
        raise AssertionError("a reservation in no purse")


EMPTY = _Empty(LeaseKey("", 0, 0, ""), [], 0.0)
