"""One budget in one process: its current lease, its draining leases, and its requests.

Theory of operation. A lease is filled ahead of need. When less than half of the last slice is left,
the next slice is requested, twice as large; the ledger grants at most a fair share of what is free.
Slices therefore grow with traffic and shrink with the budget, down to one reservation. Money that
has been idle for a moment, or that would last too long, is returned.

When the ledger has too little, there are three cases:

- Other holders have idle money. They learn of the shortage (`short`) in their next reply, so this
  process waits for the money, but no longer than PATIENCE_S.
- All held money is reserved, or PATIENCE_S has passed. Refuse, and do not ask again for REFUSAL_S;
  otherwise a burst of refusals would become a burst of requests to the ledger.
- The ledger does not answer. `on_ledger_failure` decides, in `Reservations`.
"""

import math
from collections.abc import Callable, Iterator

from tollway.gateway.budgets.calendar import WindowSpan, window_at
from tollway.gateway.budgets.local_lease import LocalLease
from tollway.gateway.budgets.model import Budget, BudgetRefusal, BudgetStatus, LeaseKey, Reason
from tollway.gateway.budgets.protocol import BudgetPosition, ExchangeReply, LeaseExchange
from tollway.gateway.budgets.window_state import LEASE_S

FIRST_SLICE = 32  # reservations; enough that a thousand requests need about ten slices
IDLE_S = 0.4  # between two usage checks; a slice unused in between is returned within a second
HORIZON_S = 2.0  # a slice that would last longer than this is trimmed
POLL_S = 0.5  # longest time between reports of settlements, so that others see them in a second,
#               and between exchanges while others may need the money held here
RENEW_S = LEASE_S / 3  # two replies may be lost before the lease is
REFUSAL_S = 0.1  # how long a refusal stays valid; doubles if the next request is refused too
REFUSAL_S_MAX = 0.8  # ... upper bound: below the second in which idle money is returned
PATIENCE_S = 1.5  # other holders return idle money within a second, or they are gone

OpenLease = Callable[[Budget, WindowSpan, float], LocalLease]


class LeasedBudget:
    """A budget in this process. All its fields are mutable state; `Reservations` owns it."""

    __slots__ = (
        "_drain",
        "_mark_s",
        "_mark_used_nano",
        "_open_lease",
        "_refusal_s",
        "_refused_nano",
        "_refused_until_s",
        "_short",
        "_short_since_s",
        "_slice_nano",
        "_unit_nano",
        "budget",
        "closed",
        "gone",
        "hard",
        "lease",
        "limited",
        "position",
        "retained_nano",
        "seen_s",
        "span",
        "waiting",
    )

    def __init__(self, budget: Budget, open_lease: OpenLease) -> None:
        self.budget = budget
        self.hard = budget.enforcement == "hard"
        self.limited = budget.enforcement != "soft"
        self.span = WindowSpan(0, 0)
        self.position = BudgetPosition(budget.limit_nano, 0, 0, 0, 0, 0)
        self.seen_s = -math.inf
        self.lease: LocalLease = EMPTY
        self.waiting: list[int] = []
        self.retained_nano = 0  # needed by calls that find it here but wait for another budget
        self.closed = False
        self.gone = False
        self._open_lease = open_lease
        self._drain: list[LocalLease] = []
        self._slice_nano = 0
        self._unit_nano = 1
        self._mark_s = -math.inf
        self._mark_used_nano = 0
        self._short = False
        self._short_since_s = math.inf
        self._refused_until_s = -math.inf
        self._refused_nano = 0
        self._refusal_s = REFUSAL_S

    # ------------------------------------------------------------------ windows and leases

    def roll(self, ledger_now_s: float) -> None:
        """Enter the ledger's current window. The previous window's lease starts to drain."""
        start_s, end_s = self.span
        if start_s <= ledger_now_s and (end_s is None or ledger_now_s < end_s):
            return
        self.retire()
        self.span = window_at(self.budget.window, self.budget.timezone, ledger_now_s)
        self.position = BudgetPosition(
            self.position.limit_nano - self.position.credit_nano, *[0] * 5
        )
        self.seen_s = self._refused_until_s = -math.inf
        self._short_since_s = math.inf

    def retire(self) -> None:
        """Drain the current lease: return what is left, and settle open reservations on it."""
        if self.lease is not EMPTY:
            self.lease.until_s = -math.inf
            self._drain.append(self.lease)
            self.lease = EMPTY

    def close(self) -> None:
        """Close permanently: drain the lease and request nothing more."""
        self.closed = True
        self.retire()

    def revise(self, budget: Budget) -> None:
        """Replace the budget by another of the same name. The old budget's lease is returned."""
        self.retire()
        self.budget = budget
        self.hard = budget.enforcement == "hard"
        self.limited = budget.enforcement != "soft"
        self.span = WindowSpan(0, 0)
        self.seen_s = -math.inf

    def leave(self) -> None:
        """Close permanently and stop matching requests."""
        self.gone = True
        self.close()

    def provide(self, now_s: float, ledger_now_s: float) -> LocalLease:
        """Return the current lease. Open one if there is none, without asking the ledger."""
        if self.lease is EMPTY:
            self.lease = self._open_lease(self.budget, self.span, now_s)
            self._mark_s, self._mark_used_nano = now_s, 0
        if not self.limited:
            end_s = self.span.end_s
            self.lease.until_s = math.inf if end_s is None else now_s + end_s - ledger_now_s
        return self.lease

    @property
    def draining(self) -> list[LocalLease]:
        """The draining leases."""
        return self._drain

    @property
    def has_unsynced(self) -> bool:
        """Whether there is anything that may not have been reported to the ledger."""
        return bool(self._drain) or self.lease is not EMPTY

    # ------------------------------------------------------------------ planning exchanges

    def plan(self, now_s: float, ledger_now_s: float) -> Iterator[tuple[LocalLease, LeaseExchange]]:
        """Yield the exchanges that are due now."""
        self.roll(ledger_now_s)
        self._look(now_s)
        for lease in self._drain:
            if asked := self._drain_lease(lease, now_s):
                yield lease, asked
        if self.limited and self.waiting and not self.closed and not self._rests(now_s):
            self.provide(now_s, ledger_now_s)
        if self.lease is not EMPTY and (asked := self._current(self.lease, now_s)):
            yield self.lease, asked

    def sync_now(self) -> bool:
        """Make the next plan report all settlements. Return whether there are any to report."""
        unsynced = [lease for lease in (*self._drain, self.lease) if lease.unsynced_nano]
        for lease in unsynced:
            lease.synced_s = -math.inf
        return bool(unsynced)

    def _drain_lease(self, lease: LocalLease, now_s: float) -> LeaseExchange | None:
        if lease.pending:
            return lease.ask(now_s)
        if lease.fresh and not lease.holds and not lease.settled_nano:
            lease.closed = True  # the ledger never heard of this lease and does not need to
            return None
        if not lease.holds:  # a first exchange must not close: it could not be repeated
            return lease.ask(now_s, give_nano=lease.idle_nano, close=not lease.fresh)
        since_s = now_s - lease.synced_s
        if lease.idle_nano or since_s >= RENEW_S or (lease.unsynced_nano and since_s >= POLL_S):
            return lease.ask(now_s, give_nano=lease.idle_nano)
        return None

    def _current(self, lease: LocalLease, now_s: float) -> LeaseExchange | None:
        if lease.pending:
            return lease.ask(now_s)
        if self.limited:
            if self.waiting and not self._rests(now_s):
                return self._ask_for_waiting(lease, now_s)
            if (
                not self.waiting
                and lease.room_nano < lease.low_nano
                and now_s >= self._refused_until_s
            ):
                lease.low_nano = 0
                return lease.ask(now_s, need_nano=self._unit_nano, want_nano=self._slice_nano)
        give_nano, since_s = self._excess(lease), now_s - lease.synced_s
        if give_nano:
            return lease.ask(now_s, give_nano=give_nano)
        if lease.room_nano < 0:  # overspent: other holders may count on this money, so report it
            due_s = 0.0
        else:
            due_s = POLL_S if self._watched or lease.unsynced_nano else RENEW_S
        return lease.ask(now_s) if since_s >= due_s else None

    def _ask_for_waiting(self, lease: LocalLease, now_s: float) -> LeaseExchange:
        """Request money for all waiting reservations. The smallest sets the useful minimum."""
        self._unit_nano = min(self.waiting)
        self._slice_nano = max(self._slice_nano, FIRST_SLICE * self._unit_nano)
        need_nano = max(1, self._unit_nano - lease.room_nano)
        due_nano = max(need_nano, sum(self.waiting) - lease.room_nano)
        return lease.ask(now_s, need_nano=need_nano, due_nano=due_nano, want_nano=self._slice_nano)

    def _look(self, now_s: float) -> None:
        """Measure usage every IDLE_S, resize the slice, and retire an unused lease."""
        lease, passed_s = self.lease, now_s - self._mark_s
        if lease is EMPTY or passed_s < IDLE_S or lease.pending:
            return
        used_nano = lease.used_nano - self._mark_used_nano
        self._mark_s, self._mark_used_nano = now_s, lease.used_nano
        if not used_nano and not self.waiting and not self.retained_nano:
            self._slice_nano = 0
            if not self._bare or now_s - lease.synced_s >= RENEW_S:
                self.retire()
            return
        lasts_nano = int(used_nano / passed_s * HORIZON_S)
        self._slice_nano = max(self._unit_nano, min(self._slice_nano, lasts_nano))
        lease.low_nano = min(lease.low_nano, self._slice_nano)

    @property
    def _bare(self) -> bool:
        """Whether the lease has no idle, reserved or unreported money, so that it may stay open."""
        return not (self.lease.idle_nano or self.lease.holds or self.lease.unsynced_nano)

    def _excess(self, lease: LocalLease) -> int:
        """Return the idle amount above what the lease will need soon.

        If other holders lack money, all idle money is excess, except `retained_nano`: without that
        exception, two exhausted budgets would return it alternately forever.
        """
        keep_nano = (
            self.retained_nano if self._short else max(self.retained_nano, 2 * self._slice_nano)
        )
        return max(0, lease.idle_nano - keep_nano)

    @property
    def _watched(self) -> bool:
        """Whether other holders may soon need the money that is idle here."""
        position = self.position
        return self.lease.idle_nano > 0 and position.free_nano * 10 < position.limit_nano

    # ------------------------------------------------------------------ replies

    def apply_reply(
        self,
        lease: LocalLease,
        asked: LeaseExchange,
        reply: ExchangeReply,
        now_s: float,
        lag_s: float,
    ) -> None:
        """Process a reply that was applied to `lease`. `lag_s`: the ledger's clock minus ours."""
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
            self._short_since_s, self._refused_until_s = math.inf, -math.inf
            lease.low_nano = max(lease.room_nano, 0) // 2
            self._slice_nano *= 2
        elif asked.need_nano and not reply.stale:
            self._short_since_s = min(self._short_since_s, now_s)
            hopeless = self._elsewhere_nano < asked.need_nano
            self._refusal_s = min(REFUSAL_S_MAX, 2 * self._refusal_s) if hopeless else REFUSAL_S
            self._refused_until_s, self._refused_nano = now_s + self._refusal_s, asked.need_nano

    def exhausted(self, amount_nano: int, now_s: float) -> bool:
        """Return whether to refuse a reservation now for lack of money."""
        short_nano = amount_nano - self.lease.room_nano
        if now_s >= self._refused_until_s or short_nano < self._refused_nano:
            return False
        waited_s = now_s - self._short_since_s
        return self._elsewhere_nano < short_nano or waited_s >= PATIENCE_S

    def lacks(self, amount_nano: int) -> Reason:
        """Return why a reservation lacks money: it is spent, or other calls hold it."""
        return "held" if amount_nano <= self.left_nano else "exhausted"

    @property
    def left_nano(self) -> int:
        """Unspent amount as far as this process knows, regardless of its holder (0.5 us)."""
        position, start_s = self.position, self.span.start_s
        unsynced_nano = self.lease.unsynced_nano
        for lease in self._drain:
            if lease.key.window_start_s == start_s:
                unsynced_nano += lease.unsynced_nano
        return position.limit_nano - position.used_nano - unsynced_nano

    @property
    def _elsewhere_nano(self) -> int:
        """Amount that may become available: free money plus other holders' idle money."""
        position = self.position
        idle_nano = position.leased_nano - position.open_nano - self.lease.idle_nano
        return idle_nano + position.free_nano

    def _rests(self, now_s: float) -> bool:
        """Whether to skip asking the ledger: it has just refused no more than is needed now."""
        smallest_nano = min(self.waiting) - self.lease.room_nano
        return now_s < self._refused_until_s and smallest_nano >= self._refused_nano

    def wakes_s(self, amount_nano: int, now_s: float) -> float:
        """Return when the ledger may be asked for what a reservation lacks.

        It may be asked at once if it has refused only a larger amount, because that refusal says
        nothing about this one.
        """
        if amount_nano - self.lease.room_nano < self._refused_nano:
            return now_s
        return max(now_s, self._refused_until_s)

    # ------------------------------------------------------------------ status

    def refusal(self, amount_nano: int, reason: Reason, why: str = "") -> BudgetRefusal:
        """Build the refusal of a reservation."""
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
        """Return the budget as last reported by the ledger, plus this process's own activity."""
        position, limit_nano = self.position, self.position.limit_nano
        mine = [lease for lease in self._drain if lease.key.window_start_s == self.span.start_s]
        mine += [self.lease]
        unsynced_nano = sum(lease.unsynced_nano for lease in mine)
        covered_nano = sum(min(lease.unsynced_nano, lease.held_nano) for lease in mine)
        spent_nano, carried_nano = position.spent_nano + unsynced_nano, position.carried_nano
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
        """Whether spending has reached `downgrade_at`, so that only cheaper arms are allowed."""
        share = self.budget.downgrade_at
        if share is None:
            return False
        used_nano = self.position.used_nano + self.lease.unsynced_nano
        return used_nano >= share * self.position.limit_nano


class _Empty(LocalLease):
    """The absent lease: it has no room and has expired."""

    def hold(self, amount_nano: int) -> None:
        """Fail: nothing may be reserved without a lease."""
        raise AssertionError("a reservation without a lease")


EMPTY = _Empty(LeaseKey("", 0, 0, ""), [], 0.0)
